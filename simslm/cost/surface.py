"""One quantity of an iteration, seconds or joules, as a function of its shape.

    value(B, S, n, pairs) = base(B, n) + decode(B, S / B) + prefill(n, pairs / n)

with ``B`` decoding sequences over ``S`` cached tokens and ``n`` prompt tokens that attend to ``pairs / n``
keys each on average. The base holds everything that remains when contexts vanish (linear layers, head,
sampling, host time); the two others hold what attention adds. Each table is bilinear and monotone along both
axes, so the value rises (or stays) with the batch at a fixed mean context, with the context, with the prompt
tokens and with their cached part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simslm.catalog.work import IterationShape
from simslm.cost.attention import split
from simslm.cost.base import Base, Mixed, extended, fit_base
from simslm.cost.decoding import line_through
from simslm.cost.grid import Grid
from simslm.cost.model import DecodeLine
from simslm.cost.roofline import Roofline

SHORTEST_CONTEXT = 1.0
"""Contexts are at least this; the split at vanishing context starts there."""

_BASE_AT_LEAST = 0.1
"""Attention is at most the rest of a mixed iteration."""


@dataclass(frozen=True)
class Points:
    """Distinct measured shapes with the median of one quantity, each array of shape ``(n,)``.

    Attributes:
        seqs, context: decoding sequences and their mean context.
        tokens, attended: prompt tokens and the mean context they attend to.
        values: seconds or joules.
    """

    seqs: np.ndarray
    context: np.ndarray
    tokens: np.ndarray
    attended: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, shapes: IterationShape, values: np.ndarray) -> Points:
        """The points of shapes whose value is known (not NaN)."""
        known = ~np.isnan(values)
        seqs, tokens = np.asarray(shapes.decode_seqs)[known], np.asarray(shapes.prefill_tokens)[known]
        context = np.asarray(shapes.decode_ctx_tokens)[known] / np.maximum(seqs, 1)
        attended = np.asarray(shapes.prefill_pairs)[known] / np.maximum(tokens, 1)
        return cls(
            seqs.astype(float),
            np.maximum(context, SHORTEST_CONTEXT),
            tokens.astype(float),
            np.maximum(attended, SHORTEST_CONTEXT),
            values[known],
        )

    @property
    def decode_only(self) -> np.ndarray:
        return self.tokens == 0

    @property
    def prefill_only(self) -> np.ndarray:
        return self.seqs == 0

    @property
    def mixed(self) -> np.ndarray:
        return (self.seqs > 0) & (self.tokens > 0)


@dataclass(frozen=True)
class Surface:
    """A fitted quantity.

    Attributes:
        base: over (decoding sequences, prompt tokens).
        decode: over (decoding sequences, mean context); zero on both axes.
        prefill: over (prompt tokens, mean context attended); zero on both axes.
        nodes: the measured part of ``base``.
    """

    base: Grid
    decode: Grid
    prefill: Grid
    nodes: Base

    def at(self, shape: IterationShape) -> float:
        """The value of one iteration with prompts."""
        seqs, context, _, tokens, _, pairs, _, drafted, _ = shape
        value = self.base.at(seqs, tokens + drafted) + self.prefill.at(tokens, pairs / (tokens or 1))
        return value + self.decode.at(seqs, context / seqs) if seqs else value

    def many(self, shapes: IterationShape) -> np.ndarray:
        """The values of many iterations; bitwise equal to :meth:`at` where there are prompts."""
        seqs, context, _, tokens, _, pairs, _, drafted, _ = shapes
        value = self.base.many(seqs, tokens + drafted) + self.prefill.many(
            tokens, pairs / np.maximum(tokens, 1)
        )
        return value + self.decode.many(seqs, context / np.maximum(seqs, 1))

    def line(self, seqs: int) -> DecodeLine:
        """The values of decode-only iterations of one batch size, against their total context."""
        contexts = self.decode.ys
        values = self.base.at(seqs, 0) + self.decode.many(np.full(len(contexts), seqs), contexts)
        return line_through(contexts * float(seqs), values)


class RooflineShapes:
    """The roofline's base and attention on the axes of a surface's tables."""

    def __init__(self, roofline: Roofline) -> None:
        self._roofline = roofline

    def base(self, seqs: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Device and host time without attention."""
        parts = self._parts(seqs, tokens)
        return parts.base + parts.host

    def device(self, seqs: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Device time without attention."""
        return self._parts(seqs, tokens).base

    def decode(self, seqs: np.ndarray, context: np.ndarray) -> np.ndarray:
        """Attention of ``seqs`` sequences over ``context`` tokens each."""
        return self._roofline.parts(IterationShape(seqs, seqs * context, 0, 0, 0, 0.0)).decode

    def prefill(self, tokens: np.ndarray, attended: np.ndarray) -> np.ndarray:
        """Attention of one prompt of ``tokens`` tokens that attend to ``attended`` keys each on average."""
        cached = np.maximum(attended - (tokens + 1) / 2, 0.0)
        return self._roofline.parts(IterationShape(0, 0, 1, tokens, cached, tokens * attended)).prefill

    def _parts(self, seqs: np.ndarray, tokens: np.ndarray):
        seqs, tokens = np.broadcast_arrays(seqs, tokens)
        tokens = np.where((seqs == 0) & (tokens == 0), 1.0, tokens)
        return self._roofline.parts(IterationShape(seqs, 0, tokens > 0, tokens, 0, 0.0))


def fit_surface(points: Points, shapes: RooflineShapes, unit: float = 1.0) -> Surface:
    """Fit the three tables to measured points, of which some are decode-only and some prefill-only.

    Args:
        points: medians over repeats.
        shapes: the roofline of the same model and device.
        unit: value of one roofline second: 1 for latencies, a typical power for energies.
    """
    only, prompts, both = points.decode_only, points.prefill_only, points.mixed
    decode = split(points.seqs[only], points.context[only], points.values[only], shapes.decode, unit)
    prefill = split(
        points.tokens[prompts], points.attended[prompts], points.values[prompts], shapes.prefill, unit
    )
    attention = decode.excess.many(points.seqs[both], points.context[both])
    attention = attention + prefill.excess.many(points.tokens[both], points.attended[both])
    without = np.maximum(points.values[both] - attention, _BASE_AT_LEAST * points.values[both])
    mixed = by_node(points.seqs[both], points.tokens[both], without)
    nodes = fit_base(decode, prefill, mixed, shapes.base)
    return Surface(extended(nodes, nodes.values, shapes.base), decode.excess, prefill.excess, nodes)


def by_node(seqs: np.ndarray, tokens: np.ndarray, values: np.ndarray) -> Mixed:
    """One median for each distinct (sequences, prompt tokens)."""
    if len(values) == 0:
        return Mixed(seqs, tokens, values)
    pairs, index = np.unique(np.column_stack([seqs, tokens]), axis=0, return_inverse=True)
    medians = [np.median(values[index == i]) for i in range(len(pairs))]
    return Mixed(pairs[:, 0], pairs[:, 1], np.array(medians))

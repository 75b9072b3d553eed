"""The table of iterations at vanishing attention, over (decoding sequences, prompt tokens).

Its edges come from decode-only and prefill-only iterations, its inside from mixed ones. Where no mixed
iteration was measured, the linear layers cost what as many prompt tokens cost (they read the weights once for
all tokens of an iteration), and a decoding sequence adds what it adds beyond its token: sampling, the output
head, host time. Measured mixed iterations correct that estimate around them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from simslm.cost.attention import Split
from simslm.cost.grid import Grid
from simslm.cost.isotonic import monotone, running_maximum

_LIGHT = 1e-3
_GROWTH = 1.25
_FARTHEST_SEQS = 2.0**17
_FARTHEST_TOKENS = 2.0**21

RooflineBase = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Roofline seconds without attention, by decoding sequences and prompt tokens."""


@dataclass(frozen=True)
class Mixed:
    """Mixed iterations with their attention taken off, one per measured (sequences, prompt tokens).

    Attributes:
        seqs, tokens, values: shape ``(n,)``.
    """

    seqs: np.ndarray
    tokens: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Base:
    """Values at vanishing attention at the measured nodes; row 0 has no decoding, column 0 no prompt.

    Attributes:
        seqs: shape ``(n,)``, from 0.
        tokens: shape ``(m,)``, from 0.
        values: shape ``(n, m)``, monotone.
    """

    seqs: np.ndarray
    tokens: np.ndarray
    values: np.ndarray


def fit_base(decode: Split, prefill: Split, mixed: Mixed, roofline: RooflineBase) -> Base:
    """The monotone table closest to what was measured.

    Args:
        decode: its base is the edge without prompts.
        prefill: its base is the edge without decoding.
        mixed: what is inside.
        roofline: extrapolates the edges to where they were not measured.
    """
    seqs = np.concatenate([[0.0], np.union1d(decode.sizes, mixed.seqs)])
    tokens = np.concatenate([[0.0], np.union1d(prefill.sizes, mixed.tokens)])
    empty = _empty(decode, prefill, roofline)
    zero = np.zeros(1)
    decode_edge = _edge(decode, empty, lambda x: roofline(x, zero))
    prefill_edge = _edge(prefill, empty, lambda x: roofline(zero, x))
    column, row = decode_edge(seqs), prefill_edge(tokens)
    as_prompt = prefill_edge(np.add.outer(seqs, tokens).ravel()).reshape(len(seqs), len(tokens))
    estimate = as_prompt + (column - prefill_edge(seqs))[:, None]
    estimate = np.clip(estimate, np.maximum.outer(column, row), np.add.outer(column, row))
    estimate[:, 0], estimate[0, :] = column, row
    values, measured = corrected(estimate, seqs, tokens, mixed)
    weights = np.where(measured, 1.0, _LIGHT)
    weights[np.isin(seqs, decode.sizes), 0] = decode.points
    weights[0, np.isin(tokens, prefill.sizes)] = prefill.points
    return Base(seqs, tokens, monotone(values, weights))


def corrected(
    estimate: np.ndarray, seqs: np.ndarray, tokens: np.ndarray, mixed: Mixed
) -> tuple[np.ndarray, np.ndarray]:
    """The estimate with measured nodes in their place, and the ratio there spread to the nodes between.

    Ratios are spread by inverse squared distance over the logarithms of sequences and tokens (Shepard 1968),
    with ratio 1 on both edges.

    Returns:
        The table, and the mask of the measured inside; both ``(n, m)``.
    """
    measured = np.zeros(estimate.shape, dtype=bool)
    if len(mixed.values) == 0:
        return estimate.copy(), measured
    i, j = np.searchsorted(seqs, mixed.seqs), np.searchsorted(tokens, mixed.tokens)
    measured[i, j] = True
    ratio = np.ones_like(estimate)
    ratio[i, j] = mixed.values / estimate[i, j]
    known = measured.copy()
    known[0, :] = known[:, 0] = True
    places = np.stack(np.meshgrid(np.log1p(seqs), np.log1p(tokens), indexing="ij"), axis=-1)
    unknown = ~known
    if unknown.any():
        squared = ((places[unknown][:, None, :] - places[known][None, :, :]) ** 2).sum(axis=-1)
        ratio[unknown] = (ratio[known] / squared).sum(axis=1) / (1 / squared).sum(axis=1)
    return estimate * ratio, measured


def extended(base: Base, values: np.ndarray, roofline: RooflineBase, ceiling: Grid | None = None) -> Grid:
    """A table on the nodes of ``base``, extrapolated: the value at the edge times the roofline's ratio to the edge.

    Args:
        base: the measured nodes.
        values: the table to extrapolate, shape ``(n, m)``, monotone.
        roofline: its shape beyond the nodes.
        ceiling: a table on the same extended nodes that the result must not exceed, or None.

    Returns:
        A grid with nodes far beyond the measured ones, continuous at their border and monotone.
    """
    xs, ys = _beyond(base.seqs, _FARTHEST_SEQS), _beyond(base.tokens, _FARTHEST_TOKENS)
    rows = np.minimum(np.arange(len(xs)), len(base.seqs) - 1)
    columns = np.minimum(np.arange(len(ys)), len(base.tokens) - 1)
    x, y = np.meshgrid(xs, ys, indexing="ij")
    here = roofline(x.ravel(), y.ravel())
    at_edge = roofline(x[rows][:, columns].ravel(), y[rows][:, columns].ravel())
    table = values[rows][:, columns] * (here / at_edge).reshape(x.shape)
    if ceiling is not None:
        table = np.minimum(table, ceiling.values)
    return Grid(xs, ys, running_maximum(table))


def _beyond(nodes: np.ndarray, farthest: float) -> np.ndarray:
    more = [nodes[-1] * _GROWTH]
    while more[-1] < farthest:
        more.append(more[-1] * _GROWTH)
    return np.concatenate([nodes, more])


def _empty(decode: Split, prefill: Split, roofline: RooflineBase) -> float:
    """An iteration of no tokens: the smallest measured one, scaled by the roofline (weights are read)."""
    zero = np.zeros(1)
    start = roofline(zero, zero)
    by_decode = decode.base[0] * start / roofline(decode.sizes[:1], zero)
    by_prefill = prefill.base[0] * start / roofline(zero, prefill.sizes[:1])
    return float(min(by_decode[0], by_prefill[0]))


def _edge(part: Split, empty: float, roofline: Callable[[np.ndarray], np.ndarray]) -> Callable:
    """The base of one kind at any size: between nodes linear, beyond them by the roofline's ratio."""
    xs, values = np.append(0.0, part.sizes), np.append(empty, part.base)

    def at(x: np.ndarray) -> np.ndarray:
        clamped = np.minimum(x, xs[-1])
        return np.interp(clamped, xs, values) * (roofline(x) / roofline(clamped))

    return at

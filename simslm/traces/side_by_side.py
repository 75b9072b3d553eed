"""Two traces of one model on the same shapes: how long an iteration takes in each, and their ratio.

The interval of a ratio is made of the intervals of both medians at 97.5 % each, so that the ratio lies in it with at
least 95 %. Seven repeats are the fewest that give one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simslm.errors import UsageError
from simslm.traces.files import Trace
from simslm.traces.medians import median_interval
from simslm.traces.shapes import SHAPE_COLUMNS, Shapes, alone, shapes

AREAS = ("decode", "prefill", "mixed")
"""What iterations are made of; ratios are summed up for each."""

SETTINGS = (
    "engine", "engine_settings", "lengths", "device", "dtype", "quantization", "attention", "graph_sizes", "block_size", "threads", "torch", "grid", "reach",
)  # fmt: skip
"""Keys of the provenance that a reader of the ratios has to know where they differ."""

_LEVEL = 0.975
"""Confidence of each of two intervals that hold with 95 % together (Bonferroni)."""


@dataclass(frozen=True)
class Pair:
    """One shape, measured in both.

    Attributes:
        label: the shape in words.
        area: of :data:`AREAS`.
        columns: the shape's columns.
        tokens: that each iteration processes: one per decoding sequence, and the prompts' new ones.
        latency_s: medians, the first trace's and the second's.
        interval: 95 % of their ratio; None with fewer than seven repeats of either.
    """

    label: str
    area: str
    columns: dict[str, int]
    tokens: int
    latency_s: tuple[float, float]
    interval: tuple[float, float] | None

    @property
    def ratio(self) -> float:
        """The second's latency over the first's: above 1, the first is faster."""
        return self.latency_s[1] / self.latency_s[0]

    @property
    def tokens_per_s(self) -> tuple[float, float]:
        return self.tokens / self.latency_s[0], self.tokens / self.latency_s[1]


def side_by_side(first: Trace, second: Trace) -> list[Pair]:
    """Every shape that one replica alone was measured at in both traces.

    Raises:
        UsageError: traces of different models, without measured iterations, or without a shape in common.
    """
    models = [trace.provenance["model"] for trace in (first, second)]
    if models[0] != models[1]:
        raise UsageError(
            f"{first.path} is of {models[0]}, {second.path} of {models[1]}", remedy="compare traces of one model"
        )
    one, other = _measured(first), _measured(second)
    places = {_key(other, i): i for i in range(len(other))}
    samples = one.samples("latency_s"), other.samples("latency_s")
    pairs = [
        _pair(one, i, (samples[0][i], samples[1][places[key]]))
        for i in range(len(one))
        if (key := _key(one, i)) in places
    ]
    if not pairs:
        raise UsageError(
            f"no shape was measured in both {first.path} and {second.path}",
            remedy="measure both with the same --grid and --reach",
        )
    return pairs


def mean_ratio(pairs: list[Pair]) -> float:
    """Geometric mean of the ratios: swapping the traces gives its reciprocal."""
    return float(np.exp(np.mean(np.log([pair.ratio for pair in pairs]))))


def differing_settings(first: Trace, second: Trace) -> dict[str, tuple[object, object]]:
    """What of :data:`SETTINGS` the two were not measured alike in."""
    told = {name: (first.provenance.get(name), second.provenance.get(name)) for name in SETTINGS}
    return {name: values for name, values in told.items() if values[0] != values[1]}


def _measured(trace: Trace) -> Shapes:
    if trace.iterations is None:
        raise UsageError(
            f"the trace is {trace.source} and has no iterations", where=str(trace.path), remedy="compare measured ones"
        )
    return shapes(alone(trace.iterations))


def _key(measured: Shapes, index: int) -> tuple[int, ...]:
    return tuple(int(measured.columns[name][index]) for name in SHAPE_COLUMNS)


def _pair(one: Shapes, i: int, samples: tuple[np.ndarray, np.ndarray]) -> Pair:
    columns: dict[str, int] = dict(zip(SHAPE_COLUMNS, _key(one, i), strict=True))
    area = "decode" if one.decode_only[i] else "prefill" if one.prefill_only[i] else "mixed"
    known = [interval for values in samples if (interval := median_interval(values.tolist(), _LEVEL))]
    return Pair(
        _label(columns),
        area,
        columns,
        columns["decode_seqs"] + columns["prefill_tokens"],
        (float(np.median(samples[0])), float(np.median(samples[1]))),
        (known[1][0] / known[0][1], known[1][1] / known[0][0]) if len(known) == 2 else None,
    )


def _label(columns: dict[str, int]) -> str:
    """A shape in words, its tokens per sequence: ``decode 4×520 + prefill 1×16 after 504``."""
    decoding, context, prompts, new, cached = (columns[name] for name in SHAPE_COLUMNS)
    parts = [f"decode {decoding}×{context / decoding:g}"] if decoding else []
    if prompts:
        after = f" after {cached / prompts:g}" if cached else ""
        parts.append(f"prefill {prompts}×{new / prompts:g}{after}")
    return " + ".join(parts)


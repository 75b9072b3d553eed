"""Splitting measured iterations of one kind into what vanishes with the context and what does not.

A table of seconds over (size, mean context) becomes a base, at vanishing context, and an excess that is zero
there and rises with size and context. Sizes are decoding sequences or prompt tokens; the mean context is what
one query attends to. Energy is split the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from simslm.cost.grid import Grid
from simslm.cost.isotonic import monotone, rising, running_maximum

_LIGHT = 1e-3
"""Weight of a filled-in node beside a measured one."""

_BASE_AT_LEAST = 0.1
"""A base is at least this fraction of the value at the smallest measured context."""

_VISIBLE = 0.02
"""Attention shows in a measurement when it is at least this share of some iteration."""

_GROWTH = 2.0
_FARTHEST_CONTEXT = 2.0**22

Attention = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Roofline seconds of attention by size and mean context."""


@dataclass(frozen=True)
class Split:
    """Base and excess of one kind of iteration.

    Attributes:
        sizes: measured sizes, increasing, shape ``(n,)``.
        base: value at vanishing context, monotone, shape ``(n,)``.
        points: measured contexts at each size, shape ``(n,)``.
        excess: over (size, mean context), zero on both axes, monotone.
    """

    sizes: np.ndarray
    base: np.ndarray
    points: np.ndarray
    excess: Grid


@dataclass(frozen=True)
class _Curve:
    """Values against mean context at one size, monotone."""

    contexts: np.ndarray
    values: np.ndarray


def split(
    sizes: np.ndarray, contexts: np.ndarray, values: np.ndarray, attention: Attention, unit: float
) -> Split:
    """Fit base and excess to measured points.

    Args:
        sizes, contexts, values: shape ``(n,)``, all positive; medians over repeats.
        attention: the roofline's; gives the slope where nothing was measured, and the shape beyond.
        unit: value of one roofline second: 1 for latencies, a typical power for energies.
    """
    nodes = np.unique(sizes)
    curves = [_curve(contexts[sizes == node], values[sizes == node]) for node in nodes]
    points = np.array([len(curve.contexts) for curve in curves])
    pair = _seconds_per_pair(nodes, curves, attention, unit)
    base = np.array([_base(c, node * each) for c, node, each in zip(curves, nodes, pair, strict=True)])
    base = rising(base, points)
    least = _least_ratio(nodes, curves, base, attention, unit)
    axis = np.unique(np.concatenate([curve.contexts for curve in curves]))
    table = np.empty((len(nodes), len(axis)))
    weights = np.empty_like(table)
    for i, (node, curve) in enumerate(zip(nodes, curves, strict=True)):
        table[i] = _resample(node, curve, base[i], axis, attention, least)
        weights[i] = np.where(np.isin(axis, curve.contexts), 1.0, _LIGHT)
    table = monotone(table, weights)
    return Split(nodes, base, points, _extended(nodes, axis, table, attention, least))


def _curve(contexts: np.ndarray, values: np.ndarray) -> _Curve:
    axis, index, counts = np.unique(contexts, return_inverse=True, return_counts=True)
    means = np.bincount(index, weights=values) / counts
    return _Curve(axis, rising(means, counts))


def _seconds_per_pair(
    nodes: np.ndarray, curves: list[_Curve], attention: Attention, unit: float
) -> np.ndarray:
    """The slope per (query, key) pair at each size; a size with one context takes that of its neighbours."""
    slopes = np.full(len(nodes), np.nan)
    for i, (node, curve) in enumerate(zip(nodes, curves, strict=True)):
        span = curve.contexts[-1] - curve.contexts[0]
        if span > 0:
            slopes[i] = (curve.values[-1] - curve.values[0]) / (span * node)
    known = ~np.isnan(slopes)
    if known.any():
        return np.interp(nodes, nodes[known], slopes[known])
    last = np.array([curve.contexts[-1] for curve in curves])
    return unit * attention(nodes, last) / (nodes * last)


def _base(curve: _Curve, slope: float) -> float:
    """The curve carried to context 0, along its own first slope where it has one over a factor of two."""
    first, value = curve.contexts[0], curve.values[0]
    if len(curve.contexts) > 1:
        j = min(int(np.searchsorted(curve.contexts, 2 * first)), len(curve.contexts) - 1)
        slope = (curve.values[j] - value) / (curve.contexts[j] - first)
    return max(value - slope * first, _BASE_AT_LEAST * value)


def _least_ratio(
    nodes: np.ndarray, curves: list[_Curve], base: np.ndarray, attention: Attention, unit: float
) -> float:
    """The ratio of measured to roofline attention where it shows most; at most the roofline's own."""
    last = np.array([curve.contexts[-1] for curve in curves])
    values = np.array([curve.values[-1] for curve in curves])
    excess = values - base
    if (excess / values).max() < _VISIBLE:
        return unit
    return min(unit, float((excess / attention(nodes, last)).max()))


def _resample(
    node: float, curve: _Curve, base: float, axis: np.ndarray, attention: Attention, least: float
) -> np.ndarray:
    """The excess of one size at every context of the axis; beyond its own contexts, extrapolated with the roofline."""
    excess = np.maximum(curve.values - base, 0.0)
    inside = np.interp(axis, np.append(0.0, curve.contexts), np.append(0.0, excess))
    return inside + _carried(node, curve.contexts[-1], excess[-1], axis, attention, least)


def _carried(
    node: float, last: float, excess: float, axis: np.ndarray, attention: Attention, least: float
) -> np.ndarray:
    """What the excess gains beyond the last measured context: the roofline's gain, times the ratio there.

    The ratio of measured to roofline attention is at least ``least``, so that attention hidden at short
    contexts (behind host time, or in noise) still costs what the device must spend at long ones.
    """
    size = np.full(len(axis), node)
    edge = attention(size, np.full(len(axis), last))
    gain = attention(size, np.maximum(axis, last)) - edge
    return np.maximum(excess / edge, least) * gain


def _extended(
    nodes: np.ndarray, axis: np.ndarray, table: np.ndarray, attention: Attention, least: float
) -> Grid:
    """The excess with its zero edges, and with nodes beyond the measured ones that follow the roofline."""
    beyond = [axis[-1] * _GROWTH]
    while beyond[-1] < _FARTHEST_CONTEXT:
        beyond.append(beyond[-1] * _GROWTH)
    more = np.array(beyond)
    edges = zip(nodes, table[:, -1], strict=True)
    tail = np.array([v + _carried(x, axis[-1], v, more, attention, least) for x, v in edges])
    measured = np.hstack([np.zeros((len(nodes), 1)), table, tail])
    rows = np.vstack([np.zeros(measured.shape[1]), measured, _GROWTH * measured[-1]])
    xs = np.concatenate([[0.0], nodes, [_GROWTH * nodes[-1]]])
    return Grid(xs, np.concatenate([[0.0], axis, more]), running_maximum(rows))

"""Percentiles of plain and of weighted values, exact unless values were merged, and distributions thinned to points."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

LEVELS = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}

MAX_POINTS = 500

_KEPT_BITS = 13


@dataclass(frozen=True, slots=True)
class Distribution:
    """Observed values in order, each as often as it counts.

    Attributes:
        values: ascending, shape ``(n,)``.
        last: the rank of each value's last copy, from 0, shape ``(n,)``.
        mean: of all copies; NaN when there are none.
    """

    values: np.ndarray
    last: np.ndarray
    mean: float

    @property
    def count(self) -> int:
        """Copies of all values."""
        return int(self.last[-1]) + 1 if len(self.last) else 0

    def spread(self, misses: int = 0) -> dict[str, float | None]:
        """``{mean, p50, p90, p95, p99, max}``, all None when there is nothing.

        Percentiles interpolate linearly between order statistics, as ``numpy.percentile`` does on the values written
        out as often as they count.

        Args:
            misses: further values, each infinite: with one of them the mean and the maximum are, and so is every
                percentile that rests on one.
        """
        if misses:
            return {
                "mean": inf,
                **{name: self._with_misses(level, misses) for name, level in LEVELS.items()},
                "max": inf,
            }
        if not len(self.values):
            return dict.fromkeys(("mean", *LEVELS, "max"))
        lowest, highest = float(self.values[0]), float(self.values[-1])
        percentiles = {name: self._quantile(level) for name, level in LEVELS.items()}
        # The mean of equal values may round to just outside of them.
        return {"mean": min(max(self.mean, lowest), highest), **percentiles, "max": highest}

    def thinned(self, most: int = MAX_POINTS) -> tuple[np.ndarray, np.ndarray]:
        """At most so many of the values, and the share of copies <= each: exact, the smallest and the largest kept."""
        if not len(self.values):
            return self.values, self.last.astype(float)
        ranks = kept_ranks(self.count, most)
        values = self.values[np.searchsorted(self.last, ranks)]
        kept = np.unique(np.searchsorted(self.values, values, side="right") - 1)
        return self.values[kept], (self.last[kept] + 1) / (self.last[-1] + 1)

    def _with_misses(self, level: float, misses: int) -> float:
        known = int(self.last[-1]) + 1 if len(self.values) else 0
        position = level * (known + misses - 1)
        # Interpolating towards an infinite value is infinite, hence ``ceil``: also a quantile that only touches a
        # miss.
        return inf if np.ceil(position) >= known else self._at(position)

    def _quantile(self, level: float) -> float:
        return self._at(level * self.last[-1])

    def _at(self, position: float) -> float:
        """The value at a rank from 0, between two of them linearly."""
        below = np.floor(position)
        low, high = self.values[np.searchsorted(self.last, [below, min(below + 1, self.last[-1])])]
        return float(low + (high - low) * (position - below))


def distribution(values: np.ndarray, weights: np.ndarray | None = None) -> Distribution:
    """The distribution of some values.

    Args:
        values: shape ``(n,)``, in any order.
        weights: how often each value counts, non-negative whole numbers of shape ``(n,)``; None = once each.
    """
    if weights is not None:
        values, weights = values[weights > 0], weights[weights > 0]
    order = np.argsort(values, kind="stable")
    values = values[order]
    counts = np.ones(len(values)) if weights is None else weights[order]
    mean = float(np.dot(values, counts) / counts.sum()) if len(values) else float("nan")
    return Distribution(values, np.cumsum(counts) - 1, mean)


def spread(values: np.ndarray, weights: np.ndarray | None = None) -> dict[str, float | None]:
    """Mean, percentiles and maximum of some values, see :meth:`Distribution.spread`."""
    return distribution(values, weights).spread()


def kept_ranks(count: int, most: int = MAX_POINTS) -> np.ndarray:
    """Ascending ranks in ``[0, count)`` to keep, the first and the last among them; all when they are few.

    Four fifths of them are spread evenly and the rest geometrically towards the largest value, so that the tail of a
    million requests keeps its shape.
    """
    if count <= most:
        return np.arange(count)
    tail = most // 5
    even = np.linspace(0, count - 1, most - tail)
    # The last twentieth, finer and finer: p99 and beyond are where the eye looks.
    last = count - np.geomspace(count / 20, 1, tail)
    return np.unique(np.concatenate([even, last]).round().astype(np.int64))


class Pool:
    """Values that are not negative, in parts, and how often each counts."""

    __slots__ = ("count", "values", "weights")

    def __init__(self) -> None:
        self.values: list[np.ndarray] = []
        self.weights: list[np.ndarray | None] = []
        self.count = 0

    def add(self, values: np.ndarray, most: int | None = None, weights: np.ndarray | None = None) -> None:
        """Adds a part; once more than ``most`` values are held, they are merged.

        Args:
            values: shape ``(n,)``.
            most: None = as many as there are.
            weights: how often each counts, shape ``(n,)``; None = once each.
        """
        self.values.append(values)
        self.weights.append(weights)
        self.count += len(values)
        if most is not None and self.count > most:
            self.merge()

    def merge(self) -> None:
        """Fewer values with the same sum and the same largest one, see :func:`merged`."""
        values, weights = merged(np.concatenate([*self.values, []]), np.concatenate([*_filled(self), []]))
        self.values, self.count = [values], len(values)
        self.weights = [weights]


def pooled(pools: Iterable[Pool]) -> Distribution:
    """The distribution of all values of some pools."""
    found = list(pools)
    values = np.concatenate([*(part for pool in found for part in pool.values), []])
    if all(weights is None for pool in found for weights in pool.weights):
        return distribution(values)
    return distribution(values, np.concatenate([*(part for pool in found for part in _filled(pool)), []]))


def _filled(pool: Pool) -> Sequence[np.ndarray]:
    """The weights of each part written out."""
    return [
        np.ones(len(values)) if weights is None else weights
        for values, weights in zip(pool.values, pool.weights, strict=True)
    ]


def merged(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values that agree in their leading binary digits as their mean, but for the largest, and how often each counts.

    Args:
        values: not negative, shape ``(n,)``, in any order.
        weights: how often each counts, shape ``(n,)``.
    """
    values, weights = values[weights > 0], weights[weights > 0]
    if not len(values):
        return values, weights
    # The bits of positive doubles are in the order of their values: dropping the last ones leaves exponent and
    # leading digits, which is a relative precision. Hence only values that are not negative.
    digits = np.ascontiguousarray(values).view(np.int64) >> (52 - _KEPT_BITS)
    # The largest is kept apart: a maximum that was averaged would be below a value that occurred.
    digits[values == values.max()] = np.iinfo(np.int64).max
    _, group = np.unique(digits, return_inverse=True)
    counts = np.bincount(group, weights)
    means = np.bincount(group, values * weights) / counts
    means[-1] = values.max()
    return means, counts

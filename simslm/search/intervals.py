"""Comparison over a few seeds: intervals of means, and which points beat which.

Points are compared seed by seed: under the same seed they serve the same requests (common random numbers), so the
differences vary less than the figures. Student's t for the mean of the differences (Law 2015, "Simulation Modeling
and Analysis", section 10.2.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, isinf, sqrt

import numpy as np

from simslm.comparison.student import quantile, spread
from simslm.search.pareto import Gains

TEST = (
    "a point is beaten by one that is surely better in one objective and surely worse in none, or surely better by "
    "more than the margin in one and surely worse by more than the margin in none. Surely: the t interval of the "
    "differences under the same seeds leaves out 0; under one seed any difference is sure. Of points that differ by no "
    "more than the margin in every objective, one stands for all"
)
"""The rule, for files and pages."""


def interval(
    values: Sequence[float], confidence: float, most: float | None = None
) -> tuple[float, float] | None:
    """The interval of a mean; None from a single value, or where a value is infinite.

    Of positive values it is the t interval of the logarithm of the mean by the delta method,
    ``mean · exp(± t s / (mean √n))`` (Law 2015, section 4.5 and exercise 4.26; Casella & Berger 2002, section 5.5.4),
    which is positive too; else the plain one.

    Args:
        values: one for each seed.
        confidence: two-sided.
        most: largest value that is possible; None where nothing bounds it.
    """
    if len(values) < 2 or any(map(isinf, values)):
        return None
    mean = sum(values) / len(values)
    half = quantile(confidence, len(values) - 1) * sqrt(spread(values, mean)) / sqrt(len(values))
    if min(values) < 0 or mean == 0:
        low, high = mean - half, mean + half
    else:
        # Beyond 709 a double overflows; the interval says "anything" long before.
        factor = exp(min(half / mean, 700.0))
        low, high = mean / factor, mean * factor
    # ``max``: the mean of shares that are all 1 may round to just above 1, and an interval holds its mean.
    return (low, high) if most is None else (low, max(min(high, most), mean))


@dataclass(frozen=True, slots=True)
class Relations:
    """How some points compare, each with each.

    Attributes:
        beats: whether the one of the row beats that of the column, shape ``(points, points)``, see :data:`TEST`.
        alike: whether they differ by no more than the margin in every objective; nothing is like itself here.
    """

    beats: np.ndarray
    alike: np.ndarray


def relations(points: Sequence[Sequence[Gains]], confidence: float, margin: float) -> Relations:
    """Compares points with each other, each pair under the seeds that both have.

    Neither relation is transitive, and points may beat each other in a circle; never two alone.

    Args:
        points: of each, its gains under seed, seed + 1, ..., one seed at least; a gain may be -inf.
        confidence: of the paired test.
        margin: share of a figure, 0 to 1.
    """
    size = len(points)
    beats, alike = np.zeros((size, size), dtype=bool), np.zeros((size, size), dtype=bool)
    counts = np.array([len(gains) for gains in points])
    for count in sorted({len(gains) for gains in points}):
        columns = np.flatnonzero(counts == count)
        theirs = np.array([points[i] for i in columns.tolist()], dtype=float)
        for row, gains in enumerate(points):
            seeds = min(count, len(gains))
            mine = np.array(gains[:seeds], dtype=float)
            beats[row, columns], alike[row, columns] = _compared(mine, theirs[:, :seeds], confidence, margin)
    np.fill_diagonal(alike, False)
    return Relations(beats, alike)


def _compared(
    mine: np.ndarray, theirs: np.ndarray, confidence: float, margin: float
) -> tuple[np.ndarray, np.ndarray]:
    """Whether one point beats each of some others, and whether it is like each.

    Where a figure is infinite under some seed its mean has no interval: one point is surely better than another if it
    is under some seed and worse under none.

    Args:
        mine: gains, shape ``(seeds, objectives)``.
        theirs: shape ``(others, seeds, objectives)``.
        confidence, margin: see :func:`relations`.
    """
    seeds = len(mine)
    with np.errstate(invalid="ignore", over="ignore"):
        # Two infinite figures are equal; their difference would be NaN.
        differences = np.where(mine == theirs, 0.0, mine - theirs)
        low, high = differences.min(axis=1), differences.max(axis=1)
        better, worse = (low >= 0) & (high > 0), (high <= 0) & (low < 0)
        if seeds > 1:
            known = np.isfinite(differences).all(axis=1)
            mean = differences.mean(axis=1)
            half = quantile(confidence, seeds - 1) * differences.std(axis=1, ddof=1) / sqrt(seeds)
            better, worse = np.where(known, mean > half, better), np.where(known, mean < -half, worse)
        one, other = mine.mean(axis=0), theirs.mean(axis=1)
        apart = np.where(one == other, 0.0, np.abs(one - other))
        beyond = (apart > margin * np.maximum(np.abs(one), np.abs(other))) | np.isinf(apart)
    plainly = better.any(axis=1) & ~worse.any(axis=1)
    largely = (better & beyond).any(axis=1) & ~(worse & beyond).any(axis=1)
    return plainly | largely, ~beyond.any(axis=1)


def standing(beats: np.ndarray, order: Sequence[int]) -> list[int]:
    """Points that stand: each of the others is beaten by one of them.

    Those that none beats stand, and what they beat is out; then the same among the others, until none is left. Where
    all that are left are beaten, some beat each other in a circle: of one that is beaten from outside by none, the
    first in the order stands. The answer does not depend on the order in which points come, and is never empty.

    Args:
        beats: see :class:`Relations`, for points that do not beat each other in pairs.
        order: the rank of each point, a permutation.
    """
    left = np.ones(len(beats), dtype=bool)
    kept = np.zeros(len(beats), dtype=bool)
    while left.any():
        # Only points that are still left count as beating: one that has been beaten itself must not remove others.
        free = left & ~beats[left].any(axis=0)
        if not free.any():
            free[_of_circle(beats, left, order)] = True
        kept |= free
        left &= ~free & ~beats[free].any(axis=0)
    return np.flatnonzero(kept).tolist()


def _of_circle(beats: np.ndarray, left: np.ndarray, order: Sequence[int]) -> int:
    """The first point of a circle that nothing outside of it beats: one with the fewest points that reach it."""
    there = np.flatnonzero(left).tolist()
    above = {i: [j for j in there if beats[j, i]] for i in there}

    def reaching(start: int) -> int:
        seen, ahead = {start}, [start]
        while ahead:
            new = [j for j in above[ahead.pop()] if j not in seen]
            seen.update(new)
            ahead += new
        return len(seen)

    return min(there, key=lambda i: (reaching(i), order[i]))


def merged(alike: np.ndarray, order: Sequence[int]) -> list[int]:
    """Points that stand for themselves and for those like them: each in its order, unless one before it does.

    Args:
        alike: see :class:`Relations`.
        order: the rank of each point, a permutation.
    """
    kept: list[int] = []
    for i in sorted(range(len(alike)), key=lambda each: order[each]):
        if not any(alike[i, j] for j in kept):
            kept.append(i)
    return sorted(kept)

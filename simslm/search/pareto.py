"""Dominance and hypervolume, over tuples of numbers of which more is better.

Equal points do not dominate each other: all of a tie are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

Gains = tuple[float, ...]


def dominates(first: Gains, second: Gains) -> bool:
    """Whether the first is at least as good everywhere and better somewhere."""
    return first != second and all(a >= b for a, b in zip(first, second, strict=True))


def non_dominated(points: Sequence[Gains]) -> list[int]:
    """Which points no other dominates, in their order."""
    order = sorted(range(len(points)), key=lambda i: points[i], reverse=True)
    front: list[int] = []
    for i in order:  # what dominates a point comes before it, and something of the front dominates it too
        if not any(dominates(points[j], points[i]) for j in front):
            front.append(i)
    return sorted(front)


def fronts(points: Sequence[Gains]) -> list[list[int]]:
    """All points by rank: those that no other dominates, those that only these dominate, and so on."""
    left, found = list(range(len(points))), []
    while left:
        best = [left[i] for i in non_dominated([points[i] for i in left])]
        found.append(best)
        taken = set(best)
        left = [i for i in left if i not in taken]
    return found


def crowding(points: Sequence[Gains]) -> list[float]:
    """How far each point's neighbours are (Deb et al. 2002, section III-B); infinite at the ends.

    What has an infinite coordinate is no end, and is as far from the others as if it were not there.
    """
    distance = [0.0] * len(points)
    for axis in range(len(points[0]) if points else 0):
        order = sorted(
            (i for i in range(len(points)) if isfinite(points[i][axis])), key=lambda i: points[i][axis]
        )
        if not order:
            continue
        low, high = points[order[0]][axis], points[order[-1]][axis]
        distance[order[0]] = distance[order[-1]] = float("inf")
        if high > low:
            for before, i, after in zip(order, order[1:], order[2:], strict=False):
                distance[i] += (points[after][axis] - points[before][axis]) / (high - low)
    return distance


def best_first(points: Sequence[Gains]) -> list[int]:
    """All points, by rank and, within a rank, so that any number of the first ones are spread well.

    The most crowded of a rank goes last, then the most crowded of those that remain, and so on (Kukkonen & Deb 2006,
    "Improved pruning of non-dominated solutions based on crowding distance"); of equals the later one.
    """
    found: list[int] = []
    for front in fronts(points):
        left, last_first = list(front), []
        while left:
            apart = crowding([points[i] for i in left])
            last_first.append(left.pop(min(range(len(left)), key=lambda i: (apart[i], -i))))
        found += reversed(last_first)
    return found


def hypervolume(points: Sequence[Gains], reference: Gains) -> float:
    """The volume that the points dominate above a reference point, exactly.

    Exclusive volumes are summed, each the box of a point less what later points cover of it (While, Bradstreet &
    Barone 2012, "A fast way of calculating exact hypervolumes").
    """
    inside = [point for point in points if all(a > b for a, b in zip(point, reference, strict=True))]
    return _volume([inside[i] for i in non_dominated(inside)], reference)


def growth(points: Sequence[Gains], reference: Gains) -> list[float]:
    """The hypervolume of the first point, of the first two, and so on."""
    front: list[Gains] = []
    total, found = 0.0, []
    for point in points:
        if all(a > b for a, b in zip(point, reference, strict=True)) and not any(
            other == point or dominates(other, point) for other in front
        ):
            total += _exclusive(point, front, reference)
            front = [other for other in front if not dominates(point, other)] + [point]
        found.append(total)
    return found


def _volume(front: Sequence[Gains], reference: Gains) -> float:
    if len(reference) == 1:
        return max((point[0] - reference[0] for point in front), default=0.0)
    if len(reference) == 2:
        return _area(front, reference)
    order = sorted(set(front))
    return sum(_exclusive(point, order[i + 1 :], reference) for i, point in enumerate(order))


def _area(front: Sequence[Gains], reference: Gains) -> float:
    """The hypervolume of two objectives: strips from the best of the first downwards."""
    area, height = 0.0, reference[1]
    for x, y in sorted(front, reverse=True):
        if y > height:
            area += (x - reference[0]) * (y - height)
            height = y
    return area


def _exclusive(point: Gains, others: Sequence[Gains], reference: Gains) -> float:
    """What a point dominates and none of the others does."""
    box = 1.0
    for gain, low in zip(point, reference, strict=True):
        box *= gain - low
    limited = [tuple(map(min, other, point)) for other in others]
    return box - _volume([limited[i] for i in non_dominated(limited)], reference)

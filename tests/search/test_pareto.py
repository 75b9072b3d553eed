"""Dominance and volume, against counting: on whole coordinates a volume is a number of unit cells."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simslm.search.pareto import best_first, crowding, dominates, fronts, growth, hypervolume, non_dominated


def points_of(size: int, most: int = 5) -> st.SearchStrategy[list[tuple[float, ...]]]:
    return st.lists(st.tuples(*[st.integers(0, most).map(float)] * size), max_size=9)


POINTS = st.integers(1, 4).flatmap(points_of)


def cells(points: list[tuple[float, ...]], size: int) -> int:
    """Unit cells above the origin that some point dominates."""
    return sum(
        any(all(cell[axis] < point[axis] for axis in range(size)) for point in points)
        for cell in product(range(5), repeat=size)
    )


@given(POINTS)
def test_what_nobody_dominates(points):
    alone = [
        i
        for i, mine in enumerate(points)
        if not any(
            all(a >= b for a, b in zip(other, mine, strict=True))
            and any(a > b for a, b in zip(other, mine, strict=True))
            for other in points
        )
    ]
    assert non_dominated(points) == alone


@pytest.mark.slow
@given(POINTS)
def test_volume_is_the_cells_below(points):
    size = len(points[0]) if points else 1
    origin = (0.0,) * size
    assert hypervolume(points, origin) == cells(points, size)
    assert growth(points, origin) == [cells(points[: i + 1], size) for i in range(len(points))]


def test_a_point_below_the_reference_has_no_volume():
    assert hypervolume([(3.0, -1.0), (2.0, 2.0)], (0.0, 0.0)) == 4
    assert growth([(3.0, 0.0), (2.0, 2.0)], (0.0, 0.0)) == [0, 4]


def test_a_tie_is_kept_whole():
    assert non_dominated([(1.0, 2.0), (1.0, 2.0), (1.0, 1.0)]) == [0, 1]
    assert not dominates((1.0, 2.0), (1.0, 2.0))


@given(POINTS)
def test_every_rank_is_dominated_by_the_one_before(points):
    ranks = fronts(points)
    assert sorted(i for rank in ranks for i in rank) == list(range(len(points)))
    for before, rank in pairwise(ranks):
        for i in rank:
            assert any(dominates(points[j], points[i]) for j in before)
    order = best_first(points)
    place = {i: number for number, rank in enumerate(ranks) for i in rank}
    assert [place[i] for i in order] == sorted(place.values())


def test_the_ends_of_a_front_are_the_least_crowded():
    line = [(0.0, 4.0), (1.0, 3.0), (2.0, 2.0), (4.0, 0.0)]
    assert crowding(line) == [float("inf"), pytest.approx(1.0), pytest.approx(1.5), float("inf")]
    assert best_first(line) == [0, 3, 2, 1]

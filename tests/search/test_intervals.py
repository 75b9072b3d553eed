"""Intervals, and which points beat which: against scipy's, and laws that hold for any points."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from simslm.search.intervals import interval, merged, relations, standing

VALUES = st.lists(st.floats(-100, 100), min_size=2, max_size=8).filter(lambda values: np.std(values) > 1e-3)
POSITIVE = st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=8)
CONFIDENCE = 0.95

Gains = list[tuple[float, ...]]


def beats(one: Gains, other: Gains, margin: float = 0.0) -> bool:
    return bool(relations([one, other], CONFIDENCE, margin).beats[0, 1])


def alike(one: Gains, other: Gains, margin: float = 0.0) -> bool:
    return bool(relations([one, other], CONFIDENCE, margin).alike[0, 1])


@given(VALUES, st.sampled_from([0.8, 0.95, 0.99]))
def test_the_interval_of_what_may_be_negative_is_students(values, confidence):
    values[0] = -abs(values[0]) - 1
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(confidence)
    assert interval(values, confidence) == pytest.approx((expected.low, expected.high), rel=1e-9, abs=1e-9)


@given(POSITIVE)
def test_the_interval_of_positive_figures_is_positive_and_holds_the_mean(values):
    low, high = interval(values, CONFIDENCE)  # type: ignore[misc]
    mean = sum(values) / len(values)
    assert 0 < low <= mean * (1 + 1e-12)
    assert high >= mean * (1 - 1e-12)
    capped = interval([min(value, 1.0) for value in values], CONFIDENCE, 1.0)
    assert capped is not None
    assert capped[1] <= 1.0 + 1e-12


def test_it_is_students_where_the_spread_is_small():
    values = [100.0, 100.1, 99.9, 100.05]
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(CONFIDENCE)
    assert interval(values, CONFIDENCE) == pytest.approx((expected.low, expected.high), rel=1e-5)


@pytest.mark.parametrize("values", [[3.0], [1.0, inf]])
def test_where_there_is_no_interval(values):
    assert interval(values, CONFIDENCE) is None


def test_coverage_is_what_it_says():
    """Of the mean of five log-normal figures, in 2,000 repetitions."""
    draws = np.random.default_rng(1).lognormal(0, 0.3, (2000, 5))
    truth = np.exp(0.3**2 / 2)
    found = [interval(row.tolist(), CONFIDENCE) for row in draws]
    assert np.mean([low <= truth <= high for low, high in found]) == pytest.approx(0.95, abs=0.02)  # type: ignore[misc]


@given(VALUES, VALUES)
def test_it_beats_when_the_paired_test_says_so(first, second):
    count = min(len(first), len(second))
    differences = np.subtract(first[:count], second[:count])
    pairs = [[(value, 1.0) for value in values[:count]] for values in (first, second)]
    if np.std(differences) < 1e-6:
        return
    better = stats.ttest_1samp(differences, 0.0).confidence_interval(CONFIDENCE).low > 0
    assert beats(pairs[0], pairs[1]) == better


def test_common_noise_cancels():
    """Seeds move both points by far more than they differ, and the pairs still tell them apart."""
    noise = np.random.default_rng(0).normal(0, 10, 5)
    better = [(10 + each + wobble,) for each, wobble in zip(noise, [0.1, -0.1, 0, 0.1, -0.1], strict=True)]
    worse = [(9 + each,) for each in noise]
    assert beats(better, worse)
    assert not beats(worse, better)
    assert not beats([better[i] for i in (1, 2, 3, 4, 0)], worse)


def test_under_one_seed_and_without_a_margin_it_is_plain_dominance():
    assert beats([(2.0, 1.0)], [(1.0, 1.0)])
    assert not beats([(2.0, 1.0)], [(1.0, 1.1)])
    assert not beats([(1.0, 2.0)], [(1.0, 2.0)])
    assert alike([(1.0, 2.0)], [(1.0, 2.0)])


def test_a_hair_more_throughput_does_not_save_a_point_that_is_ninety_times_slower():
    slow, fast = [(1.000016, -90.0)], [(1.0, -1.0)]
    assert not beats(fast, slow)
    assert beats(fast, slow, 0.01)
    assert not beats(slow, fast, 0.01)
    # nor with seeds, where the hair is sure
    noise = (0.99, 1.0, 1.01)
    slow, fast = [(1.000016 * each, -90 * each) for each in noise], [(each, -each) for each in noise]
    assert not beats(fast, slow)
    assert beats(fast, slow, 0.01)


def test_more_than_the_margin_counts():
    assert not beats([(1.0, -1.0)], [(1.02, -90.0)], 0.01)
    assert alike([(1.0, -1.0)], [(1.009, -1.009)], 0.01)
    assert not alike([(1.0, -1.0)], [(1.009, -1.02)], 0.01)


def test_a_latency_that_is_infinite_loses_to_one_that_is_not():
    assert beats([(1.0, -5.0)], [(1.0, -inf)])
    assert alike([(1.0, -inf)], [(1.0, -inf)], 0.01)
    assert not beats([(1.0, -inf)], [(1.0, -inf)])
    assert not alike([(1.0, -5.0)], [(1.0, -inf)], 0.5)
    # infinite under one seed of three: the worst of the seeds decides
    assert beats([(-5.0,)] * 3, [(-5.0,), (-inf,), (-6.0,)])
    assert not beats([(-7.0,), (-5.0,), (-5.0,)], [(-5.0,), (-inf,), (-6.0,)])


def gains_of(objectives: int, seeds: int) -> st.SearchStrategy[list[Gains]]:
    """Points that lie close, on a grid and off it, with ties, circles and infinite figures among them."""
    gain = st.one_of(
        st.integers(96, 104).map(float),
        st.floats(90, 110),
        st.just(-inf) if objectives > 1 else st.nothing(),
    )
    point = st.lists(st.tuples(*[gain] * objectives), min_size=seeds, max_size=seeds)
    return st.lists(point, min_size=1, max_size=12)


POINTS = st.tuples(st.integers(1, 4), st.integers(1, 3)).flatmap(lambda size: gains_of(*size))
MARGIN = st.sampled_from([0.0, 0.01, 0.03])


@pytest.mark.slow
@given(POINTS, MARGIN)
def test_no_two_points_beat_each_other(points, margin):
    found = relations(points, CONFIDENCE, margin)
    assert not (found.beats & found.beats.T).any()
    assert not found.beats.diagonal().any()
    assert (found.alike == found.alike.T).all()


@pytest.mark.slow
@given(POINTS, MARGIN, st.randoms())
def test_what_stands_is_the_same_in_any_order_and_never_nothing(points, margin, random):
    order = list(range(len(points)))
    random.shuffle(order)
    found = standing(relations(points, CONFIDENCE, margin).beats, range(len(points)))
    shuffled = [points[i] for i in order]
    again = standing(relations(shuffled, CONFIDENCE, margin).beats, order)
    assert found
    assert sorted(order[i] for i in again) == found


@pytest.mark.slow
@given(POINTS, MARGIN)
def test_what_is_gone_is_beaten_by_a_point_that_stands(points, margin):
    compared = relations(points, CONFIDENCE, margin).beats
    found = standing(compared, range(len(points)))
    for i in range(len(points)):
        assert i in found or any(compared[j, i] for j in found)


@given(st.sets(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=30), st.permutations(range(8)))
def test_any_relation_has_points_that_stand_even_circles(pairs, rank):
    """Whatever beats whatever, as long as no two beat each other: something stands, and each other is beaten by it;
    what nothing beats stands; outside of circles no two that stand beat each other."""
    matrix = np.zeros((8, 8), dtype=bool)
    for one, other in pairs:
        if one != other and not matrix[other, one]:
            matrix[one, other] = True
    found = standing(matrix, rank)
    assert found
    assert set(np.flatnonzero(~matrix.any(axis=0)).tolist()) <= set(found)
    assert all(i in found or matrix[found, i].any() for i in range(8))
    reach = np.linalg.matrix_power(matrix.astype(int) + np.eye(8, dtype=int), 8) > 0
    if not (reach & reach.T & ~np.eye(8, dtype=bool)).any():
        assert not matrix[np.ix_(found, found)].any()


def test_of_three_that_beat_each_other_in_a_circle_not_all_are_gone():
    circle = [[(101.0, 101.0, 98.0)], [(99.0, 102.0, 99.0)], [(100.0, 100.0, 100.0)]]
    found = relations(circle, CONFIDENCE, 0.0102)
    assert found.beats.tolist() == [[False, True, False], [False, False, True], [True, False, False]]
    assert standing(found.beats, [0, 1, 2]) == [0, 2]
    assert standing(found.beats, [2, 0, 1]) == [0, 1]


@pytest.mark.slow
@given(POINTS, MARGIN)
def test_one_stands_for_those_that_are_the_same(points, margin):
    compared = relations(points, CONFIDENCE, margin).alike
    found = merged(compared, range(len(points)))
    assert not compared[np.ix_(found, found)].any()
    assert all(i in found or compared[found, i].any() for i in range(len(points)))


@given(st.lists(st.tuples(st.floats(1, 1000), st.floats(-1000, -1)), min_size=1, max_size=40))
def test_a_chain_of_small_trades_does_not_carry_the_frontier_away(points):
    """What is left out is within the margin of something that stands, in every objective."""
    found = relations([[point] for point in points], CONFIDENCE, 0.05)
    upright = standing(found.beats, range(len(points)))
    for point in points:
        assert any(
            all(
                mine >= 0.95 * gain if gain > 0 else mine >= gain / 0.95
                for mine, gain in zip(points[i], point, strict=True)
            )
            for i in upright
        )

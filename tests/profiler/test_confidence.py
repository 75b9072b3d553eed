"""Intervals of a median, settled shapes, and outliers."""

import numpy as np
import pytest

from profiler.measure.confidence import outliers, settled
from simslm.traces.medians import median_interval


@pytest.mark.parametrize(("count", "trimmed"), [(6, 1), (8, 1), (9, 2), (12, 3), (20, 6), (100, 40)])
def test_intervals_are_the_order_statistics_of_the_tables(count, trimmed):
    """Conover 1999, table A3: the 95 % interval for a median of ``count`` values."""
    values = list(range(1, count + 1))
    assert median_interval(values) == (trimmed, count + 1 - trimmed)


def test_five_values_tell_no_interval_of_95_percent():
    assert median_interval([1.0] * 5) is None
    assert not settled([1.0] * 5)


def test_intervals_hold_the_median_as_often_as_they_say():
    rng = np.random.default_rng(0)
    drawn = rng.lognormal(0.0, 1.0, (4000, 12))
    held = [low <= 1.0 <= high for low, high in map(median_interval, drawn.tolist())]
    assert 0.95 <= np.mean(held) <= 0.98


def test_a_median_is_settled_within_one_percent():
    assert settled([1.0, 1.001, 1.002, 0.999, 1.0, 1.0])
    assert not settled([1.0, 1.03, 1.002, 0.999, 1.0, 1.0])


def test_outliers_are_far_by_the_spread_and_by_five_percent():
    assert outliers([1.0, 1.01, 0.99, 1.0, 1.5]) == [False] * 4 + [True]
    assert outliers([1.0, 1.0, 1.0, 1.04]) == [False] * 4
    assert outliers([1.0, 2.0, 3.0, 4.0, 5.0]) == [False] * 5

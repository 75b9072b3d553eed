"""Intervals and the paired test, against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from simslm.comparison.student import interval
from simslm.search.intervals import surely_dominates

VALUES = st.lists(st.floats(-100, 100), min_size=2, max_size=8).filter(lambda values: np.std(values) > 1e-3)


@given(VALUES, st.sampled_from([0.8, 0.95, 0.99]))
def test_the_interval_is_students(values, confidence):
    found = interval(values, confidence)
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(confidence)
    assert found == pytest.approx((expected.low, expected.high), rel=1e-9, abs=1e-9)


def test_one_value_has_no_interval():
    assert interval([3.0], 0.95) is None


@given(VALUES, VALUES)
def test_it_dominates_when_the_paired_test_says_so(first, second):
    count = min(len(first), len(second))
    differences = np.subtract(first[:count], second[:count])
    pairs = [[(value, 1.0) for value in values[:count]] for values in (first, second)]
    if np.std(differences) < 1e-6:
        return
    better = stats.ttest_1samp(differences, 0.0).confidence_interval(0.95).low > 0
    assert surely_dominates(pairs[0], pairs[1], 0.95) == better


def test_common_noise_cancels():
    """Seeds move both points by far more than they differ, and the pairs still tell them apart."""
    noise = np.random.default_rng(0).normal(0, 10, 5)
    better = [(10 + each + wobble,) for each, wobble in zip(noise, [0.1, -0.1, 0, 0.1, -0.1], strict=True)]
    worse = [(9 + each,) for each in noise]
    assert surely_dominates(better, worse, 0.95)
    assert not surely_dominates(worse, better, 0.95)
    assert not surely_dominates([better[i] for i in (1, 2, 3, 4, 0)], worse, 0.95)


def test_the_same_figures_do_not_dominate():
    same = [(1.0, 2.0), (3.0, 4.0)]
    assert not surely_dominates(same, same, 0.95)
    assert surely_dominates([(1.0, 3.0), (3.0, 5.0)], same, 0.95)


def test_under_one_seed_it_is_plain_dominance():
    assert surely_dominates([(2.0, 1.0)], [(1.0, 1.0)], 0.95)
    assert not surely_dominates([(2.0, 1.0)], [(1.0, 1.1)], 0.95)

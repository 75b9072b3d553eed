"""Lengths brought to a mean: the mean is met, proportions are kept, no length falls below one token."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simslm.errors import UsageError
from simslm.runs.lengths import read_lengths, rescale

LENGTHS = st.lists(st.integers(1, 4000), min_size=1, max_size=200)


@given(LENGTHS, st.floats(1, 5000))
def test_the_sum_is_the_nearest_to_the_mean(lengths, mean):
    scaled = rescale(np.array(lengths), mean)
    assert scaled.sum() == round(mean * len(lengths))
    assert scaled.min() >= 1


@given(LENGTHS)
def test_the_own_mean_changes_nothing(lengths):
    assert rescale(np.array(lengths), float(np.mean(lengths))).tolist() == lengths


@given(st.lists(st.integers(100, 4000), min_size=1, max_size=200), st.floats(0.5, 2))
def test_each_is_within_a_token_of_its_share(lengths, factor):
    before = np.array(lengths)
    scaled = rescale(before, factor * before.mean())
    exact = before * (scaled.sum() / before.sum())
    assert np.abs(scaled - exact).max() <= 1 + 1e-6
    assert np.abs(np.cumsum(scaled) - np.cumsum(exact)).max() <= 0.5 + 1e-6


def test_what_would_vanish_stays_and_the_others_make_up_for_it():
    assert rescale(np.array([1, 1, 98]), 10).tolist() == [1, 1, 28]


def test_equal_lengths_of_a_fractional_mean_alternate():
    scaled = rescale(np.ones(10), 2.5)
    assert sorted(set(scaled.tolist())) == [2, 3]
    assert np.abs(np.cumsum(scaled) - 2.5 * np.arange(1, 11)).max() <= 0.5


def test_a_wrong_file_is_named_with_the_run_that_wants_it(tmp_path: Path):
    with pytest.raises(UsageError, match=r"nothing.csv: no such file; it is the lengths_file of runs.csv:7"):
        read_lengths(tmp_path / "nothing.csv", where="runs.csv:7")

"""Thinned distributions keep exact points, the ends and the share within a bound."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from simslm.metrics.quantiles import MAX_POINTS, kept_ranks
from simslm.report.distribution import cdf


@given(st.lists(st.sampled_from([0.0, 1.5, 2.0, 3.25, 1e6]) | st.floats(0, 1e6), max_size=40))
def test_a_small_sample_is_drawn_whole(values: list[float]):
    found = cdf("ttft_s", np.array([*values, np.nan]))
    assert found.values.tolist() == sorted(set(values))
    shares = [sum(value <= each for value in values) / len(values) for each in sorted(set(values))]
    assert np.allclose(found.shares, shares)


def test_every_kept_point_of_a_large_sample_is_on_the_exact_distribution():
    observed = np.random.default_rng(1).lognormal(0, 2, 200_000)
    found = cdf("e2e_s", observed)
    assert len(found.values) <= MAX_POINTS
    below = np.searchsorted(np.sort(observed), found.values, side="right") / len(observed)
    assert np.array_equal(below, found.shares)
    assert found.values[0] == observed.min()
    assert found.values[-1] == observed.max()


def test_the_tail_of_a_large_sample_stays_dense():
    share = (kept_ranks(1_000_000) + 1) / 1_000_000
    assert np.sum(share > 0.999) >= 20
    assert np.max(np.diff(share)) < 0.01


def test_the_share_within_a_bound_counts_every_observation():
    found = cdf("ttft_s", np.arange(10_000.0), limit_s=2499.0)
    assert found.met == 0.25
    assert cdf("ttft_s", np.array([]), limit_s=1.0).met is None

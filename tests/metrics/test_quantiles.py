"""Weighted percentiles equal plain ones on the values written out."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from simslm.metrics.quantiles import LEVELS, distribution, spread


@given(
    st.lists(
        st.tuples(st.floats(0, 1e3, allow_subnormal=False), st.integers(0, 5)), min_size=1, max_size=60
    ).filter(lambda pairs: sum(weight for _, weight in pairs))
)
def test_weights_are_repetition(pairs):
    values = np.array([value for value, _ in pairs])
    weights = np.array([weight for _, weight in pairs])
    written_out = np.repeat(values, weights)
    result = spread(values, weights.astype(float))
    for name, level in LEVELS.items():
        assert np.isclose(result[name], np.quantile(written_out, level), rtol=1e-12, atol=1e-12)
    assert np.isclose(result["mean"], written_out.mean(), rtol=1e-12)
    assert result["max"] == written_out.max()


def test_nothing_has_no_spread():
    assert set(spread(np.array([])).values()) == {None}
    assert set(spread(np.array([1.0]), np.array([0.0])).values()) == {None}


@given(
    st.lists(st.tuples(st.sampled_from([0.5, 1.0, 2.5, 7.0, 9.0]), st.integers(0, 400)), max_size=20),
    st.integers(10, 60),
)
def test_a_thinned_distribution_has_exact_points(pairs, most):
    values = np.array([value for value, _ in pairs])
    weights = np.array([float(weight) for _, weight in pairs])
    written_out = np.sort(np.repeat(values, weights.astype(int)))
    kept, shares = distribution(values, weights).thinned(most)
    assert len(kept) <= most
    assert set(kept) <= set(written_out)
    assert np.allclose(shares * len(written_out), np.searchsorted(written_out, kept, side="right"))
    if len(written_out):
        assert (kept[0], kept[-1], shares[-1]) == (written_out[0], written_out[-1], 1.0)

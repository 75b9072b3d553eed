"""Margins hold the truth as often as they say, for series whose mean and memory are known, or there are none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.signal import lfilter

from simslm.comparison import series
from simslm.comparison.series import Margins, margins, memory, of_sections

RUNS = 200


def autoregressive(seed: int, count: int, strength: float) -> np.ndarray:
    """A stationary series of mean 5 and variance 1; its memory is (1 + strength) / (1 − strength)."""
    noise = np.random.default_rng(seed).normal(size=count)
    start = [noise[0] * strength]
    rest = lfilter([np.sqrt(1 - strength**2)], [1, -strength], noise[1:], zi=start)[0]
    return 5 + np.concatenate([noise[:1], rest])


@pytest.mark.parametrize("strength", [0.0, 0.5, 0.9])
def test_the_memory_of_a_known_series_is_found(strength):
    found = [memory(autoregressive(seed, 2000, strength)) for seed in range(100)]
    assert np.mean(found) == pytest.approx((1 + strength) / (1 - strength), rel=0.2)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "strength"), [(1000, 0.0), (2000, 0.5), (4000, 0.9), (20_000, 0.97)])
def test_margins_hold_the_mean_as_often_as_they_say(count, strength):
    """At least 95 % of 200 series, with z = 3; a t test over single values holds a third where strength is 0.9."""
    found = [
        (values.mean(), margins(values))
        for seed in range(RUNS)
        for values in [autoregressive(seed, count, strength)]
    ]
    given = [(mean, each) for mean, each in found if each is not None]
    held = sum(-each.low <= 5 - mean <= each.high for mean, each in given)
    assert len(given) > 0.9 * RUNS
    assert stats.binomtest(held, len(given), 0.95, alternative="less").pvalue > stats.norm.sf(3)
    assert held / len(given) < 0.999


def test_margins_of_a_skewed_mean_reach_further_on_the_side_of_the_skew():
    """Sections with rare bursts: of 200 means of 20 exponential draws cubed, t alone misses far more from below."""
    missed = np.zeros(2, dtype=int)
    for seed in range(RUNS):
        means = np.random.default_rng(seed).gamma(0.5, 2.0, 20)
        each = of_sections(means)
        assert each.high >= each.low > 0
        missed += [means.mean() - each.low > 1.0, means.mean() + each.high < 1.0]
    assert stats.binomtest(int(missed.sum()), RUNS, 0.05, alternative="greater").pvalue > stats.norm.sf(3)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(np.linspace(0, 1, 5000), id="a trend"),
        pytest.param(autoregressive(1, 500, 0.97), id="a long memory"),
        pytest.param(np.random.default_rng(1).normal(size=90), id="few"),
        pytest.param(np.cumsum(np.random.default_rng(1).normal(size=5000)), id="a random walk"),
    ],
)
def test_a_series_too_short_for_its_memory_has_no_margins(values):
    assert margins(values) is None


def test_what_is_known_to_last_longer_needs_longer_sections():
    values = np.random.default_rng(2).normal(size=2000)
    assert series.sections(values) == series.MOST
    assert series.sections(values, least_memory=30) == 13
    assert series.sections(values, least_memory=50) is None


def test_a_constant_is_certain():
    assert margins(np.full(1000, 0.1)) == Margins(0.0, 0.0)
    assert memory(np.full(1000, 0.1)) == 1.0

"""Gaps between tokens: exact up to a number, merged beyond it without moving sum, largest or percentiles by much."""

import numpy as np
import pytest

import simslm.api
from simslm.metrics import ledger
from simslm.metrics.quantiles import distribution, merged


@pytest.mark.parametrize("seed", range(3))
def test_merged_values_have_the_same_sum_count_and_largest(seed):
    rng = np.random.default_rng(seed)
    values = np.concatenate((rng.lognormal(-4, 1, 200_000), np.zeros(50)))
    weights = rng.integers(0, 5, len(values)).astype(float)
    few, counts = merged(values, weights)
    assert len(few) < len(values) / 3
    assert counts.sum() == weights.sum()
    assert np.dot(few, counts) == pytest.approx(np.dot(values, weights), rel=1e-12)
    exact, near = distribution(values, weights).spread(), distribution(few, counts).spread()
    assert near["max"] == exact["max"]
    for name, value in exact.items():
        assert near[name] == pytest.approx(value, rel=2.0**-13)


@pytest.mark.parametrize("values", [[], [0.0], [3.0, 3.0], [0.0, 0.0]])
def test_hardly_any_values_stay_as_they_are(values):
    few, counts = merged(np.array(values), np.ones(len(values)))
    assert few.tolist() == sorted(set(values))
    assert counts.sum() == len(values)


def test_a_run_with_more_gaps_than_are_kept_has_the_same_figures(small, monkeypatch):
    small["deployment"] = {"replicas_per_device": 2, "sharing": "mps"}
    exact = simslm.api.simulate(simslm.api.load_scenario(small)).summary
    monkeypatch.setattr(ledger, "MOST_GAPS", 100)
    near = simslm.api.simulate(simslm.api.load_scenario(small)).summary
    for name, value in exact["itl_s"].items():
        assert near["itl_s"][name] == pytest.approx(value, rel=2.0**-12)
    assert near["ttft_s"] == exact["ttft_s"]

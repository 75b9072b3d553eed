"""Arrival processes: rate, spread, order, and the same pattern for longer runs."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from simslm.scenario.arrivals import Arrivals
from simslm.workload.arrivals import arrival_times
from simslm.workload.streams import stream

PROCESSES = [
    {"process": "deterministic", "rate_rps": 8},
    {"process": "poisson", "rate_rps": 8},
    {"process": "gamma", "rate_rps": 8, "cv": 3},
    {"process": "gamma", "rate_rps": 8, "cv": 0.3},
    {"process": "mmpp", "rates_rps": [2, 30, 0], "mean_dwell_s": [20, 5, 10]},
    {"process": "diurnal", "rate_rps": 8, "amplitude": 1, "period_s": 120},
]
RATES = [8, 8, 8, 8, (2 * 20 + 30 * 5) / 35, 8]


def times(process, num_requests=None, duration_s=None, seed=0):
    arrivals = TypeAdapter(Arrivals).validate_python(process)
    return arrival_times(arrivals, num_requests, duration_s, stream(seed, "arrivals"))


@pytest.mark.slow
@pytest.mark.parametrize(("process", "rate"), list(zip(PROCESSES, RATES, strict=True)))
def test_the_mean_rate_is_the_one_asked_for(process, rate):
    counts = [len(times(process, duration_s=7_200, seed=seed)) for seed in range(8)]
    assert np.mean(counts) == pytest.approx(rate * 7_200, rel=0.03)


@pytest.mark.parametrize(
    ("process", "cv"), [(PROCESSES[0], 0), (PROCESSES[1], 1), (PROCESSES[2], 3), (PROCESSES[3], 0.3)]
)
def test_gaps_have_the_coefficient_of_variation_asked_for(process, cv):
    gaps = np.diff(times(process, num_requests=200_000))
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.03, abs=1e-9)


def test_poisson_counts_have_the_variance_of_their_mean():
    counts = np.bincount(times(PROCESSES[1], duration_s=50_000).astype(int), minlength=50_000)
    assert counts.var() == pytest.approx(counts.mean(), rel=0.03)


def test_mmpp_is_burstier_than_poisson_and_dwells_as_told():
    found = times(PROCESSES[4], duration_s=20_000)
    counts = np.bincount(found.astype(int), minlength=20_000)
    assert counts.var() / counts.mean() > 5
    lone = times({"process": "mmpp", "rates_rps": [50, 0], "mean_dwell_s": [10, 30]}, duration_s=40_000)
    silences = np.diff(lone)
    silences = silences[silences > 1]
    assert silences.mean() == pytest.approx(30, rel=0.15)


@pytest.mark.slow
def test_diurnal_follows_its_sine():
    found = times(PROCESSES[5], duration_s=120 * 400)
    share = np.histogram(found % 120, bins=12, range=(0, 120))[0] / len(found)
    edges = np.linspace(0, 2 * math.pi, 13)
    expected = np.diff(edges / (2 * math.pi) - (np.cos(edges) - 1) / (2 * math.pi))
    assert share == pytest.approx(expected, abs=0.003)


def test_a_flat_diurnal_is_poisson():
    flat = times({"process": "diurnal", "rate_rps": 8, "amplitude": 0}, num_requests=1000)
    assert flat == pytest.approx(times(PROCESSES[1], num_requests=1000), rel=1e-12)


def test_deterministic_starts_at_0_and_keeps_its_step():
    assert times(PROCESSES[0], num_requests=4).tolist() == [0, 0.125, 0.25, 0.375]
    assert times(PROCESSES[0], duration_s=0.25).tolist() == [0, 0.125]


def test_all_at_once_and_closed_loops_say_nothing_of_time():
    assert times({"process": "all-at-once"}, num_requests=3).tolist() == [0, 0, 0]
    assert times({"process": "closed-loop", "concurrency": 2}, num_requests=3).tolist() == [0, 0, 0]


def test_another_rate_stretches_the_same_pattern():
    slow, fast = (times({"process": "poisson", "rate_rps": rate}, num_requests=500) for rate in (2, 8))
    assert np.array_equal(slow, 4 * fast)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(PROCESSES),
    st.integers(1, 3000),
    st.floats(1e-3, 200, allow_nan=False),
    st.integers(0, 2**40),
)
def test_shorter_runs_are_the_beginning_of_longer_ones(process, count, duration_s, seed):
    counted = times(process, num_requests=count, seed=seed)
    timed = times(process, duration_s=duration_s, seed=seed)
    both = times(process, num_requests=count, duration_s=duration_s, seed=seed)
    assert len(counted) == count
    assert np.all(np.diff(counted) >= 0)
    assert np.all(timed < duration_s)
    assert len(both) == min(count, len(timed))
    shared = min(count, len(timed))
    assert np.array_equal(counted[:shared], timed[:shared])
    assert np.array_equal(both, timed[:shared])

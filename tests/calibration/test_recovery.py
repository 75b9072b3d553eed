"""Runs of every kind of arrivals, simulated with known terms: a fit predicts like those, also what it never saw."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from calibration.conftest import CHANCE, DEVICE, DTYPE, MODEL, answers, unmeasured

from simslm.calibration.calibrate import calibrate
from simslm.calibration.schedule import SLOWER, schedule, slowed

SHOWN = ("output_tokens_per_s", "tpot_mean_s")
ELSEWHERE = (
    {"arrivals": "closed-loop:16"},
    {"arrivals": "poisson:20"},
    {"arrivals": "poisson:2", "num_requests": 60},
    {"arrivals": "closed-loop:40", "batching": "prefill-first", "max_num_batched_tokens": 2048},
)
"""Runs that no fit of this file has seen."""

MIXTURES = {
    "closed loops": ("closed-loop:1", "closed-loop:4", "closed-loop:16", "closed-loop:64"),
    "low rates": ("poisson:1", "poisson:3", "poisson:8"),
    "high rates": ("poisson:10", "poisson:30", "poisson:60"),
    "a mixture": ("all-at-once", "closed-loop:8", "poisson:5", "gamma:20:2"),
}


@pytest.fixture(scope="module", params=MIXTURES)
def fitted(request, served):
    return calibrate(served(MIXTURES[request.param]), MODEL, DEVICE, DTYPE)


@pytest.mark.slow
def test_the_runs_themselves_are_met(fitted):
    for errors in fitted.errors.values():
        assert abs(errors["tpot_mean_s"]) < 0.02
        assert abs(errors["ttft_mean_s"]) < 0.06
    assert fitted.quality.good()


@pytest.mark.slow
def test_other_arrivals_are_predicted(fitted, truth_cost):
    for changed in ELSEWHERE:
        run = unmeasured(**changed)
        true, found = (answers(run, cost, 77) for cost in (truth_cost, fitted.cost))
        for name in SHOWN:
            assert found[name] == pytest.approx(true[name], rel=0.03), (changed, name)
        if "batching" not in changed:  # prompts beside others, as many as were fitted to
            assert found["ttft_mean_s"] == pytest.approx(true["ttft_mean_s"], rel=0.1), changed


@pytest.mark.slow
def test_a_low_rate_tells_a_slow_engine_from_a_fast_one(truth_cost):
    """Its throughput is that of its arrivals: what the engine is like, only the latencies say."""
    run = unmeasured(arrivals="poisson:2", num_requests=60)
    slow = slowed(truth_cost, 1.3)
    measured = answers(run, slow, CHANCE)
    assert measured["output_tokens_per_s"] == pytest.approx(
        answers(run, truth_cost, CHANCE)["output_tokens_per_s"], rel=0.01
    )
    told = {name: measured[name] for name in ("output_tokens_per_s", "tpot_mean_s", "ttft_mean_s")}
    found = calibrate([replace(run, measured=told)], MODEL, DEVICE, DTYPE)
    for changed in (
        {"arrivals": "poisson:2", "num_requests": 60},
        {"arrivals": "closed-loop:1", "num_requests": 20},
    ):
        other = unmeasured(**changed)
        true, ours = (answers(other, cost, 5) for cost in (slow, found.cost))
        assert ours["tpot_mean_s"] == pytest.approx(true["tpot_mean_s"], rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    "told",
    [
        ("tpot_p50_s", "ttft_p50_s"),
        ("tpot_mean_s",),
        ("steady_output_tokens_per_s",),
        ("requests_per_s",),
        ("total_tokens_per_s", "itl_mean_s"),
        ("duration_s",),
    ],
)
def test_whatever_figure_there_is_is_used(served, truth_cost, told):
    runs = served(("closed-loop:2", "closed-loop:12", "closed-loop:48"), told=told)
    found = calibrate(runs, MODEL, DEVICE, DTYPE)
    run = unmeasured(arrivals="closed-loop:24")
    true, ours = (answers(run, cost, 3) for cost in (truth_cost, found.cost))
    assert ours["output_tokens_per_s"] == pytest.approx(true["output_tokens_per_s"], rel=0.03)


@pytest.mark.slow
def test_a_median_gap_tells_of_decoding_only(served, truth_cost):
    """Half of the gaps hold no prompt: what prompts take stays a guess, which the throughput has a part of."""
    runs = served(("closed-loop:2", "closed-loop:12", "closed-loop:48"), told=("itl_p50_s",))
    found = calibrate(runs, MODEL, DEVICE, DTYPE)
    run = unmeasured(arrivals="closed-loop:24")
    true, ours = (answers(run, cost, 3) for cost in (truth_cost, found.cost))
    assert ours["itl_p50_s"] == pytest.approx(true["itl_p50_s"], rel=0.02)
    assert ours["output_tokens_per_s"] == pytest.approx(true["output_tokens_per_s"], rel=0.1)


@pytest.mark.slow
def test_noise_of_a_day_is_met_by_the_interval(served, truth_cost):
    """Each run 1 % faster or slower: predictions are within 3 %, and within three standard errors."""
    runs = served(("closed-loop:2", "closed-loop:16", "poisson:4", "closed-loop:64"), noise=0.01)
    found = calibrate(runs, MODEL, DEVICE, DTYPE)
    each = schedule(unmeasured(arrivals="closed-loop:32"), found.cost, DTYPE)
    true, ours = (cost.evaluate(each.shapes).latency_s for cost in (truth_cost, found.cost))
    halves = [
        (high.evaluate(each.shapes).latency_s - low.evaluate(each.shapes).latency_s) / 2
        for low, high in found.cost.variants()
    ]
    spread = np.sqrt(sum(half**2 for half in halves))
    assert (np.abs(ours - true) < 3 * spread).all()
    weight = each.weights["duration_s"]
    assert weight @ ours == pytest.approx(weight @ true, rel=0.03)


@pytest.mark.parametrize("arrivals", ["closed-loop:8", "all-at-once"])
def test_without_a_clock_of_their_own_all_times_follow_the_iterations(truth_cost, arrivals):
    run = unmeasured(arrivals=arrivals)
    each = schedule(run, truth_cost, DTYPE)
    assert set(each.follows.values()) == {1.0}
    slower = answers(run, slowed(truth_cost, SLOWER))
    found = each.metrics(SLOWER * truth_cost.evaluate(each.shapes).latency_s, truth_cost.terms["startup"])
    for name in ("tpot_mean_s", "ttft_mean_s", "itl_p50_s", "output_tokens_per_s"):
        assert found[name] == pytest.approx(slower[name], rel=0.01), name


@pytest.mark.slow
def test_arrivals_at_a_rate_keep_their_times(truth_cost):
    """At a low rate the throughput stays as it is; close to saturation waiting grows faster than the iterations."""
    low = schedule(unmeasured(arrivals="poisson:2", num_requests=100), truth_cost, DTYPE)
    assert low.follows["duration_s"] < 0.05
    assert low.follows["tpot_mean_s"] == pytest.approx(1, abs=0.3)
    assert low.chance["duration_s"] == pytest.approx(0.1, abs=0.08)
    high = schedule(unmeasured(arrivals="poisson:12", max_num_seqs=8), truth_cost, DTYPE)
    assert high.follows["ttft_mean_s"] > 2

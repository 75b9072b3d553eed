"""A measured run becomes the scenario that was run, and its simulation answers under the run's columns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simslm.api import prepare, simulate
from simslm.errors import ScenarioError, UsageError
from simslm.runs.replay import arrivals, scenario_of, simulated
from simslm.runs.table import MEASURED, MeasuredRun, read_runs

ROOFLINE = {"roofline": {}}


@pytest.fixture
def run(table) -> MeasuredRun:
    return read_runs(table({}))[0]


@pytest.fixture
def lengths(table, tmp_path):
    """A run whose requests differ, three of them recorded."""
    (tmp_path / "lengths.csv").write_text("prompt_tokens,output_tokens\n100,30\n300,10\n200,50\n")
    different = {"workload": "chat", "lengths_file": "lengths.csv", "num_requests": "7"}
    return read_runs(table(different | {"prompt_tokens": "181.5", "output_tokens": "27.25"}))[0]


def test_everything_is_as_it_was_run(run):
    scenario = scenario_of(run, ROOFLINE, dtype="fp16", seed=3)
    engine = scenario.deployment.engine
    assert (scenario.model, scenario.device, scenario.dtype, scenario.seed) == ("opt-1.3b", "h200", "fp16", 3)
    assert engine.batching.policy == "chunked-prefill"
    assert (engine.max_num_seqs, engine.max_num_batched_tokens, engine.num_gpu_blocks) == (8, 512, 1000)
    assert (scenario.deployment.replicas_per_device, scenario.deployment.sharing) == (1, "none")
    assert scenario.workload.max_tokens == 20
    prepared = prepare(scenario)
    assert prepared.requests.prompt_tokens.tolist() == [100] * 40
    assert prepared.requests.output_tokens.tolist() == [20] * 40
    assert prepared.requests.max_tokens.tolist() == [20] * 40
    assert not prepared.requests.arrival_s.any()
    assert prepared.groups[0].memory.num_gpu_blocks == 1000


def test_replicas_share_one_device(run):
    shared = replace(run, replicas=2, sharing="mps", num_gpu_blocks=700)
    prepared = prepare(scenario_of(shared, ROOFLINE))
    assert prepared.groups[0].devices == (0, 0)
    assert prepared.groups[0].memory.num_gpu_blocks == 700
    assert prepared.scenario.deployment.sharing == "mps"


@pytest.mark.parametrize(
    ("batching", "max_num_seqs", "tokens"),
    [
        ("prefill-first", 8, 2048),
        ("chunked-prefill", 8, 512),
        ("chunked-prefill", 512, 512),
    ],
)
def test_without_a_token_budget_it_is_the_engines_default(run, batching, max_num_seqs, tokens):
    unsaid = replace(run, batching=batching, max_num_seqs=max_num_seqs, max_num_batched_tokens=None)
    assert scenario_of(unsaid, ROOFLINE).deployment.engine.max_num_batched_tokens == tokens


@pytest.mark.parametrize("engine", ["", "vllm-0.6", "vllm-0.6.3-v0", "vLLM-v0.6.4.post1"])
def test_the_default_is_that_of_a_version(run, engine):
    unsaid = replace(run, engine=engine, max_num_batched_tokens=None)
    assert scenario_of(unsaid, ROOFLINE).deployment.engine.max_num_batched_tokens == 512


@pytest.mark.parametrize(
    "engine", ["vllm", "vllm-0.6.5", "vllm-0.6.31", "vllm-0.60", "vllm-0.10.1", "sglang-0.6.3"]
)
def test_another_engines_default_is_not_guessed(run, engine):
    unsaid = replace(run, engine=engine, max_num_batched_tokens=None)
    with pytest.raises(UsageError, match=f"max_num_batched_tokens: is empty, and the default of '{engine}'"):
        scenario_of(unsaid, ROOFLINE)
    assert scenario_of(replace(run, engine=engine), ROOFLINE).deployment.engine.max_num_batched_tokens == 512


def test_a_longer_model_has_a_larger_default(run):
    long = replace(run, model="llama-2-7b", batching="prefill-first", max_num_batched_tokens=None)
    assert scenario_of(long, ROOFLINE).deployment.engine.max_num_batched_tokens == 4096


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("all-at-once", {"process": "all-at-once"}),
        ("poisson:2.5", {"process": "poisson", "rate_rps": 2.5}),
        ("gamma:8:0.5", {"process": "gamma", "rate_rps": 8.0, "cv": 0.5}),
        ("gamma:.5:1e-1", {"process": "gamma", "rate_rps": 0.5, "cv": 0.1}),
        ("closed-loop:16", {"process": "closed-loop", "concurrency": 16}),
    ],
)
def test_arrivals(run, text, meant):
    assert arrivals(text) == meant
    found = scenario_of(replace(run, arrivals=text), ROOFLINE).workload.arrivals
    assert found is not None
    assert meant.items() <= found.model_dump().items()


def test_recorded_lengths_keep_their_order_and_pairs_and_meet_the_means(lengths):
    requests = prepare(scenario_of(lengths, ROOFLINE)).requests
    assert requests.prompt_tokens.sum() == round(181.5 * 7)
    assert requests.output_tokens.sum() == round(27.25 * 7)
    for found, recorded in (
        (requests.prompt_tokens, [100, 300, 200]),
        (requests.output_tokens, [30, 10, 50]),
    ):
        cycled = np.resize(recorded, 7)
        assert np.abs(found - cycled * found.sum() / cycled.sum()).max() <= 1
    assert requests.max_tokens.tolist() == [int(requests.output_tokens.max())] * 7


def test_recorded_lengths_need_no_burst(lengths):
    looped = prepare(scenario_of(replace(lengths, arrivals="closed-loop:2"), ROOFLINE)).requests
    assert looped.closed_loop is not None
    assert looped.prompt_tokens.sum() == round(181.5 * 7)


def test_a_fractional_mean_of_equal_requests(run):
    requests = prepare(scenario_of(replace(run, prompt_tokens=99.3), ROOFLINE)).requests
    assert sorted(set(requests.prompt_tokens.tolist())) == [99, 100]
    assert requests.prompt_tokens.mean() == 99.3


def test_requests_that_differ_need_their_lengths(run):
    with pytest.raises(
        UsageError, match="lengths_file: is empty, but the requests of a 'chat' workload differ"
    ):
        scenario_of(replace(run, workload="chat"), ROOFLINE)


def test_what_the_simulator_cannot_run_is_an_error(run):
    with pytest.raises(ScenarioError, match="max_num_batched_tokens"):
        scenario_of(replace(run, max_num_seqs=2000), ROOFLINE)


def test_the_answer_has_the_runs_columns(run):
    result = simulate(scenario_of(run, ROOFLINE))
    found, summary = simulated(result, run), result.summary
    assert set(run.measured) <= set(found) <= set(MEASURED)
    assert found["output_tokens_per_s"] == summary["throughput"]["output_tokens_per_s"]
    assert found["output_tokens_per_s"] * found["duration_s"] == pytest.approx(40 * 20)
    assert found["total_tokens_per_s"] * found["duration_s"] == pytest.approx(40 * 120)
    assert found["ttft_mean_s"] == pytest.approx(result.requests["ttft_s"].mean())
    assert found["tpot_p99_s"] == pytest.approx(np.percentile(result.requests["tpot_s"], 99))
    assert found["itl_p50_s"] == summary["itl_s"]["p50"]
    assert found["kv_peak"] == result.iterations["kv_blocks_used"].max() / 1000
    assert found["power_mean_w"] == pytest.approx(found["energy_j"] / found["duration_s"])


def test_without_power_in_the_cost_there_is_none_in_the_answer(run):
    cost = {"trace": "traces/cpu/opt-125m-bf16"}
    silent = replace(run, model="opt-125m", device="cpu", num_requests=5)
    found = simulated(simulate(scenario_of(silent, cost)), silent)
    assert "output_tokens_per_s" in found
    assert not {"power_mean_w", "power_active_p50_w", "energy_j"} & set(found)
    assert found["sm_busy_pct"] > 20


@pytest.mark.slow
def test_the_measured_study_can_be_run(truth):
    """Every row of it: the requests have its means, and their number is what was sent."""
    for run in read_runs(truth / "h100-vllm" / "runs.csv"):
        requests = prepare(scenario_of(run, ROOFLINE, dtype="fp16")).requests
        assert len(requests) == 2000
        assert requests.prompt_tokens.mean() == pytest.approx(run.prompt_tokens, abs=5e-4)
        assert requests.output_tokens.mean() == pytest.approx(run.output_tokens, abs=5e-4)
        sent = run.measured["output_tokens_per_s"] * run.measured["duration_s"] / 2000
        assert requests.output_tokens.mean() == pytest.approx(sent, rel=2e-3)


def test_a_burst_takes_its_time_to_the_first_iteration(run):
    """Everything that counts from the arrival is later by it, and the run longer; requests that trickle in are not."""
    result = simulate(scenario_of(run, ROOFLINE))
    plain, late = simulated(result, run), simulated(result, run, 0.5)
    assert late["duration_s"] == plain["duration_s"] + 0.5
    assert late["output_tokens_per_s"] * late["duration_s"] == pytest.approx(
        plain["output_tokens_per_s"] * plain["duration_s"]
    )
    for name in ("ttft_mean_s", "e2e_p99_s", "queue_max_s"):
        assert late[name] == plain[name] + 0.5
    assert late["itl_mean_s"] == plain["itl_mean_s"]
    trickling = replace(run, arrivals="poisson:5")
    assert simulated(result, trickling, 0.5) == simulated(result, trickling)


def test_tokens_of_static_batches_are_streamed_where_their_times_were_measured(run):
    static = replace(run, batching="static", prompt_tokens=100.0, max_num_batched_tokens=8192)
    timed, untimed = (
        scenario_of(replace(static, measured=figures), {"roofline": {}}).deployment.engine.batching.returns
        for figures in ({"itl_mean_s": 0.01}, {"output_tokens_per_s": 100.0})
    )
    assert (timed, untimed) == ("request", "batch")

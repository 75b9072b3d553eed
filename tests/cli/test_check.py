"""``simslm check``: what a scenario comes to, before it is run."""

from __future__ import annotations

import json

import pytest


def facts(simslm, scenario, *settings: str) -> dict:
    options = [word for setting in settings for word in ("--set", setting)]
    ended = simslm("check", scenario, "--json", *options)
    assert ended.code == 0, ended.err
    assert ended.err == ""
    return json.loads(ended.out)


def test_it_explains(simslm, scenario):
    text = simslm("check", scenario).out
    for word in ("is a valid scenario", "weights", "KV cache", "largest batch", "capacity", "expected load"):
        assert word in text
    found = facts(simslm, scenario)
    (group,) = found["groups"]
    assert found["requests"] == 30
    assert found["never_fit"] == 0
    assert found["offered_rps"] == pytest.approx(2, rel=0.5)
    assert found["expected_load"] == pytest.approx(found["offered_rps"] / found["estimated_capacity_rps"])
    assert group["largest_batch"] == 8
    assert group["cost_source"] == "roofline"
    assert group["kv_tokens"] == 16 * group["num_gpu_blocks"]


def test_it_follows_overrides(simslm, scenario):
    slow = facts(simslm, scenario, "workload.arrivals.rate_rps=1")
    fast = facts(simslm, scenario, "workload.arrivals.rate_rps=100")
    assert fast["expected_load"] == pytest.approx(100 * slow["expected_load"], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("arrivals", ["{process: all-at-once}", "{process: closed-loop, concurrency: 3}"])
def test_the_estimated_capacity_is_near_that_of_a_saturated_run(simslm, scenario, arrivals):
    """Of clients that wait for their answers, no more decode together than there are clients."""
    settings = (f"workload.arrivals={arrivals}", "workload.num_requests=400",
                "workload.output_tokens={dist: fixed, value: 40}")  # fmt: skip
    estimated = facts(simslm, scenario, *settings)["estimated_capacity_rps"]
    options = [word for setting in settings for word in ("--set", setting)]
    summary = json.loads(simslm("simulate", scenario, "--json", *options).out)
    assert estimated == pytest.approx(summary["throughput"]["requests_per_s"], rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("batching", ["chunked-prefill", "prefill-first", "static", "orca"])
@pytest.mark.parametrize(
    "setting",
    [
        "workload.prompt_tokens={dist: uniform, low: 1000, high: 2100}",
        "deployment.engine.num_gpu_blocks=70",
        "deployment.engine.max_num_batched_tokens=1500",
        "max_model_len=1600",
    ],
)
def test_what_never_fits_is_what_a_run_rejects(simslm, scenario, batching, setting):
    settings = (
        "workload.prompt_tokens={dist: uniform, low: 900, high: 1900}",
        "workload.max_tokens=100",
        f"deployment.engine.batching.policy={batching}",
        setting,
    )
    found = facts(simslm, scenario, *settings)
    options = [word for text in settings for word in ("--set", text)]
    counts = json.loads(simslm("simulate", scenario, "--json", *options).out)["requests"]
    assert found["never_fit"] == counts["rejected"]
    if found["never_fit"]:
        text = simslm("check", scenario, *options).out
        assert f"{found['never_fit']} requests are too long and will be rejected" in text


def test_groups_are_told_apart(simslm, scenario):
    groups = "[{name: one, share: 3, engine: {max_num_seqs: 2}}, {name: two, model: smollm2-135m}]"
    settings = (f"deployment={{num_devices: 1, sharing: time-slice, groups: {groups}}}",)
    one, two = facts(simslm, scenario, *settings)["groups"]
    assert (one["name"], one["model"], one["largest_batch"]) == ("one", "opt-125m", 2)
    assert (two["name"], two["model"]) == ("two", "smollm2-135m")
    assert one["requests"] > two["requests"]
    assert one["requests"] + two["requests"] == 30
    text = simslm("check", scenario, "--set", settings[0]).out
    assert "at most" in text
    assert f"one: {one['requests']} requests" in text


def test_replicas_add_up(simslm, scenario):
    one, three = facts(simslm, scenario), facts(simslm, scenario, "deployment.num_devices=3")
    assert three["estimated_capacity_rps"] == pytest.approx(3 * one["estimated_capacity_rps"])
    assert "3 replicas with" in simslm("check", scenario, "--set", "deployment.num_devices=3").out

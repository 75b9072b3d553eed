"""Which mechanisms of a replica go together, and what is said of those that do not."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from support.traces import CLOCKS, gpu_trace
from systems.claim import SCENARIOS

from simslm.api import load_scenario, simulate
from simslm.errors import ScenarioError
from simslm.mechanisms import MECHANISMS, conflicts

ENGINE = "deployment.engine"
SPECULATION = {"model": "smollm2-135m", "num_speculative_tokens": 3, "acceptance_rate": 0.7}
SWITCHES = {
    "preemption": "swap",
    "swapping": {"overlap": True, "reuse": True},
    "scheduling_policy": "priority",
}
OF_AN_ENGINE: dict[str, dict[str, Any]] = {
    "speculation": {"speculative_config": SPECULATION},
    "urgency": {"preemption_policy": "lowest-priority", "scheduling_policy": "priority"},
    "swap": SWITCHES,
    "turns": {"preemption": "swap", "swapping": {"turns": True}},
    "prefix-caching": {"prefix_caching": True},
    "late-output": {"disable_async_output_proc": False},
    "spare-block": {"spare_block": True},
    "reservation": {"batching": "orca"},
    "held-batch": {"batching": "static"},
}
"""What an engine that has a mechanism states; the others are stated elsewhere."""

OF_REPLICAS: dict[str, dict[str, Any]] = {
    "scaling": {"scaling": {"policy": "horizontal", "target": 2, "every_s": 0.5, "start_s": 0.5}},
    "migration": {"migration": {"policy": "freeness", "every_s": 0.5}},
    "faults": {"faults": {"policy": "schedule", "at": [{"at_s": 0.5, "down_s": 0.5}]}},
}
"""What replicas that are under a control plane state."""

WORKLOAD = {
    "num_requests": 6,
    "arrivals": {"process": "poisson", "rate_rps": 20},
    "prompt_tokens": {"dist": "uniform", "low": 10, "high": 200},
    "output_tokens": {"dist": "uniform", "low": 1, "high": 60},
    "programs": {
        "kind": "conversation",
        "turns": {"dist": "fixed", "value": 3},
        "think_time_s": {"dist": "fixed", "value": 1.0},
    },
}


def written(directory: Path, *names: str) -> Path:
    """A scenario file that asks for some mechanisms."""
    engine: dict[str, Any] = {"max_num_seqs": 4, "num_gpu_blocks": 80}
    for name in names:
        engine = engine | OF_AN_ENGINE.get(name, {})
    if "held-batch" in names:
        engine["batching"] = "static"
    if {"swap", "turns"} <= set(names):
        engine["swapping"] = {"overlap": True, "reuse": True, "turns": True}
    replicas: dict[str, Any] = {"engine": engine}
    for name in names:
        replicas |= OF_REPLICAS.get(name, {})
    deployment = {"num_devices": 2, **replicas}
    if "roles" in names:
        groups = [
            {"name": role, "role": role, "kv_pool": "device", **replicas} for role in ("prefill", "decode")
        ]
        deployment = {"num_devices": 2, "sharing": "sm-partition", "groups": groups}
    cost: dict[str, Any] = {"roofline": {}}
    if "power" in names:
        deployment["power"] = {"policy": "budget", "budget_w": 300, "every_s": 0.5}
        gpu_trace(directory / "trace", CLOCKS, model="llama-3.2-1b", device="a10g")
        cost = {"trace": "trace"}
    if "bounded-kv" in names:
        cost["transforms"] = [{"lm_infinite": {"global_tokens": 4, "local_tokens": 60}}]
    path = directory / "asked.yaml"
    scenario = {
        "model": "llama-3.2-1b",
        "max_model_len": 1000,
        "device": "a10g",
        "cost": cost,
        "workload": WORKLOAD,
        "deployment": deployment,
    }
    with path.open("w") as file:
        YAML(typ="safe").dump(scenario, file)
    return path


def implied(names: tuple[str, ...]) -> set[str]:
    return {*names, "reservation"} if "held-batch" in names else set(names)


@pytest.mark.slow
@pytest.mark.parametrize("pair", list(combinations(MECHANISMS, 2)), ids="-and-".join)
def test_two_mechanisms_go_together_or_are_refused_with_line_reason_and_remedy(tmp_path, pair):
    path, clashing = written(tmp_path, *pair), conflicts(implied(pair))
    if not clashing:
        found = simulate(load_scenario(path), with_intervals=False)
        assert found.summary["requests"]["finished"] == 18
        return
    with pytest.raises(ScenarioError) as refused:
        load_scenario(path)
    assert len(refused.value.problems) == len(clashing) * (2 if "roles" in pair else 1)
    for one, other, why in clashing:
        said = f"{MECHANISMS[one]} does not go with {MECHANISMS[other]}: {why}; leave one out"
        (problem, *_) = [each for each in refused.value.problems if each.endswith(said)]
        file, line, keys = problem.split(":")[:3]
        assert file == "asked.yaml"
        assert keys.strip().split(".")[-1] in path.read_text().splitlines()[int(line) - 1]


def together(one: str, other: str) -> dict[str, Any]:
    """Overrides of a scenario with two mechanisms at once."""
    engine = {key: value for name in (one, other) for key, value in OF_AN_ENGINE[name].items()}
    return {f"{ENGINE}.{key}": value for key, value in engine.items()}


@pytest.mark.parametrize("batching", ["prefill-first", "chunked-prefill", "split-fuse", "layered-prefill"])
@pytest.mark.parametrize("mechanism", ["speculation", "swap"])
def test_each_goes_with_every_batching_that_takes_blocks_as_needed_and_with_prefix_caching(
    batching, mechanism
):
    changes = {
        "workload.num_requests": 8,
        f"{ENGINE}.batching.policy": batching,
        f"{ENGINE}.max_num_batched_tokens": 8192,
        f"{ENGINE}.prefix_caching": True,
        **together(mechanism, mechanism),
    }
    found = simulate(load_scenario(SCENARIOS / "sarathi-serve.yaml", changes), with_intervals=False)
    assert found.summary["requests"]["finished"] == 8


def test_priorities_that_change_need_a_queue_that_goes_by_them():
    changing = {f"{ENGINE}.priorities": "markov", f"{ENGINE}.preemption_policy": "lowest-priority"}
    with pytest.raises(ScenarioError) as refused:
        load_scenario(SCENARIOS / "sarathi-serve.yaml", changing)
    words = str(refused.value)
    assert "sarathi-serve.yaml:" in words
    assert "set scheduling_policy: priority" in words
    load_scenario(SCENARIOS / "sarathi-serve.yaml", changing | {f"{ENGINE}.scheduling_policy": "priority"})


@pytest.mark.parametrize(
    ("order", "stated", "policy"),
    [
        ("fcfs", None, "youngest"),
        ("shortest-prompt", None, "youngest"),
        ("priority", None, "least-urgent"),
        ("priority", "youngest", "youngest"),
        ("fcfs", "least-urgent", "least-urgent"),
    ],
)
def test_who_is_preempted_follows_the_order_unless_stated(small, order, stated, policy):
    small["deployment"] = {"engine": {"scheduling_policy": order, "preemption_policy": stated}}
    engine = load_scenario(small).deployment.engine
    assert engine.preempts.policy == policy
    assert not engine.switches

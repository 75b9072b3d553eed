"""Which mechanisms of a replica go together, and what is said of those that do not."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from systems.claim import SCENARIOS

from simslm.api import load_scenario, prepare, simulate
from simslm.errors import ScenarioError

ENGINE = "deployment.engine"
SPECULATION = {"model": "smollm2-135m", "num_speculative_tokens": 3, "acceptance_rate": 0.7}
SWITCHES = {
    "preemption": "swap",
    "swapping": {"overlap": True, "reuse": True},
    "scheduling_policy": "priority",
}
PHASES = [
    {"name": role, "role": role, "kv_pool": "device", "engine": {"max_num_seqs": 32}} for role in ("prefill", "decode")
]  # fmt: skip
OF_AN_ENGINE: dict[str, dict[str, Any]] = {
    "speculative_config": {"speculative_config": SPECULATION},
    "swapping": SWITCHES,
}
WINDOW = {"cost.transforms": [{"lm_infinite": {}}]}


def together(one: str, other: str) -> dict[str, Any]:
    """Overrides of a scenario with two mechanisms at once."""
    engine = {key: value for name in (one, other) for key, value in OF_AN_ENGINE.get(name, {}).items()}
    changes = WINDOW if "lm_infinite" in (one, other) else {}
    if "role" not in (one, other):
        return {**changes, **{f"{ENGINE}.{key}": value for key, value in engine.items()}}
    decode = PHASES[1] | {"engine": PHASES[1]["engine"] | engine}
    return {**changes, "deployment.groups": [PHASES[0], decode], "deployment.sharing": "sm-partition"}


@pytest.mark.parametrize(
    ("one", "other"), list(combinations(["speculative_config", "swapping", "lm_infinite", "role"], 2))
)
def test_two_mechanisms_that_do_not_go_together_are_refused_by_name_with_what_to_do(one, other):
    with pytest.raises(ScenarioError) as refused:
        prepare(load_scenario(SCENARIOS / "sarathi-serve.yaml", together(one, other)))
    words = str(refused.value)
    assert "sarathi-serve.yaml:" in words
    assert "leave" in words
    names = {"swapping": ("swapping", "context switches"), "role": ("role",)}
    for name in (one, other):
        assert any(known in words for known in names.get(name, (name,)))


@pytest.mark.parametrize("batching", ["prefill-first", "chunked-prefill", "split-fuse", "layered-prefill"])
@pytest.mark.parametrize("mechanism", ["speculative_config", "swapping"])
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

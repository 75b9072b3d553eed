"""Groups of one phase: what they must agree on, and what becomes of them."""

from __future__ import annotations

from typing import Any

import pytest

from simslm.api import prepare
from simslm.errors import ScenarioError
from simslm.scenario.load import load_scenario
from simslm.sim.ahead import served_by

TWO_PHASES = """
model: opt-1.3b
device: a100-80gb
cost: {roofline: {}}
workload: {num_requests: 20, arrivals: {process: poisson, rate_rps: 5}, prompt_tokens: {dist: fixed, value: 100},
  output_tokens: {dist: fixed, value: 10}}
deployment:
  sharing: sm-partition
  groups:
    - {name: first, role: prefill, kv_pool: device, sm_fraction: 0.8}
    - {name: second, role: decode, kv_pool: device}
slo: {ttft_s: 1.0}
"""


def loaded(tmp_path: Any, overrides: dict[str, Any] | None = None) -> Any:
    path = tmp_path / "scenario.yaml"
    path.write_text(TWO_PHASES)
    return load_scenario(path, overrides=overrides)


def test_groups_of_one_pool_have_one_copy_of_the_weights_and_the_same_blocks(tmp_path):
    """They hold more than two replicas with half the device each, and less than one with all of it: two processes."""
    first, second = prepare(loaded(tmp_path)).groups
    assert first.memory.num_gpu_blocks == second.memory.num_gpu_blocks
    apart = {"deployment.groups.0.kv_pool": None, "deployment.groups.1.kv_pool": None}
    halves = [group.memory.num_gpu_blocks for group in prepare(loaded(tmp_path, apart)).groups]
    alone = (
        prepare(loaded(tmp_path, {"deployment.groups": None, "deployment.sharing": "none"}))
        .groups[0]
        .memory.num_gpu_blocks
    )
    assert sum(halves) < first.memory.num_gpu_blocks < alone


def test_no_request_arrives_at_a_decode_group(tmp_path):
    assert prepare(loaded(tmp_path)).deployment().group_router is None
    swapped = {
        "deployment.groups.0": {"name": "second", "role": "decode", "kv_pool": "device"},
        "deployment.groups.1": {"name": "first", "role": "prefill", "kv_pool": "device"},
    }
    prepared = prepare(loaded(tmp_path, swapped))
    arrive = prepared.deployment()
    served = served_by(prepared.requests, arrive)
    assert served is not None
    assert served.sum(axis=1).tolist() == [0, 20]
    assert [group.decode_group for group in arrive.groups] == [None, 0]


FIRST, SECOND = "deployment.groups.0", "deployment.groups.1"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {SECOND + ".role": "both", SECOND + ".kv_pool": None},
            "role prefill needs decode_group, a group of role",
        ),
        ({FIRST + ".decode_group": "secnd"}, "is no group of role decode (did you mean 'second'?)"),
        ({SECOND + ".decode_group": "first"}, "decode_group is for role prefill, not decode"),
        (
            {FIRST + ".role": "both", FIRST + ".kv_pool": None},
            "no group of role prefill hands its sequences to it",
        ),
        ({SECOND + ".kv_pool": None}, "kv_pool is device here and null there"),
        ({FIRST + ".kv_pool": None}, "kv_pool 'device' is named by groups of role decode only"),
        ({SECOND + ".model": "opt-125m"}, "state the same model"),
        ({SECOND + ".engine.block_size": 32}, "state the same block_size"),
        ({SECOND + ".engine.num_gpu_blocks": 50}, "must state the same engine.num_gpu_blocks"),
        (
            {FIRST + ".engine.batching": {"policy": "orca"}},
            "must take blocks alike",
        ),
        ({FIRST + ".name": "second"}, "names of their own"),
        ({"deployment.sharing": "mps"}, "sm_fraction needs sharing: sm-partition"),
        ({"deployment.partition": "slo-aware"}, "slo-aware goes by slo.ttft_s and slo.tpot_s; state both"),
        (
            {each + ".engine.batching": {"policy": "static"} for each in (FIRST, SECOND)},
            "a held batch begins and ends as one",
        ),
        ({FIRST + ".sm_fraction": 1.5}, "sm_fraction"),
    ],
)
def test_what_cannot_work_is_refused_with_its_reason(tmp_path, changes, said):
    with pytest.raises(ScenarioError) as refused:
        loaded(tmp_path, changes)
    assert said in str(refused.value)


ENGINE = "deployment.engine"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({ENGINE: {"swapping": {"group_blocks": 4}}}, "swapping needs preemption: swap"),
        (
            {ENGINE: {"batching": {"policy": "static"}, "preemption_policy": {"policy": "lowest-priority"}}},
            "a held batch lets no sequence join before its end",
        ),
        ({ENGINE: {"priorities": {"policy": "markof"}}}, "did you mean 'markov'?"),
        ({ENGINE: {"swapping": {"overlapp": True}}}, "did you mean 'overlap'?"),
    ],
)
def test_what_cannot_be_swapped_so_is_refused_with_its_reason(tmp_path, changes, said):
    one = {"deployment.groups": None, "deployment.sharing": "none"}
    with pytest.raises(ScenarioError) as refused:
        loaded(tmp_path, one | changes)
    assert said in str(refused.value)

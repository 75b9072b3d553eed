"""Policies do not undo each other: whatever is combined, a request is preempted a few times, and then it is done."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.invariants import simulate
from support.scenarios import Choice
from support.synthetic import Lists, deployment

import simslm
from simslm.policies.registry import lookup, registered
from simslm.scenario.load import load_scenario
from simslm.sim.log import FINISHED

SWITCHING: dict[str, dict[str, Any]] = {
    "recompute": {},
    "swap": {"swap_blocks": 500, "swap_s_per_block": 1e-4},
    "a little swap": {"swap_blocks": 6, "swap_s_per_block": 1e-4},
    "overlap": {"swap_blocks": 500, "swap_s_per_block": 1e-3, "swap_overlap": True},
    "reuse": {"swap_blocks": 500, "swap_s_per_block": 1e-3, "swap_overlap": True, "swap_reuse": True},
    "turns": {"swap_blocks": 500, "swap_s_per_block": 1e-3, "swap_turns": True},
}
"""What becomes of who is preempted."""

TAKING = [each.name for each in registered("batching") if not each.cls.reserves_output]


WAYS = ("overlap", "reuse", "turns")


@pytest.fixture
def cases() -> Path:
    """Public cases with right answers; not part of this repository."""
    found = Path(os.environ.get("SIMSLM_SHARED", Path(__file__).parents[3] / "shared")) / "cases" / "traffic"
    if not found.is_dir():
        pytest.skip(f"no public cases at {found} (set SIMSLM_SHARED to where they are)")
    return found


def names(kind: str) -> list[str]:
    return [entry.name for entry in registered(kind)]


def tight(seed: int, *, count: int = 24) -> Lists:
    """Requests that come while three or four of them fill the KV cache, of three priorities."""
    rng = np.random.default_rng(seed)
    prompts, outputs = rng.integers(20, 120, count), rng.integers(10, 80, count)
    requests = Lists.of(np.cumsum(rng.exponential(0.02, count)), prompts, outputs)
    requests.priority = rng.integers(0, 3, count)
    return requests


def served(preemption: str, queueing: str, batching: str, switching: str, **named: Any) -> Any:
    """One replica of policies and a way of switching; with a pattern of priorities if ``priorities`` is named."""
    pattern = named.pop("priorities", "fixed")
    options = named.pop("options", {})
    setting = deployment(
        queueing=queueing,
        batching=batching,
        num_gpu_blocks=named.pop("num", 20),
        max_num_seqs=named.pop("max_num_seqs", 6),
        max_num_batched_tokens=256,
        watermark=named.pop("watermark", 0.0),
        **SWITCHING[switching],
        **named,
    )
    group = setting.groups[0]
    displaces = lookup("preemption", preemption).cls.displaces
    switches = displaces or pattern != "fixed" or any(SWITCHING[switching].get(f"swap_{way}") for way in WAYS)

    def policies() -> Any:
        return replace(
            group.policies(),
            preemption=Choice("preemption", preemption).make(),
            priorities=Choice("priorities", pattern, options).make() if switches else None,
        )

    return replace(setting, groups=(replace(group, policies=policies),))


@pytest.mark.slow
@pytest.mark.parametrize("switching", SWITCHING)
@pytest.mark.parametrize(
    ("preemption", "queueing", "batching"), list(product(names("preemption"), names("queueing"), TAKING))
)
def test_a_request_is_preempted_a_few_times_at_most(preemption, queueing, batching, switching):
    """Twice a request on average, and the work of it costs no more than half as much time again."""
    plain = served("youngest", "fcfs", batching, "recompute")
    for seed in range(3):
        requests = tight(seed)
        result = simulate(requests, served(preemption, queueing, batching, switching))
        columns = result.request_columns
        assert (columns["status"] == FINISHED).all()
        assert columns["preemptions"].sum() <= 2 * len(columns["preemptions"])
        slowest = simulate(requests, plain).summary["makespan_s"]
        assert result.summary["makespan_s"] <= 1.5 * slowest + 0.2


@pytest.mark.parametrize("pattern", [name for name in names("priorities") if name != "fixed"])
@pytest.mark.parametrize(
    ("preemption", "switching"), list(product(names("preemption"), ("recompute", "reuse")))
)
def test_where_priorities_change_requests_are_preempted_once_a_change_at_most(preemption, switching, pattern):
    """And twice for other reasons: short blocks, or a more urgent request that came."""
    every = 10
    setting = served(
        preemption, "priority", "chunked-prefill", switching, priorities=pattern, options={"every": every}
    )
    for seed in range(3):
        result = simulate(tight(seed), setting)
        changes = len(result.tables[0]) // every
        assert (result.request_columns["status"] == FINISHED).all()
        assert (result.request_columns["preemptions"] <= changes + 2).all()


@pytest.mark.parametrize("queueing", names("queueing"))
@pytest.mark.parametrize("switching", SWITCHING)
def test_who_made_place_stays_out_until_the_other_is_in(queueing, switching):
    """Two that are not urgent fill the slots when an urgent one comes, and another like them."""
    requests = Lists.of([0.0, 0.001, 0.5, 0.6], [100, 100, 120, 90], [300, 300, 50, 50])
    requests.priority = np.array([5, 5, 0, 5])
    result = simulate(
        requests, served("lowest-priority", queueing, "chunked-prefill", switching, max_num_seqs=2, num=60)
    )
    columns = result.request_columns
    assert columns["preemptions"].tolist() == [0, 1, 0, 0]
    assert columns["queue_s"][2] < 0.05


def test_a_recorded_storm_is_none_any_more(cases):
    """An urgent request among three others: at most two preemptions, and the time that the work takes."""
    for seed in (1, 2):
        scenario = load_scenario(cases / "storm.yaml", {"seed": seed})
        summary = simslm.simulate(scenario).summary
        assert summary["kv"]["preemptions"] <= 2
        assert summary["makespan_s"] <= 6.1


def test_under_priority_the_least_urgent_goes_first_then_the_last_that_arrived():
    """The urgent one was admitted last. Five blocks are left for three that grow: it is never the one to go."""
    requests = Lists.of([0.0, 0.001, 0.002, 0.1], 100, 100)
    requests.priority = np.array([5, 5, 5, 0])
    gone = {}
    for preemption in ("youngest", "least-urgent"):
        setting = served(preemption, "priority", "chunked-prefill", "recompute", num=33)
        gone[preemption] = simulate(requests, setting).request_columns["preemptions"].tolist()
    assert gone["youngest"][3] > 0
    assert gone["least-urgent"][3] == 0
    assert gone["least-urgent"][2] > 0
    assert gone["least-urgent"][0] == 0


def test_what_is_computed_again_is_counted_and_a_storm_is_named(small):
    """Tokens computed beyond prompts and outputs but for the last token of each, which is never fed back."""
    small["workload"]["arrivals"] = {"process": "all-at-once"}
    engine = {"num_gpu_blocks": 60, "watermark": 0.0, "max_num_seqs": 16, "batching": "prefill-first"}
    small["deployment"] = {"engine": engine | {"max_num_batched_tokens": 4096}}
    result = simslm.simulate(load_scenario(small))
    columns, kv = result.request_columns, result.summary["kv"]
    done = columns["status"] == FINISHED
    window = result.windows[0][1]
    prefilled = np.zeros(len(done))
    np.add.at(prefilled, window.chunks["request_id"].astype(int), window.chunks["tokens"])
    first = columns["prompt_tokens"] + columns["preemptions"]
    assert (columns["recomputed_tokens"][done] == (prefilled - first)[done]).all()
    assert kv["recomputed_tokens"] == columns["recomputed_tokens"].sum() > 0
    assert ("note" in kv) == (kv["recomputed_share"] > 0.2 or kv["preemptions"] > done.sum())


def test_a_note_names_the_policies_of_a_storm(small):
    """Priorities drawn anew at every iteration: the sequences that run are exchanged all the time."""
    engine = {
        "max_num_seqs": 2,
        "scheduling_policy": "priority",
        "priorities": {"policy": "random", "every": 1},
        "preemption_policy": "lowest-priority",
    }
    stormy = simslm.simulate(load_scenario(small | {"deployment": {"engine": engine}})).summary["kv"]
    assert stormy["preemptions"] > 50
    assert stormy["note"].startswith("preemption storm: ")
    assert (
        "preemption_policy: lowest-priority, scheduling_policy: priority, priorities: random"
        in stormy["note"]
    )
    calm = simslm.simulate(load_scenario(small)).summary["kv"]
    assert calm["preemptions"] == calm["recomputed_tokens"] == 0
    assert "note" not in calm

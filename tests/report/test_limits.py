"""Limits follow the group whose replicas they are of: a run is explained with the group and the place of the key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import simslm.api
from simslm.metrics.files import RunWriter
from simslm.report.bound import Bound, bound
from simslm.report.facts import Facts, facts
from simslm.report.limits import engine_limits, group_of, handover_s
from simslm.report.tables import RunTables, read_run
from simslm.report.timeline import replica_count

LENGTHS = {
    "prompt_tokens": {"dist": "fixed", "value": 1000},
    "output_tokens": {"dist": "fixed", "value": 200},
}

ROLES = {"p": "prefill", "d": "decode"}


def group(name: str, role: str, devices: list[int], **engine: Any) -> dict[str, Any]:
    return {"name": name, "role": role, "devices": devices, "engine": engine}


def run_of(place: Path, groups: list[dict[str, Any]], rate_rps: float, **changes: Any) -> RunTables:
    """Simulates groups under a steady load and reads what the run wrote."""
    scenario = {
        "name": "groups",
        "seed": 1,
        "model": "llama-3.2-1b",
        "device": "h200",
        "cost": {"roofline": {}},
        "workload": {
            "num_requests": 120,
            "arrivals": {"process": "poisson", "rate_rps": rate_rps},
            **LENGTHS,
        },
        "deployment": {"num_devices": 1 + max(max(each["devices"]) for each in groups), "groups": groups},
        **changes,
    }
    with RunWriter(place / "run") as writer:
        loaded = simslm.api.load_scenario(scenario)
        writer.finish(simslm.api.simulate(loaded, sink=writer, with_intervals=False))
        return read_run(place / "run")


def said(run: RunTables) -> tuple[Facts, Bound, str]:
    found = facts(run)
    answer = bound(found)
    return found, answer, " ".join([*answer.sentences, *answer.knobs])


@pytest.mark.parametrize("decode_first", [False, True])
def test_decode_slots_are_the_gate(tmp_path: Path, decode_first: bool):
    """Two decode slots that serve some eight requests/s, of twenty: whichever group the scenario states first."""
    groups = [group("p", "prefill", [0]), group("d", "decode", [1], max_num_seqs=2)]
    run = run_of(tmp_path, groups[::-1] if decode_first else groups, 20, slo={"e2e_s": 0.5})
    found, answer, text = said(run)
    key = f"deployment.groups[{0 if decode_first else 1}].engine.max_num_seqs"
    assert (answer.kind, found.limits.group, found.limits.max_num_seqs) == ("slots", "d", 2)
    assert answer.sentences[0].startswith("The batch limit of group `d` bounded this run")
    assert f"all 2 sequences (`{key}`) were in use" in text
    assert answer.knobs[0].startswith(f"Raise `{key}` above 2")
    assert "smaller `" not in text
    assert "batching policy" not in text
    assert "of their E2E was waiting between prefill and decode, for group `d`" in text
    assert not found.kept_up


def test_waiting_for_a_decode_slot_is_what_breaks_the_tpot_bound(tmp_path: Path):
    groups = [group("p", "prefill", [0]), group("d", "decode", [1], max_num_seqs=2)]
    _, answer, text = said(run_of(tmp_path, groups, 20, slo={"tpot_s": 0.003}))
    assert "of their time after the first token was waiting between prefill and decode" in text
    assert answer.knobs[0].startswith("Raise `deployment.groups[1].engine.max_num_seqs` above 2")
    assert "lengthen TPOT" not in text


def test_the_prefill_budget_is_the_gate(tmp_path: Path):
    groups = [
        group("p", "prefill", [0], max_num_batched_tokens=256),
        group("d", "decode", [1], max_num_batched_tokens=8192),
    ]
    found, answer, text = said(run_of(tmp_path, groups, 400, slo={"ttft_s": 0.02}))
    assert (answer.kind, found.limits.group) == ("tokens", "p")
    assert "of group `p` bounded this run" in answer.sentences[0]
    assert "filled to 256 tokens (`deployment.groups[0].engine.max_num_batched_tokens`)" in text
    assert answer.knobs[0].startswith("A `deployment.groups[0].engine.max_num_batched_tokens` above 256")
    assert "at the price of ITL" not in text  # no sequence decodes beside these prompts


def test_decode_blocks_are_the_gate(tmp_path: Path):
    """Blocks for four sequences of 1,200 tokens in the decode group, and memory without end in the other."""
    groups = [group("p", "prefill", [0]), group("d", "decode", [1], num_gpu_blocks=320, watermark=0.0)]
    found, answer, _ = said(run_of(tmp_path, groups, 40, slo={"e2e_s": 0.5}))
    assert (answer.kind, found.limits.num_gpu_blocks) == ("kv", 320)
    assert answer.sentences[0].startswith("KV capacity of group `d` bounded this run")
    assert answer.knobs[0].startswith("Raise `deployment.groups[1].engine.num_gpu_blocks`")
    assert found.kv_peak is not None
    assert found.kv_peak > 0.9


def test_blocks_of_a_pool_are_raised_in_each_of_its_groups(tmp_path: Path):
    """Prefill and decode groups that share blocks must state the same number of them."""
    groups = [group(name, role, [0], num_gpu_blocks=700) | {"kv_pool": "x"} for name, role in ROLES.items()]
    deployment = {"num_devices": 1, "sharing": "mps", "groups": groups}
    run = run_of(tmp_path, groups, 60, slo={"ttft_s": 0.2}, deployment=deployment)
    _, answer, _ = said(run)
    assert answer.kind == "kv"
    assert "num_gpu_blocks` (in every group of `kv_pool: x`)" in answer.knobs[0]


def test_the_second_of_two_groups_alike_in_role(tmp_path: Path):
    groups = [group("wide", "both", [0]), group("narrow", "both", [1], max_num_seqs=1)]
    found, answer, text = said(run_of(tmp_path, groups, 20, slo={"ttft_s": 0.1}))
    assert (answer.kind, found.limits.group) == ("slots", "narrow")
    assert "Raise `deployment.groups[1].engine.max_num_seqs` above 1" in text
    assert found.queue_of_ttft is not None
    assert found.queue_of_ttft > 0.5


def test_a_single_group_gives_the_place_of_its_key_without_its_name(tmp_path: Path):
    run = run_of(tmp_path, [group("only", "both", [0], max_num_seqs=2)], 40, slo={"ttft_s": 0.1})
    _, answer, text = said(run)
    assert answer.kind == "slots"
    assert answer.sentences[0].startswith("The batch limit bounded this run")
    assert "Raise `deployment.groups[0].engine.max_num_seqs` above 2" in text


def test_without_groups_nothing_is_named(make_run: Callable[..., Path]):
    found, answer, text = said(
        read_run(make_run(name="flat", rate_rps=40, max_num_seqs=16, num_requests=600))
    )
    assert "all 16 sequences (`max_num_seqs`) were in use" in text
    assert any(knob.startswith("Raise `max_num_seqs` above 16") for knob in answer.knobs)
    assert "group" not in text
    assert found.limits == found.door == found.prefills == found.decodes == found.preempts
    assert found.handed_over == 0


def test_each_group_has_its_own_limits_and_replicas(tmp_path: Path):
    groups = [
        group("p", "prefill", [0, 1], max_num_seqs=32),
        group("d", "decode", [2], max_num_seqs=8) | {"max_model_len": 4096},
    ]
    run = run_of(tmp_path, groups, 5, max_model_len=8192)
    limits = engine_limits(run)
    assert [each.max_num_seqs for each in limits] == [32, 8]
    assert [each.max_model_len for each in limits] == [8192, 4096]
    assert [each.length_key() for each in limits] == [
        "deployment.groups[0].max_model_len",
        "deployment.groups[1].max_model_len",
    ]
    known = [each["num_gpu_blocks"] for each in run.manifest["groups"]]
    assert [each.num_gpu_blocks for each in limits] == known
    assert group_of(run, np.array([0.0, 1.0, 2.0, 3.0, np.nan, -1.0])).tolist() == [0, 0, 1, -1, -1, -1]
    idle = {name: column[:0] for name, column in run.iterations.items()}
    assert replica_count(replace(run, iterations=idle)) == 3


def test_the_handover_is_from_the_first_token_to_the_first_decode_iteration(tmp_path: Path):
    groups = [group("p", "prefill", [0]), group("d", "decode", [1], max_num_seqs=2)]
    run = run_of(tmp_path, groups, 20)
    assert run.stages is not None
    between = handover_s(run)
    for row in (0, 60, 119):
        mine = run.stages["decode"] & (run.stages["request_id"] == run.requests["request_id"][row])
        expected = np.min(run.stages["start_s"][mine]) - run.requests["first_token_s"][row]
        assert between[row] == pytest.approx(expected)
    assert np.max(between) > 0.5
    assert not handover_s(replace(run, stages=None)).any()

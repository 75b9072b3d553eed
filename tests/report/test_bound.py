"""Each regime is told apart, with the knob that moves it; what is undecided is said to be."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import simslm.policies  # noqa: F401  (fills the register)
from simslm.policies.registry import registered
from simslm.report.bound import Bound, bound
from simslm.report.facts import Facts, facts
from simslm.report.limits import WHOLE_PROMPTS
from simslm.report.regime import waiting_gate
from simslm.report.tables import read_run

REGIMES = {
    "arrivals": {},
    "slots": {"rate_rps": 40, "max_num_seqs": 16, "num_requests": 600},
    "kv": {"rate_rps": 40, "num_gpu_blocks": 400, "num_requests": 600},
    "tokens": {"rate_rps": 40, "mean_prompt": 1500, "mean_output": 8, "num_requests": 500},
    "concurrency": {"process": "closed-loop", "rate_rps": 4},
    "iterations": {"process": "all-at-once", "rate_rps": 0, "host_s": 0.02, "num_requests": 60},
}


@pytest.fixture(scope="module")
def found(make_run: Callable[..., Path]) -> dict[str, Facts]:
    return {name: facts(read_run(make_run(name=name, **changes))) for name, changes in REGIMES.items()}


def explain(of: Facts) -> tuple[Bound, str]:
    answer = bound(of)
    return answer, " ".join([*answer.sentences, *answer.knobs])


@pytest.mark.slow
@pytest.mark.parametrize("regime", list(REGIMES))
def test_each_regime_is_recognised(found: dict[str, Facts], regime: str):
    answer, text = explain(found[regime])
    assert answer.kind == regime
    assert answer.knobs
    assert "None" not in text
    assert "nan" not in text
    assert len(answer.evidence) >= 4


@pytest.mark.parametrize(
    ("regime", "phase", "knob"),
    [
        ("arrivals", "decode", "raise the arrival rate"),
        ("slots", "decode", "Raise `max_num_seqs` above 16: KV blocks peaked at"),
        ("kv", "decode", "`gpu_memory_utilization`"),
        ("tokens", "prefill", "`max_num_batched_tokens` above 2,048"),
        ("concurrency", "decode", "`workload.arrivals.concurrency`"),
        ("iterations", "host", "Host time leads"),
    ],
)
def test_the_leading_phase_and_the_knob_follow(found: dict[str, Facts], regime: str, phase: str, knob: str):
    answer, _ = explain(found[regime])
    assert answer.phase == phase
    assert any(knob in text for text in answer.knobs)


def test_requests_wait_when_overloaded_and_not_otherwise(found: dict[str, Facts]):
    assert found["arrivals"].waited == 0
    assert found["arrivals"].kept_up
    assert found["slots"].waited > 0.9
    assert not found["slots"].kept_up
    assert found["slots"].full["slots"] > 0.95
    assert found["slots"].queue_of_ttft is not None
    assert found["slots"].queue_of_ttft > 0.9


def test_a_policy_that_holds_requests_back_is_named(found: dict[str, Facts]):
    held = replace(found["slots"], full={"kv": 0.0, "slots": 0.1, "tokens": 0.0})
    answer, text = explain(held)
    assert answer.kind == "policy"
    assert "batching.policy" in text


def test_no_limit_reached_half_of_the_time_is_undecided(found: dict[str, Facts]):
    mixed = replace(found["slots"], full={"kv": 0.4, "slots": 0.3, "tokens": 0.2})
    answer, text = explain(mixed)
    assert answer.kind == "undecided"
    assert "KV blocks 40 %, the batch limit 30 %, the token budget 20 %" in text


def test_the_limit_reached_longest_wins(found: dict[str, Facts]):
    assert waiting_gate(replace(found["slots"], full={"kv": 0.6, "slots": 0.9, "tokens": 0.0})) == "slots"
    assert waiting_gate(replace(found["slots"], full={"kv": 0.9, "slots": 0.9, "tokens": 0.0})) == "kv"
    assert waiting_gate(replace(found["slots"], waited=0.05)) is None


def test_bursts_of_a_run_that_kept_up_name_what_they_waited_for(found: dict[str, Facts]):
    answer, text = explain(replace(found["slots"], kept_up=True, waited=0.3))
    assert answer.kind == "arrivals"
    assert "In bursts, 30 % of the busy time, requests waited for the batch limit" in text
    assert "Raise `max_num_seqs`" in text


def test_a_larger_batch_is_not_advised_where_it_cannot_pay(found: dict[str, Facts]):
    assert "buys little" in explain(replace(found["slots"], fixed_share=0.1))[1]
    assert "needs more of them first" in explain(replace(found["slots"], kv_peak=0.97))[1]


def test_kv_advice_follows_how_the_blocks_were_set(found: dict[str, Facts]):
    limits = found["kv"].limits
    by_hand = replace(found["kv"], limits=replace(limits, blocks_set_by_hand=True), preemptions=12)
    assert "Raise `num_gpu_blocks`" in explain(by_hand)[1]
    assert "12 times a sequence was preempted" in explain(by_hand)[1]
    shared = replace(found["kv"], limits=replace(limits, replicas_per_device=2))
    assert "fewer `replicas_per_device`" in explain(shared)[1]


def test_idle_replicas_beside_a_queue_point_at_the_router(found: dict[str, Facts]):
    assert "`router.policy`" in explain(replace(found["slots"], gate_replicas=2, idle=0.5))[1]


def test_decode_traffic_names_weights_or_kv(found: dict[str, Facts]):
    assert "is weights" in explain(found["slots"])[1]
    assert "80 % of its memory traffic is KV" in explain(replace(found["slots"], weight_share=0.2))[1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"missed": {"ttft_s": 0.4}, "queue_of_ttft": 0.8}, "80 % of their TTFT was queueing"),
        ({"missed": {"ttft_s": 0.4}, "queue_of_ttft": 0.1}, "90 % of their TTFT was prefill"),
        ({"missed": {"tpot_s": 0.4}, "mixed_token_time": 0.7}, "smaller `max_num_batched_tokens`"),
        ({"missed": {"tpot_s": 0.4}, "mixed_token_time": 0.1}, "smaller `max_num_seqs`"),
        ({"missed": {"ttft_s": 0.1, "e2e_s": 0.4}}, "40 % of the requests broke the E2E bound."),
    ],
)
def test_a_missed_bound_is_explained(found: dict[str, Facts], changes: dict, words: str):
    assert words in explain(replace(found["slots"], **changes))[1]


def test_hardly_any_miss_is_not_explained(found: dict[str, Facts]):
    assert "broke the" not in explain(replace(found["slots"], missed={"ttft_s": 0.004}))[1]


def test_a_rejected_request_broke_no_bound(make_run: Callable[..., Path]):
    run = read_run(make_run(name="refused", num_requests=20))
    none = np.zeros(20, dtype=bool)
    assert facts(replace(run, requests={**run.requests, "finished": none})).missed == {
        "ttft_s": 0.0,
        "tpot_s": 0.0,
    }


def test_clients_that_left_are_the_answer(found: dict[str, Facts]):
    left = replace(found["slots"], finished=0, failed=1.0, failed_early=0.25)
    answer, text = explain(left)
    assert answer.kind == "unanswered"
    assert answer.sentences[0] == (
        "100 % of the requests failed: their clients left before the last token, 25 % of them before the first."
    )
    assert "of the busy time requests waited for the batch limit." in text
    assert "`workload.timeout_s`" in answer.knobs[0]
    assert "Raise `max_num_seqs`" in text
    assert answer.evidence[0].value == "100 %"
    assert explain(replace(left, finished=300, failed=0.5))[0].kind == "unanswered"
    assert explain(replace(left, finished=300, failed=0.49))[0].kind == "slots"


def test_a_run_that_ended_before_anything_finished_does_not_say_that_it_kept_up(found: dict[str, Facts]):
    answer, text = explain(replace(found["arrivals"], finished=0))
    assert answer.sentences[0] == "No request finished before the simulation ended."
    assert "kept up" not in text
    assert "raise the arrival rate" not in text


def test_a_backlog_that_is_never_answered_is_not_kept_up_with(make_run: Callable[..., Path]):
    run = read_run(make_run(name="left", num_requests=200))
    before = facts(run)
    assert before.kept_up
    assert (before.finished, before.failed) == (200, 0.0)
    gone = np.arange(200) < 20
    requests = {
        **run.requests,
        "finished": run.requests["finished"] & ~gone,
        "first_token_s": np.where(gone, np.nan, run.requests["first_token_s"]),
    }
    for status, kept_up in (("failed", False), ("rejected", True)):
        after = facts(replace(run, requests=requests | {status: gone}))
        assert after.kept_up is kept_up
        assert after.finished == 180
    assert facts(replace(run, requests=requests | {"failed": gone})).failed == 0.1
    assert facts(replace(run, requests=requests | {"failed": gone})).failed_early == 1.0


def test_rejections_are_explained(found: dict[str, Facts]):
    assert found["slots"].rejected == 0
    text = explain(replace(found["slots"], rejected=0.16))[1]
    assert "16 % of the arrived requests can never fit and were rejected." in text
    assert "`max_model_len` or more KV blocks." in text
    whole = replace(found["slots"], rejected=0.16, door=replace(found["slots"].door, chunked=False))
    assert "holds a whole prompt" in explain(whole)[1]
    assert "rejected" not in explain(replace(found["slots"], rejected=0.001))[1]


def test_a_run_without_an_iteration_has_nothing_to_explain(found: dict[str, Facts]):
    split = replace(found["slots"].split, host_s=0.0, prefill_s=0.0, decode_s=0.0)
    answer = bound(replace(found["slots"], split=split))
    assert answer.kind == "nothing"
    assert not answer.knobs


def test_the_policies_that_never_split_a_prompt_are_those_that_say_so():
    whole = {entry.name for entry in registered("batching") if entry.cls.whole_prompts}
    assert set(WHOLE_PROMPTS) == whole


def test_every_broken_bound_is_said_and_no_advice_worsens_another(found: dict[str, Facts]):
    answer, text = explain(replace(found["slots"], missed={"ttft_s": 0.8, "tpot_s": 0.7}, queue_of_ttft=0.9))
    assert "80 % of the requests broke the TTFT bound" in text
    assert "70 % broke the TPOT bound as well." in text
    assert "more replicas or devices" in answer.knobs[0]
    assert "lengthen TPOT" in answer.knobs[0]
    few = replace(found["slots"], missed={"ttft_s": 0.8, "tpot_s": 0.004}, queue_of_ttft=0.9)
    assert "as well" not in explain(few)[1]


def test_latency_is_not_blamed_for_rejected_requests(found: dict[str, Facts]):
    lost = replace(found["arrivals"], slo="missed", rejected=0.23, missed={"ttft_s": 0.0})
    text = explain(lost)[1]
    assert "latency was not" not in text
    assert "23 % of the requests were lost" in text
    assert "latency was not" in explain(replace(lost, rejected=0.0, missed={"ttft_s": 0.23}))[1]


def test_a_single_preemption_is_counted_as_people_count(found: dict[str, Facts]):
    assert "; once a sequence was preempted" in explain(replace(found["kv"], preemptions=1))[1]


@pytest.mark.parametrize(("clients", "kind"), [(1000, "open"), (1, "closed-loop")])
def test_a_cap_on_requests_in_flight_bounds_only_where_it_is_reached(
    make_run: Callable[..., Path], clients: int, kind: str
):
    run = read_run(make_run(name="paced", process="closed-loop", rate_rps=4))
    arrivals = {"process": "closed-loop", "rate_rps": 4, "concurrency": clients}
    scenario = {**run.scenario, "workload": {**run.scenario["workload"], "arrivals": arrivals}}
    assert facts(replace(run, manifest={**run.manifest, "scenario": scenario})).arrivals == kind


@pytest.mark.parametrize(
    ("overlong", "words"),
    [
        (1.0, "55 % of all, need a longer `max_model_len` than 8,192."),
        (0.0, "55 % of all, need more KV blocks."),
        (0.7, "need a longer `max_model_len` than 8,192 (70 % of them), others more KV blocks."),
        (None, "need a longer `max_model_len` than 8,192 or more KV blocks."),
    ],
)
def test_what_rejected_requests_need_comes_first_and_is_named(
    found: dict[str, Facts], overlong: float | None, words: str
):
    door = replace(found["kv"].door, max_model_len=8192)
    answer, _ = explain(replace(found["kv"], rejected=0.55, overlong=overlong, door=door))
    assert words in answer.knobs[0]

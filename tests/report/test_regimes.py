"""What is said of a run follows from its regime: scenarios whose regime is certain, and random ones that may not be
contradicted."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.scenarios import examples

import simslm.api
from simslm.errors import ScenarioError
from simslm.metrics.files import RunWriter
from simslm.report.bound import Bound, bound
from simslm.report.facts import Facts, facts
from simslm.report.tables import read_run
from simslm.report.verdict import Verdict, verdict

FEW = settings(max_examples=examples(4), deadline=None)

SMALL, LARGE = "llama-3.2-1b", "qwen2.5-3b"


@dataclass(frozen=True)
class Said:
    """Everything that is said of a run."""

    facts: Facts
    bound: Bound
    verdict: Verdict

    @property
    def text(self) -> str:
        return " ".join([self.verdict.word, self.verdict.sentence, *self.bound.sentences, *self.bound.knobs])


def said(scenario: dict[str, Any]) -> Said:
    """Runs a scenario and reads it as a report does."""
    with TemporaryDirectory() as place, RunWriter(Path(place) / "run") as writer:
        loaded = simslm.api.load_scenario(scenario)
        writer.finish(simslm.api.simulate(loaded, sink=writer, with_intervals=False))
        run = read_run(Path(place) / "run")
        found = facts(run)
        answer = Said(found, bound(found), verdict(run))
    hold_together(answer)
    return answer


def hold_together(answer: Said) -> None:
    """No two sentences contradict each other, or the figures that they are of."""
    text, found = answer.text, answer.facts
    missed, lost = answer.verdict.state == "missed", found.rejected + found.failed >= 0.01
    if missed or lost or not found.finished:
        assert "kept up" not in text
        assert "raise the arrival rate" not in text
        assert "Raise `workload.arrivals.concurrency`" not in text
    if "hardly any request had to wait" in text:
        assert "was queueing" not in text
        assert "requests waited for" not in text
    assert not ("kept up" in text and "the queue grew" in text)
    for key in ("max_num_seqs", "max_num_batched_tokens"):
        down = f"smaller `{key}`" in text
        up = re.search(rf"(larger|[Rr]aise) `{key}`|`{key}` above", text)
        assert not (down and up), text
    if found.rejected >= 0.01:
        assert "rejected" in text
        assert re.search("turned away|can never fit|not let in", text)
    if found.failed >= 0.01:
        assert "failed" in text
    if missed and not lost and found.finished and max(found.missed.values(), default=0) >= 0.01:
        assert "bound" in text
        assert answer.bound.knobs
    if found.storm and found.failed < 0.5:
        assert re.search("storm|thrashed", text)
    for wrong in ("None", "nan", " inf"):
        assert wrong not in text
    assert not re.search(r"\de[+-]\d", text)


def scenario(**changes: Any) -> dict[str, Any]:
    """A scenario on the roofline of a small card, with parts of it in place of the usual ones."""
    workload = {
        "num_requests": 120,
        "prompt_tokens": {"dist": "fixed", "value": 200},
        "output_tokens": {"dist": "fixed", "value": 40},
        "arrivals": {"process": "poisson", "rate_rps": 2.0},
    }
    return {
        "name": "regime",
        "seed": changes.get("seed", 0),
        "model": changes.get("model", SMALL),
        "device": "l4",
        "cost": {"roofline": {}},
        "workload": workload | changes.get("workload", {}),
        "deployment": {"engine": changes.get("engine", {})} | changes.get("deployment", {}),
        **({"slo": changes["slo"]} if "slo" in changes else {}),
    }


def lengths(prompt: int, output: int) -> dict[str, Any]:
    return {
        "prompt_tokens": {"dist": "fixed", "value": prompt},
        "output_tokens": {"dist": "fixed", "value": output},
    }


SEEDS, MODELS = st.integers(0, 2**31), st.sampled_from([SMALL, LARGE])


@FEW
@given(SEEDS, MODELS, st.integers(50, 400), st.integers(2, 40))
def test_idle(seed: int, model: str, prompt: int, output: int):
    """One request every 20 s, of which none takes as long as 5."""
    arrivals = {"process": "deterministic", "rate_rps": 0.05}
    workload = {"num_requests": 30, "arrivals": arrivals, **lengths(prompt, output)}
    answer = said(scenario(seed=seed, model=model, workload=workload, slo={"ttft_s": 5.0}))
    assert (answer.verdict.state, answer.bound.kind) == ("met", "arrivals")
    assert "the replicas kept up with 0.05 requests/s" in answer.text
    assert "% idle" in answer.bound.sentences[-1]
    assert answer.bound.knobs[0] == "To find the capacity of this deployment, raise the arrival rate."


@FEW
@given(SEEDS, st.integers(2, 16), st.booleans())
def test_bound_by_slots(seed: int, slots: int, at_once: bool):
    """Many more requests than slots, of one block in a hundred."""
    arrivals = {"process": "all-at-once"} if at_once else {"process": "poisson", "rate_rps": 10.0}
    workload = {"arrivals": arrivals, **lengths(20, 240)}
    answer = said(
        scenario(seed=seed, workload=workload, engine={"max_num_seqs": slots}, slo={"ttft_s": 0.02})
    )
    assert (answer.verdict.state, answer.bound.kind) == ("missed", "slots")
    assert f"all {slots} sequences (`max_num_seqs`) were in use" in answer.text
    assert "`max_num_seqs`" in answer.bound.knobs[0]
    assert ("the queue grew" in answer.text) is not at_once


@FEW
@given(SEEDS, st.integers(2, 6), st.booleans())
def test_bound_by_kv_blocks(seed: int, fit: int, at_once: bool):
    """Slots for 256, blocks for a few; outputs of a token or two, so that hardly any sequence grows."""
    arrivals = {"process": "all-at-once"} if at_once else {"process": "poisson", "rate_rps": 2000.0}
    engine = {"num_gpu_blocks": 64 * fit + 8, "max_num_batched_tokens": 8192, "watermark": 0.0}
    workload = {"arrivals": arrivals, **lengths(1000, 20)}
    answer = said(scenario(seed=seed, workload=workload, engine=engine, slo={"ttft_s": 0.05}))
    assert (answer.verdict.state, answer.bound.kind) == ("missed", "kv")
    assert "there was no room for one more prompt" in answer.text
    assert answer.bound.knobs[0].startswith("Raise `num_gpu_blocks`")


@FEW
@given(SEEDS, MODELS, st.integers(1500, 4000))
def test_bound_by_the_token_budget(seed: int, model: str, prompt: int):
    """Prompts alone, each about a budget long, faster than they can be computed."""
    workload = {
        "arrivals": {"process": "poisson", "rate_rps": 200.0},
        "num_requests": 80,
        **lengths(prompt, 1),
    }
    answer = said(scenario(seed=seed, model=model, workload=workload, slo={"ttft_s": 0.5}))
    assert (answer.verdict.state, answer.bound.kind, answer.bound.phase) == ("missed", "tokens", "prefill")
    assert "Prefill compute bounded this run" in answer.text
    assert "of their TTFT was queueing" in answer.text
    assert "`max_num_batched_tokens` above 2,048" in answer.bound.knobs[0]


@FEW
@given(SEEDS, st.floats(1.5, 8.0))
def test_overloaded(seed: int, times: float):
    """A multiple of the rate that 8 slots serve at most: 8 sequences of 100 tokens of at least 10 ms each."""
    workload = {
        "arrivals": {"process": "poisson", "rate_rps": 8 * times},
        "num_requests": 200,
        **lengths(50, 100),
    }
    answer = said(scenario(seed=seed, workload=workload, engine={"max_num_seqs": 8}, slo={"ttft_s": 1.0}))
    assert answer.verdict.state == "missed"
    assert "requests/s were offered" in answer.text
    assert "the queue grew, so latencies depend on how long it went on" in answer.text
    offered = answer.facts.offered
    assert offered is not None
    assert offered.served_rps is not None
    assert offered.served_rps < offered.rps


@FEW
@given(SEEDS, st.sampled_from(["recompute", "swap"]))
def test_storm(seed: int, preemption: str):
    """Prompts of a block, outputs of a hundred, and blocks for two whole sequences among sixteen."""
    engine = {
        "num_gpu_blocks": 220,
        "max_num_seqs": 16,
        "watermark": 0.0,
        "preemption": preemption,
    }
    arrivals = {"process": "all-at-once"}
    workload = {"num_requests": 16, "arrivals": arrivals, **lengths(16, 1600)}
    answer = said(scenario(seed=seed, workload=workload, engine=engine))
    assert answer.bound.kind == "storm"
    assert (
        "Swapping thrashed" if preemption == "swap" else "A preemption storm bounded this run"
    ) in answer.text
    assert any("`num_gpu_blocks`" in knob for knob in answer.bound.knobs)
    assert "smaller `max_num_seqs`" in answer.bound.knobs[0]


@FEW
@given(SEEDS, st.integers(1, 4))
def test_turned_away(seed: int, most: int):
    """Admission lets in a few, and many come at once."""
    engine = {"admission": {"policy": "limits", "max_queue": most}, "max_num_seqs": 4}
    workload = {"arrivals": {"process": "poisson", "rate_rps": 100.0}}
    answer = said(scenario(seed=seed, workload=workload, engine=engine, slo={"ttft_s": 5.0}))
    assert (answer.verdict.state, answer.bound.kind) == ("missed", "turned-away")
    assert re.search(r"Counted as misses: \d+ rejected \(\d+ %\)", answer.verdict.sentence)
    assert "Admission (`limits`) turned away" in answer.bound.sentences[0]
    assert answer.bound.knobs[0].startswith("Send fewer requests")


@FEW
@given(SEEDS, st.floats(0.1, 0.4))
def test_too_long_to_fit(seed: int, part: float):
    """Some prompts are longer than the model takes; the others are served with ease."""
    mixture = [
        {"weight": part, "dist": "fixed", "value": 4000},
        {"weight": 1 - part, "dist": "fixed", "value": 100},
    ]
    workload = {"prompt_tokens": {"dist": "mixture", "components": mixture}, "num_requests": 200}
    found = {**scenario(seed=seed, workload=workload, slo={"ttft_s": 5.0}), "max_model_len": 2000}
    answer = said(found)
    assert answer.bound.kind == "arrivals"
    assert "can never fit and were rejected" in answer.text
    assert any("`max_model_len`" in knob for knob in answer.bound.knobs)


@FEW
@given(SEEDS, st.floats(0.5, 2.0))
def test_clients_that_leave(seed: int, patience_s: float):
    """Hardly any request can be done before its client leaves."""
    workload = {"arrivals": {"process": "all-at-once"}, "timeout_s": patience_s, **lengths(500, 400)}
    answer = said(scenario(seed=seed, workload=workload, engine={"max_num_seqs": 8}))
    assert answer.bound.kind == "unanswered"
    assert "their clients left before the last token" in answer.text
    assert "`workload.timeout_s`" in answer.bound.knobs[0]


@pytest.mark.parametrize(("seed", "clients", "waves"), [(1, 40, 8), (2, 52, 8), (3, 64, 8)])
def test_a_start_that_decides(seed: int, clients: int, waves: int):
    """All clients send at once and wait for one another; after that, one request comes when another goes."""
    workload = {
        "arrivals": {"process": "closed-loop", "concurrency": clients},
        "num_requests": clients * waves,
        "prompt_tokens": {"dist": "fixed", "value": 1000},
        "output_tokens": {"dist": "uniform", "low": 50, "high": 350},
    }
    answer = said(
        scenario(
            seed=seed, workload=workload, engine={"max_num_seqs": 64}, slo={"ttft_s": 0.5, "attainment": 0.95}
        )
    )
    assert answer.verdict.state == "missed"
    assert answer.bound.sentences[0].startswith("The start decided that the SLO was missed: of the first")
    assert f"{clients} of them sent at once" in answer.bound.sentences[0]
    assert "metrics.steady=auto" in answer.bound.knobs[0]


@FEW
@given(SEEDS, st.integers(1, 6))
def test_bound_by_clients(seed: int, clients: int):
    """Fewer clients than slots, and prompts that together fit into one iteration."""
    workload = {"arrivals": {"process": "closed-loop", "concurrency": clients}}
    answer = said(scenario(seed=seed, workload=workload, slo={"ttft_s": 2.0}))
    assert (answer.verdict.state, answer.bound.kind) == ("met", "concurrency")
    assert "hardly any request had to wait" in answer.text
    assert answer.bound.knobs[0] == "Raise `workload.arrivals.concurrency` until requests begin to wait."


@FEW
@given(SEEDS, st.integers(3000, 8000))
def test_prefill_beside_decoding(seed: int, prompt: int):
    """Long prompts in large chunks stand in the way of the decoding of the others."""
    workload = {
        "arrivals": {"process": "closed-loop", "concurrency": 8},
        "num_requests": 60,
        "prompt_tokens": {"dist": "fixed", "value": prompt},
        "output_tokens": {"dist": "uniform", "low": 5, "high": 30},
    }
    answer = said(scenario(seed=seed, workload=workload, slo={"tpot_s": 0.015}))
    assert answer.verdict.state == "missed"
    assert "went by in iterations that also prefill" in answer.text
    assert "A smaller `max_num_batched_tokens`" in answer.bound.knobs[0]


@st.composite
def anything(draw: st.DrawFn) -> dict[str, Any]:
    """A scenario of any load, limits, lengths, patience and bounds."""
    arrivals = draw(
        st.one_of(
            st.just({"process": "all-at-once"}),
            st.builds(
                lambda rate: {"process": "poisson", "rate_rps": rate},
                st.sampled_from([0.2, 3.0, 20.0, 300.0]),
            ),
            st.builds(
                lambda clients: {"process": "closed-loop", "concurrency": clients},
                st.sampled_from([1, 8, 60]),
            ),
        )
    )
    workload = {
        "num_requests": draw(st.sampled_from([1, 20, 150])),
        "arrivals": arrivals,
        "prompt_tokens": {
            "dist": "lognormal",
            "mean": (mean := draw(st.sampled_from([20, 300, 2500]))),
            "p95": 2 * mean,
        },
        "output_tokens": {"dist": "uniform", "low": 1, "high": draw(st.sampled_from([1, 30, 300]))},
    }
    if draw(st.booleans()):
        workload["timeout_s"] = draw(st.sampled_from([0.05, 1.0, 10.0]))
    engine: dict[str, Any] = {
        "max_num_seqs": draw(st.sampled_from([1, 8, 64])),
        "batching": {"policy": draw(st.sampled_from(["chunked-prefill", "prefill-first", "static"]))},
        "max_num_batched_tokens": draw(st.sampled_from([256, 2048, 8192])),
        "num_gpu_blocks": draw(st.sampled_from([None, 400, 1200])),
    }
    if draw(st.booleans()):
        engine["admission"] = {"policy": "limits", "max_queue": draw(st.sampled_from([0, 5]))}
    slo = draw(
        st.dictionaries(
            st.sampled_from(["ttft_s", "tpot_s", "e2e_s"]), st.sampled_from([0.01, 0.1, 2.0]), max_size=3
        )
    )
    found = scenario(seed=draw(SEEDS), workload=workload, engine=engine, **({"slo": slo} if slo else {}))
    if draw(st.booleans()):
        found["metrics"] = draw(
            st.sampled_from([{"steady": "auto"}, {"warmup_s": 0.0, "cooldown_requests": 0}])
        )
    return found


@pytest.mark.slow
@settings(max_examples=examples(30), deadline=None)
@given(anything())
def test_sentences_never_contradict_each_other(drawn: dict[str, Any]):
    with suppress(ScenarioError):  # no request fits, or is let in
        said(drawn)

"""Runs are simulated as they were run: what simulation itself says has no error, and what cannot be run says why."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from fidelity.conftest import BATCHES, COLUMNS, TRACE, unmeasured

from simslm.errors import TraceError, UsageError
from simslm.fidelity.files import content, write_fidelity
from simslm.fidelity.recorded import INTERRUPTED, Fidelity, read_sources, validate

ROW = {"run", "measured", "simulated", "error"}


def off(run, factor):
    return replace(run, measured={name: value * factor for name, value in run.measured.items()})


@pytest.mark.slow
def test_what_simulation_says_itself_has_no_error(exact, sources):
    fidelity = validate(exact, sources)
    assert [each.run for each in fidelity.comparisons] == exact
    assert fidelity.skipped == ()
    for comparison in fidelity.comparisons:
        assert comparison.error == dict.fromkeys((*COLUMNS, "preemptions"), 0.0)


def test_what_is_off_has_that_error(exact, sources):
    fidelity = validate([off(exact[0], 2), off(exact[1], 0.8)], sources)
    low, high = (each.error for each in fidelity.comparisons)
    assert low["itl_mean_s"] == pytest.approx(-0.5)
    assert high["output_tokens_per_s"] == pytest.approx(0.25)


@pytest.mark.slow
def test_several_processes_answer_the_same(exact, sources):
    seen = []
    fidelity = validate(exact, sources, jobs=2, progress=lambda done, total, name: seen.append((done, total)))
    assert fidelity == validate(exact, sources)
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.slow
def test_what_cannot_be_simulated_says_why(exact, sources):
    cases = {
        "another model": unmeasured(4, run="another model", model="opt-350m"),
        "too long": unmeasured(4, run="too long", prompt_tokens="5000"),
        "no lengths": unmeasured(4, run="no lengths", workload="chat"),
        "too wide": unmeasured(4, run="too wide", max_num_batched_tokens="2"),
        "no memory": unmeasured(4, run="no memory", num_gpu_blocks="1000000000"),
    }
    fidelity = validate([*cases.values(), exact[0]], sources)
    assert [each.run.run for each in fidelity.comparisons] == [exact[0].run]
    reasons = {each.run: each.reason for each in fidelity.skipped}
    assert list(reasons) == list(cases)
    assert reasons["another model"] == "no trace of opt-350m on cpu was given"
    assert "none of the 40 requests can be served" in reasons["too long"]
    assert "lengths_file: is empty" in reasons["no lengths"]
    assert "max_num_batched_tokens (2) must be at least max_num_seqs (4)" in reasons["too wide"]
    assert "does not fit" in reasons["no memory"]


def test_a_run_of_which_some_requests_do_not_fit_is_not_compared(exact, sources):
    lengths = ((60, 3000), (10, 10))
    some = replace(exact[0], run="some", lengths=lengths, prompt_tokens=1530.0)
    fidelity = validate([some, exact[0]], sources)
    assert [(each.run, each.reason) for each in fidelity.skipped] == [
        ("some", "20 of its 40 requests cannot be served")
    ]


def test_without_a_trace_for_any_run_nothing_is_simulated(sources):
    with pytest.raises(UsageError, match=r"they are of opt-350m on cpu, the traces of opt-125m on cpu; give"):
        validate([unmeasured(4, model="opt-350m")], sources)


def test_when_no_run_can_be_simulated_the_first_reason_is_said(sources):
    with pytest.raises(UsageError, match=r"not one of 1 runs could be simulated: .*requests can be served"):
        validate([unmeasured(4, prompt_tokens="5000")], sources)


def test_a_model_has_one_trace():
    with pytest.raises(UsageError, match="is of opt-125m on cpu like"):
        read_sources([TRACE, TRACE])


def test_a_missing_trace_is_a_trace_error(tmp_path):
    with pytest.raises(TraceError):
        read_sources([tmp_path / "nothing"])


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_what_is_done_is_kept_when_interrupted(exact, sources, jobs):
    def stop(done: int, total: int, name: str) -> None:
        raise KeyboardInterrupt

    fidelity = validate(exact, sources, jobs=jobs, progress=stop)
    assert fidelity.interrupted
    assert len(fidelity.comparisons) == 1
    assert [each.reason for each in fidelity.skipped] == [INTERRUPTED, INTERRUPTED]


@pytest.mark.slow
def test_the_file_holds_rows_and_summary_by_column(exact, sources, tmp_path: Path):
    fidelity = validate([*exact, unmeasured(4, model="opt-350m", run="other")], sources)
    returned = write_fidelity(tmp_path / "new", fidelity, "simslm validate recorded ...")
    values = json.loads((tmp_path / "new" / "fidelity.json").read_text())
    assert values == returned
    assert values["schema_version"] == 1
    assert [row["run"] for row in values["rows"]] == [f"batch {batch}" for batch in BATCHES]
    for row, run in zip(values["rows"], exact, strict=True):
        assert set(row) == ROW | {"setting", "notes"}
        assert row["measured"] == run.measured
        assert set(row["error"]) == {*COLUMNS, "preemptions"} < set(row["simulated"])
        assert row["setting"]["max_num_seqs"] == run.max_num_seqs
    assert set(values["summary"]) == {*COLUMNS, "preemptions"}
    for figures in values["summary"].values():
        assert figures == {
            "n": 3,
            "median_abs_error": 0,
            "p95_abs_error": 0,
            "max_abs_error": 0,
            "bias": 0,
        }
    assert values["skipped"] == [{"run": "other", "reason": "no trace of opt-350m on cpu was given"}]
    (trace,) = values["traces"]
    assert (trace["model"], trace["source"]) == ("opt-125m", "measured")
    assert len(trace["content_hash"]) == 64


@pytest.mark.slow
def test_knees_and_advice_come_from_the_same_batches(exact, sources):
    wrong = [exact[0], exact[1], off(exact[2], 0.1)]
    values = content(Fidelity(sources, validate(wrong, sources).comparisons, ()), "")
    (curve,) = values["derived"]
    assert curve["max_num_seqs"] == [1, 4, 32]
    assert curve["setting"]["model"] == "opt-125m"
    assert "max_num_seqs" not in curve["setting"]
    right = content(Fidelity(sources, validate(exact, sources).comparisons, ()), "")["derived"][0]
    assert right["knee"]["measured"] == right["knee"]["simulated"] == curve["knee"]["simulated"]
    assert curve["knee"]["measured"] in (1, 4)
    assert [(each["epsilon"], each["latency_factor"]) for each in curve["best_batch"]] == [(0.1, 2), (0.1, 4)]


def test_two_batches_are_no_curve(exact, sources):
    assert content(Fidelity(sources, validate(exact[:2], sources).comparisons, ()), "")["derived"] == []

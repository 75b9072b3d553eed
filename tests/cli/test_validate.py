"""``simslm validate recorded``: what it prints, writes, and ends with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from simslm.cli import validate_recorded
from simslm.cli.interruption import Interruption

TRACE = Path(__file__).parents[2] / "traces" / "cpu" / "opt-125m-bf16"
TABLE = """\
run,model,device,engine,prompt_tokens,output_tokens,num_requests,arrivals,max_num_seqs,batching,num_gpu_blocks,\
max_num_batched_tokens,sm_clock_mhz,output_tokens_per_s,itl_mean_s
slow,opt-125m,cpu,theirs,60,10,20,all-at-once,4,chunked-prefill,2000,512,1600,1,1
fast,opt-125m,cpu,theirs,60,10,20,all-at-once,4,chunked-prefill,2000,512,1980,1000000,1
other,opt-350m,cpu,theirs,60,10,20,all-at-once,4,chunked-prefill,2000,512,1980,2,1
"""


@pytest.fixture
def validate(simslm, here):
    """The command on a table of three runs, one of a model without a trace."""
    (here / "RUNS.csv").write_text(TABLE)

    def run(*arguments: str):
        return simslm("validate", "recorded", "RUNS.csv", "--trace", str(TRACE), "-o", "out", *arguments)

    return run


@pytest.mark.slow
def test_the_answer(validate, here):
    ended = validate()
    assert ended.code == 0
    assert "2 runs simulated as they were run; error = simulated / measured - 1" in ended.out
    assert "output_tokens_per_s     2" in ended.out
    assert "page: out/report.html" in ended.out
    assert (
        "note: opt-125m was served by theirs, but the host time of its trace is that of simslm-engine"
        in ended.err
    )
    assert "skipped: other: no trace of opt-350m on cpu was given" in ended.err
    assert sorted(path.name for path in (here / "out").iterdir()) == ["fidelity.json", "report.html"]
    values = json.loads((here / "out" / "fidelity.json").read_text())
    assert [row["run"] for row in values["rows"]] == ["slow", "fast"]
    assert values["command"] == f"simslm validate recorded RUNS.csv --trace {TRACE} -o out"


def test_where_chooses_runs(validate, here):
    ended = validate("--where", "sm_clock_mhz == 1980", "--json")
    summary = json.loads((here / "out" / "fidelity.json").read_text())["summary"]
    assert json.loads(ended.out) == summary
    assert summary["itl_mean_s"]["n"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("condition", "code"),
    [
        ("itl_mean_s.median_abs_error > 0.01", 1),
        ("itl_mean_s.n == 2 and output_tokens_per_s.max_abs_error > 1", 1),
        ("itl_mean_s.median_abs_error > 1e9", 0),
    ],
)
def test_a_bound_that_is_broken_ends_with_1_and_keeps_the_files(validate, here, condition, code):
    ended = validate("--fail-on", "itl_mean_s.n > 100", "--fail-on", condition)
    assert ended.code == code
    assert (here / "out" / "report.html").exists()
    if code:
        assert f"simslm: --fail-on {condition!r}: itl_mean_s." in ended.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--where", "sm_clock == 1980"), "did you mean 'sm_clock_mhz'?"),
        (("--where", "max_num_seqs > 4"), "holds for none of the 3 runs"),
        (("--where", "model == 'opt-350m'"), "they are of opt-350m on cpu"),
        (("--fail-on", "itl_mean_s.median > 1"), "knows no 'itl_mean_s.median'"),
        (("--set", "max_num_seqs"), "expected column=value"),
        (("--set", "max_num_seq=4"), "did you mean 'max_num_seqs'?"),
        (("--set", "max_num_seqs=none"), "max_num_seqs: expected a whole number"),
    ],
)
def test_what_makes_no_sense_ends_with_2_and_writes_nothing(validate, here, arguments, said):
    ended = validate(*arguments)
    assert ended.code == 2
    assert said in ended.err
    assert not (here / "out").exists()


def test_what_is_done_by_then_is_kept(validate, here, monkeypatch):
    """Ctrl-C while the first run is simulated."""

    @contextmanager
    def pressed() -> Iterator[Interruption]:
        yield Interruption(asked=True)

    monkeypatch.setattr(validate_recorded, "held_back", pressed)
    ended = validate()
    assert ended.code == 130
    assert "interrupted: out holds the 1 runs done by then" in ended.err
    values = json.loads((here / "out" / "fidelity.json").read_text())
    assert [row["run"] for row in values["rows"]] == ["slow"]
    assert values["interrupted"]
    assert {"run": "fast", "reason": "interrupted before it was simulated"} in values["skipped"]


@pytest.mark.slow
def test_a_bound_on_what_was_not_measured_is_not_taken_as_kept(validate):
    ended = validate("--fail-on", "ttft_mean_s.max_abs_error > 0.1")
    assert ended.code == 2
    assert "no run has an error of ttft_mean_s" in ended.err


def test_a_missing_trace_ends_with_3(simslm, here):
    (here / "RUNS.csv").write_text(TABLE)
    ended = simslm("validate", "recorded", "RUNS.csv", "--trace", "nothing", "-o", "out")
    assert ended.code == 3


def test_result_files_stand_in_for_a_table(simslm, here):
    result = {
        "model_id": "facebook/opt-125m",
        "duration": 2.0,
        "completed": 20,
        "num_prompts": 20,
        "request_rate": "inf",
        "total_input_tokens": 1200,
        "total_output_tokens": 200,
        "request_throughput": 10.0,
        "output_throughput": 100.0,
        "mean_itl_ms": 20.0,
    }
    (here / "results").mkdir()
    (here / "results" / "one.json").write_text(json.dumps(result))
    server = (
        "--set",
        "device=cpu",
        "--set",
        "max_num_seqs=4",
        "--set",
        "batching=prefill-first",
        "--set",
        "max_num_batched_tokens=2048",
    )
    ended = simslm("validate", "recorded", "results", "--trace", str(TRACE), "-o", "out", *server)
    assert ended.code == 0
    (row,) = json.loads((here / "out" / "fidelity.json").read_text())["rows"]
    assert row["measured"]["itl_mean_s"] == 0.02
    assert row["setting"]["max_num_seqs"] == 4
    assert row["error"]["duration_s"] is not None

"""``RUNS.csv``: what a row says comes out; what is wrong is named by file, line, column and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from simslm.errors import UsageError
from simslm.runs.table import read_runs


def test_a_row_says_what_was_run_and_what_was_measured(table):
    path = table({"run": "a b", "lengths_file": "lengths.csv", "prompt_tokens": "112.79"})
    (run,) = read_runs(path)
    assert (run.run, run.model, run.device, run.engine) == ("a b", "opt-1.3b", "h200", "vllm-0.6.3-v0")
    assert (run.prompt_tokens, run.output_tokens, run.num_requests) == (112.79, 20, 40)
    assert (run.max_num_seqs, run.max_num_batched_tokens, run.num_gpu_blocks) == (8, 512, 1000)
    assert (run.batching, run.replicas, run.sharing) == ("chunked-prefill", 1, "none")
    assert run.lengths_file == path.parent / "lengths.csv"
    assert run.sm_clock_mhz == 1980
    assert run.where == f"{path}:2"


def test_an_empty_cell_was_not_measured(table):
    (run,) = read_runs(table({"preemptions": "0", "itl_p99_s": " "}))
    assert run.measured == {"output_tokens_per_s": 900.5, "ttft_mean_s": 0.25, "preemptions": 0}


def test_what_need_not_be_said_has_a_default(table):
    optional = ("engine", "workload", "lengths_file", "max_num_batched_tokens", "replicas", "sharing")
    (run,) = read_runs(table({}, without=(*optional, "num_gpu_blocks", "sm_clock_mhz")))
    assert (run.engine, run.workload, run.lengths_file, run.max_num_batched_tokens) == (
        "",
        "fixed",
        None,
        None,
    )
    assert (run.replicas, run.sharing, run.num_gpu_blocks, run.sm_clock_mhz) == (1, "none", None, None)


def test_rows_keep_their_order_and_their_lines(table):
    path = table({"run": "b"}, {"run": "a"})
    path.write_text(path.read_text().replace("\nb,", "\n\nb,"))
    assert [(run.run, run.where) for run in read_runs(path)] == [("b", f"{path}:3"), ("a", f"{path}:4")]


@pytest.mark.parametrize(
    ("column", "text", "said"),
    [
        ("model", "", "model: is empty; give a model of the catalogue"),
        ("prompt_tokens", "0.5", "prompt_tokens: expected a mean number of tokens, 1 or more, found '0.5'"),
        ("prompt_tokens", "nan", "prompt_tokens: expected"),
        ("num_requests", "3.5", "num_requests: expected a whole number, 1 or more, found '3.5'"),
        ("num_requests", "1e400", "num_requests: expected"),
        ("max_num_seqs", "many", "max_num_seqs: expected a whole number, 1 or more, found 'many'"),
        (
            "arrivals",
            "poisson",
            "arrivals: expected all-at-once, poisson:RPS, gamma:RPS:CV, closed-loop:N or recorded",
        ),
        ("arrivals", "poisson:0", "arrivals: expected"),
        ("arrivals", "gamma:2", "arrivals: expected"),
        ("arrivals", "closed-loop:0", "arrivals: expected"),
        ("batching", "continuous", "batching: expected one of prefill-first, chunked-prefill"),
        ("sharing", "MIG", "sharing: expected one of none, mps"),
        ("replicas", "2", "sharing: 2 replicas cannot share a device by none; say how"),
        ("ttft_mean_s", "-1", "ttft_mean_s: expected a number, 0 or more, found '-1'"),
        ("ttft_mean_s", "inf", "ttft_mean_s: expected"),
    ],
)
def test_a_wrong_cell_is_named(table, column, text, said):
    path = table({"run": "first"}, {column: text})
    with pytest.raises(UsageError) as failed:
        read_runs(path)
    assert str(failed.value).startswith(f"{path}:3: {said}")


def test_two_runs_of_one_name_are_refused(table):
    path = table({"run": "a"}, {"run": "b"}, {"run": "a"})
    with pytest.raises(UsageError, match=rf"{path}:4: run: 'a' is the name of {path}:2 too; give it another"):
        read_runs(path)


def test_a_missing_column_is_named_with_the_one_that_may_be_meant(table):
    path = table({"max_num_seq": "8"}, without=("max_num_seqs",))
    with pytest.raises(
        UsageError, match=rf"{path}:1: max_num_seqs: no such column \(did you mean 'max_num_seq'\?\)"
    ):
        read_runs(path)


@pytest.mark.parametrize(
    ("column", "meant"),
    [
        ("ttft_p9_s", "ttft_p99_s"),
        ("preemption", "preemptions"),
        ("max_num_batch_tokens", "max_num_batched_tokens"),
    ],
)
def test_a_misspelt_column_is_not_ignored(table, column, meant):
    path = table({column: "1"}, without=(meant,))
    with pytest.raises(UsageError, match=rf"{path}:1: {column}: unknown column \(did you mean '{meant}'\?\)"):
        read_runs(path)


@pytest.mark.parametrize("column", ["notes", "ttft_p98_s", "gpu_temperature", "date"])
def test_columns_of_ones_own_are_ignored(table, column):
    assert read_runs(table({column: "anything"}))[0].measured == read_runs(table({}))[0].measured


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "run: no such column"),
        (b"run,run\n", "run: is there twice; remove one"),
        (b"\xff\xfe", "cannot be read as CSV in UTF-8"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, text: bytes, said: str):
    path = tmp_path / "RUNS.csv"
    path.write_bytes(text)
    with pytest.raises(UsageError, match=said):
        read_runs(path)


def test_a_table_without_rows_is_refused(table):
    path = table({})
    path.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(UsageError, match="has no rows"):
        read_runs(path)


def test_a_short_row_is_refused(table):
    path = table({})
    path.write_text(path.read_text() + "two,opt-1.3b\n")
    with pytest.raises(UsageError, match=rf"{path}:3: expected 20 cells, found 2"):
        read_runs(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="no such file"):
        read_runs(tmp_path / "nothing.csv")
    with pytest.raises(UsageError, match="cannot be read"):
        read_runs(tmp_path)


def test_the_measured_study_reads(truth: Path):
    runs = read_runs(truth / "h100-vllm" / "runs.csv")
    assert len(runs) == 109
    assert all(run.lengths_file is None or run.lengths_file.is_file() for run in runs)
    assert {run.model for run in runs} == {"opt-2.7b", "llama-2-7b"}
    assert sum(run.sm_clock_mhz == 1605 for run in runs) == 4

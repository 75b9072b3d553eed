"""Reading a run directory: every fault is one clear error that names the file and the remedy."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from simslm.errors import UsageError
from simslm.report.tables import dig, figure_of, read_run

FILES = ["requests.parquet", "iterations.parquet", "summary.json", "manifest.json"]


@pytest.fixture
def copied(quiet_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(quiet_run, tmp_path / "run"))


def fault(directory: Path) -> str:
    with pytest.raises(UsageError) as caught:
        read_run(directory)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_a_run_is_read_as_columns_of_floats(quiet_run: Path):
    run = read_run(quiet_run)
    assert run.name == "quiet"
    assert run.requests["finished"].all()
    assert run.requests["finished"].dtype == bool
    assert all(column.dtype == float for column in run.iterations.values())
    assert len(run.requests["ttft_s"]) == 300


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named_with_the_remedy(copied: Path, name: str):
    (copied / name).unlink()
    message = fault(copied)
    assert str(copied / name) in message
    assert "missing" in message
    assert "simslm simulate" in message


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_named(copied: Path, name: str):
    whole = (copied / name).read_bytes()
    (copied / name).write_bytes(whole[: len(whole) // 2])
    message = fault(copied)
    assert str(copied / name) in message
    assert "not a readable" in message
    assert "\n" not in message


def test_a_missing_column_is_named(copied: Path):
    path = copied / "iterations.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["host_s", "waiting"]), path)
    assert "missing columns: waiting, host_s" in fault(copied)


@pytest.mark.parametrize(("name", "key"), [("summary.json", "throughput"), ("manifest.json", "scenario")])
def test_a_missing_key_is_named(copied: Path, name: str, key: str):
    content = json.loads((copied / name).read_text())
    del content[key]
    (copied / name).write_text(json.dumps(content))
    assert f"missing keys: {key}" in fault(copied)


@pytest.mark.parametrize(
    ("content", "words"), [("[1]", "expected a JSON object"), ('{"scenario": 3}', "not an object")]
)
def test_json_of_another_shape_is_refused(copied: Path, content: str, words: str):
    (copied / "manifest.json").write_text(content)
    assert words in fault(copied)


def test_a_directory_that_is_not_there(tmp_path: Path):
    assert "no such run directory" in fault(tmp_path / "nowhere")


def test_status_other_than_finished_and_nulls(copied: Path):
    path = copied / "requests.parquet"
    table = pq.read_table(path)
    status = table["status"].to_pylist()
    status[0] = "rejected"
    ttft = table["ttft_s"].to_pylist()
    ttft[0] = None
    table = (
        table.drop_columns(["status", "ttft_s"])
        .append_column("status", [status])
        .append_column("ttft_s", [ttft])
    )
    pq.write_table(table, path)
    run = read_run(copied)
    assert not run.requests["finished"][0]
    assert np.isnan(run.requests["ttft_s"][0])


def test_the_page_needs_no_optional_manifest_key(make_run: Callable[..., Path]):
    from simslm.report import render_run

    directory = make_run(name="bare")
    manifest = json.loads((directory / "manifest.json").read_text())
    (directory / "manifest.json").write_text(json.dumps({"scenario": {"slo": manifest["scenario"]["slo"]}}))
    assert "does not say where the latencies come from" in render_run(directory)


def test_dig_and_figure_of_take_what_is_there():
    tree = {"a": {"b": 2, "c": None, "d": True, "e": float("nan"), "f": "x"}}
    assert dig(tree, "a.b") == 2
    assert dig(tree, "a.c", "other") == "other"
    assert dig(tree, "a.b.c", "other") == "other"
    assert figure_of(tree, "a.b") == 2.0
    assert [figure_of(tree, f"a.{key}") for key in "cdef"] == [None] * 4

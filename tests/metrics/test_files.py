"""The files of a run: written whole, typed even where nothing ran, and gone without a trace where the run fails."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from simslm.api import load_scenario, simulate
from simslm.errors import UsageError
from simslm.metrics.files import RunWriter, write_json
from simslm.metrics.result import Result
from simslm.metrics.whole import write_whole


@pytest.fixture
def result(small) -> Result:
    return simulate(load_scenario(small))


def write(result: Result, directory: Path, windows: bool = True) -> None:
    with RunWriter(directory) as writer:
        for window in result.windows if windows else ():
            writer.take(*window)
        writer.finish(result)


def test_a_run_without_an_iteration_has_the_same_columns(result, tmp_path):
    write(result, tmp_path / "some")
    write(result, tmp_path / "none", windows=False)
    some, none = (pq.read_table(tmp_path / name / "iterations.parquet") for name in ("some", "none"))
    assert none.num_rows == 0 < some.num_rows
    assert none.schema == some.schema


def begin_and_stop(result: Result, directory: Path) -> None:
    with RunWriter(directory) as writer:
        writer.take(*result.windows[0])
        assert any(directory.iterdir())
        raise KeyboardInterrupt


@pytest.mark.parametrize("there", ["", "some", "some/where"])
def test_a_run_that_fails_leaves_no_directory_it_made(result, tmp_path, there):
    (tmp_path / there).mkdir(parents=True, exist_ok=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(KeyboardInterrupt):
        begin_and_stop(result, tmp_path / "some" / "where" / "deep")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_place_that_cannot_be_made_is_refused_and_left(result, tmp_path):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    for act in (lambda writer: writer.take(*result.windows[0]), lambda writer: writer.finish(result)):
        with (
            pytest.raises(UsageError, match="cannot be written"),
            RunWriter(tmp_path / "file" / "deep") as writer,
        ):
            act(writer)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_file_is_there_whole_or_not_at_all(tmp_path, error):
    path = tmp_path / "page.html"
    path.write_text("old", encoding="utf-8")

    def half(temporary: Path) -> None:
        temporary.write_text("ne", encoding="utf-8")
        raise error

    with pytest.raises((UsageError, KeyboardInterrupt)):
        write_whole(path, half)
    assert [(each.name, each.read_text(encoding="utf-8")) for each in tmp_path.iterdir()] == [
        ("page.html", "old")
    ]
    write_json(path, {"new": 1})
    assert path.read_text(encoding="utf-8") == '{\n  "new": 1\n}\n'

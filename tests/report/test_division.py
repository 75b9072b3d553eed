"""A run by class and by program, on the screen and on the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from simslm.api import load_scenario, simulate
from simslm.metrics.files import RunWriter
from simslm.report import write_report
from simslm.report.division import Division, divisions
from simslm.report.objective import class_objectives, stated_bounds
from simslm.report.tables import RunTables, read_run
from simslm.report.verdict import verdict

CHAT = {"kind": "conversation", "turns": 3, "think_time_s": 0.5}


@pytest.fixture
def make(small, tmp_path):
    """Runs the small scenario with other classes or programs, and reads what it has left."""

    def run(**workload) -> RunTables:
        small["workload"] |= workload
        with RunWriter(tmp_path / "run") as writer:
            writer.finish(simulate(load_scenario(small), sink=writer))
        return read_run(tmp_path / "run")

    return run


def page(directory: Path) -> str:
    return write_report([directory]).read_text(encoding="utf-8")


def only(found: list[Division]) -> Division:
    (one,) = found
    return one


def test_a_run_without_either_has_no_such_table(make, tmp_path):
    assert not divisions(make())
    assert "By class" not in page(tmp_path / "run")


def test_classes_are_rows(make, tmp_path):
    run = make(classes={"chat": {"slo": {"ttft_s": 1e-9, "attainment": 0.5}}, "batch": {}})
    found = only(divisions(run))
    assert [row[0] for row in found.rows] == ["chat", "batch"]
    assert {len(row) for row in found.rows} == {len(found.columns)}
    chat = dict(zip(found.columns, found.rows[0], strict=True))
    assert (chat["SLO attainment"], chat["attainment asked"]) == ("0.0 %", "50 %")
    assert int(chat["Arrived"]) + int(found.rows[1][1]) == 50
    text = page(tmp_path / "run")
    assert text.count('id="run-1-classes"') == 1
    assert "Jain’s index" in text


def test_the_verdict_is_that_of_every_class(make):
    """Where classes have bounds of their own no bound holds for all requests, and one class is enough to miss."""
    run = make(classes={"chat": {"slo": {"ttft_s": 1e-9, "attainment": 0.5}}, "batch": {}})
    assert [(name, asked) for name, _, asked in class_objectives(run)] == [("chat", 0.5), ("batch", 0.9)]
    assert not stated_bounds(run)
    assert verdict(run).state == "missed"
    assert "0.0 % of chat kept its bounds (50 % asked)" in verdict(run).sentence
    loose = make(classes={"chat": {"slo": {"ttft_s": 100.0}}, "batch": {"slo": {"e2e_s": 1000.0}}})
    assert verdict(loose).state == ("met" if not loose.requests["rejected"].mean() > 0.1 else "missed")


def test_classes_without_bounds_of_their_own_share_those_of_the_scenario(make):
    run = make(classes={"chat": {}, "batch": {}})
    assert not class_objectives(run)
    assert set(stated_bounds(run)) == {"ttft_s", "tpot_s"}


def test_programs_are_a_table_of_their_times(make, tmp_path):
    run = make(programs=CHAT)
    found = only(divisions(run))
    assert [row[0] for row in found.rows] == ["JCT", "Active time"]
    assert found.sentences[0].startswith("50 programs arrived, ")
    assert 'id="run-1-programs"' in page(tmp_path / "run")


def test_programs_by_class(make):
    """Requests by themselves are programs of one request."""
    run = make(classes={"chat": {"programs": CHAT}, "single": {}})
    _, programs = divisions(run)
    assert [row[0] for row in programs.rows] == [
        f"{name}, {part}" for name in ("JCT", "Active time") for part in ("all", "chat", "single")
    ]


def test_lost_requests_are_said(make):
    run = make(programs=CHAT | {"turns": 30}, prompt_tokens={"dist": "fixed", "value": 200})
    sentence = only(divisions(run)).sentences[0]
    assert " failed; " in sentence
    assert "of their requests were never sent" in sentence

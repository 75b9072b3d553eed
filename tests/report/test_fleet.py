"""What a control plane did: in the files, on the screen, on the page and in the timeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from simslm.api import load_scenario, simulate
from simslm.metrics.files import RunWriter
from simslm.report import write_report
from simslm.report.bound import bound
from simslm.report.facts import facts
from simslm.report.fleet import control_plane, up_replicas
from simslm.report.moves import between_phases
from simslm.report.slowest import lives
from simslm.report.tables import RunTables, read_run
from simslm.timeline import write_timeline

FAILS = {"policy": "schedule", "at": [{"at_s": 0.5, "replica": 0, "down_s": 1.0}]}


@pytest.fixture
def make(small, tmp_path):
    """Runs the small scenario under a control plane."""

    def run(**deployment: Any) -> RunTables:
        small["deployment"] = deployment
        with RunWriter(tmp_path / "run") as writer:
            writer.finish(simulate(load_scenario(small), sink=writer))
        return read_run(tmp_path / "run")

    return run


def rows(directory: Path, name: str) -> list[dict[str, Any]]:
    return pq.read_table(directory / "run" / f"{name}.parquet").to_pylist()


def test_a_run_without_a_control_plane_has_no_lifetimes(make, tmp_path):
    make(num_devices=2, faults=FAILS)
    assert (tmp_path / "run" / "lifetimes.parquet").exists()
    run = make(num_devices=2)
    assert not (tmp_path / "run" / "lifetimes.parquet").exists()
    assert run.lifetimes is run.clocks is None
    assert not control_plane(run)
    assert up_replicas(run) == facts(run).up == 2


def test_lifetimes_fill_the_run_without_gaps(make, tmp_path):
    run = make(
        num_devices=2,
        faults=FAILS,
        scaling={"policy": "horizontal", "target": 2, "every_s": 0.3, "start_s": 0.4},
    )
    end_s = float(np.max(run.iterations["start_s"] + run.iterations["duration_s"]))
    for replica in (0, 1):
        mine = [row for row in rows(tmp_path, "lifetimes") if row["replica"] == replica]
        assert [row["to_s"] for row in mine[:-1]] == [row["from_s"] for row in mine[1:]]
        assert (mine[0]["from_s"], mine[-1]["to_s"]) == (0.0, pytest.approx(end_s))


def test_the_table_adds_up_and_says_what_happened(make, tmp_path):
    run = make(num_devices=2, faults=FAILS)
    (table,) = control_plane(run)
    assert table.columns == ("", "serving", "failed", "faults")
    assert [row[0] for row in table.rows] == ["replica 0", "replica 1"]
    assert [row[-1] for row in table.rows] == ["1", "0"]
    assert table.rows[1][2] == "0 ms"
    assert "of 2 replicas could serve on average, at most 2 at once" in table.sentences[0]
    assert "1 fault" in table.sentences[1]
    page = write_report([tmp_path / "run"]).read_text(encoding="utf-8")
    assert "Replicas over time" in page
    assert "is being repaired" in page


def test_shares_of_time_are_of_the_replicas_that_could_serve(make):
    run = make(num_devices=2, faults=FAILS)
    found = facts(run)
    up = run.summary["fleet"]["mean_replicas"]
    assert found.up == pytest.approx(up)
    assert found.split.total_s == pytest.approx(up * run.summary["makespan_s"])
    assert "The replicas that could serve, " in " ".join(bound(found).sentences)


@pytest.fixture
def failing(small) -> dict[str, Any]:
    """A fault while a request decodes."""
    columns = simulate(load_scenario(small), with_intervals=False).request_columns
    longest = np.argmax(columns["output_tokens"])
    at_s = float(columns["first_token_s"][longest] + columns["finish_s"][longest]) / 2
    return {"policy": "schedule", "at": [{"at_s": at_s, "down_s": 1.0}]}


def test_requests_that_wait_for_a_replica_are_told_so(make, failing):
    """The only replica is down for 1 s: its requests leave it, wait, and come back to it."""
    run = make(faults=failing)
    assert run.moves is not None
    kinds = {"failure": "a replica", "held": "no replica"}
    (table,) = between_phases(run)
    assert {row[0]: row[1] for row in table.rows} == kinds
    assert run.summary["fleet"]["held"] == int(np.sum(run.moves["kind"] == "held"))
    told = [words for life in lives(run) for event, words in life.events if event == "moved"]
    assert any("off its replica, to wait for one that serves" in words for words in told)


def test_the_timeline_has_a_track_of_each_lifetime(make, failing, tmp_path):
    make(faults=failing)
    events = json.loads(write_timeline(tmp_path / "run").read_text(encoding="utf-8"))["traceEvents"]
    slices = [event for event in events if event.get("cat") == "lifetime"]
    assert [event["name"] for event in slices] == ["serving", "failed", "serving"]
    assert all(event["dur"] > 0 for event in slices)
    moved = {event["name"] for event in events if event.get("cat") == "move"}
    assert moved == {"failure to wait for a replica", "held to replica 0"}


OFTEN = {
    "policy": "schedule",
    "at": [{"at_s": 0.2 * each, "replica": 0, "down_s": 0.05} for each in range(1, 400)],
}


@pytest.mark.parametrize("requests", ["recompute", "fail"])
def test_what_faults_took_is_laid_to_them(small, make, requests):
    """Each fault takes what running requests had computed: no storm of preemptions, and no impatient clients."""
    small["workload"] |= {"num_requests": 150, "prompt_tokens": {"dist": "fixed", "value": 1500}}
    run = make(faults={**OFTEN, "requests": requests})
    found = facts(run)
    fleet = run.summary["fleet"]
    assert found.faults == fleet["failures"] > 10
    assert fleet["lost_work"] == run.summary["kv"]["preemptions"] == found.preemptions > 0
    assert "note" not in run.summary["kv"]
    said = " ".join(bound(found).sentences)
    assert "preemption storm" not in said
    assert "clients left" not in said
    if requests == "fail":
        failed = run.summary["requests"]["failed"]
        assert fleet["killed"] == failed > 0
        assert "of the requests failed: their replicas did" in said
        assert not any("timeout_s" in knob for knob in bound(found).knobs)
    else:
        assert fleet["killed"] == 0
        assert found.recomputed > 0.2
        assert bound(found).kind == "faults"

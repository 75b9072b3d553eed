"""Requests that go from one replica to another, and splits of a device: in the files, on the screen and on the page."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from simslm.api import load_scenario, simulate
from simslm.metrics.files import RunWriter
from simslm.report import write_report
from simslm.report.moves import between_phases
from simslm.report.slowest import lives
from simslm.report.tables import RunTables, read_run
from simslm.units import seconds

ROLES = ("prefill", "decode")


@pytest.fixture
def make(small, tmp_path):
    """Runs the small scenario on a prefill and a decode replica with blocks of their own."""

    def run() -> RunTables:
        small["deployment"] = {
            "num_devices": 2,
            "groups": [{"name": role, "role": role, "devices": [i]} for i, role in enumerate(ROLES)],
        }
        with RunWriter(tmp_path / "run") as writer:
            writer.finish(simulate(load_scenario(small), sink=writer))
        return read_run(tmp_path / "run")

    return run


def test_a_directory_keeps_nothing_of_an_earlier_run(small, tmp_path):
    deployments = (
        {
            "num_devices": 2,
            "groups": [{"name": role, "role": role, "devices": [i]} for i, role in enumerate(ROLES)],
        },
        {},
    )
    for deployment in deployments:
        small["deployment"] = deployment
        with RunWriter(tmp_path / "run") as writer:
            writer.finish(simulate(load_scenario(small), sink=writer))
        assert (tmp_path / "run" / "moves.parquet").exists() == bool(deployment)
    run = read_run(tmp_path / "run")
    assert run.moves is None
    assert not between_phases(run)
    assert "Between replicas" not in write_report([tmp_path / "run"]).read_text(encoding="utf-8")


def test_every_request_with_two_tokens_is_handed_over_when_its_first_is_out(make):
    run = make()
    assert run.moves is not None
    longer = np.flatnonzero(run.requests["output_tokens"] > 1)
    handed = dict(zip(run.moves["request_id"].tolist(), run.moves["at_s"].tolist(), strict=True))
    assert handed == {int(run.requests["request_id"][i]): run.requests["first_token_s"][i] for i in longer}
    assert set(zip(run.moves["kind"], run.moves["source"], run.moves["target"], strict=True)) == {
        ("hand-over", 0, 1)
    }


def test_the_table_counts_moves_and_measures_the_wait_until_the_next_iteration(make, tmp_path):
    run = make()
    moves, stages = run.moves, run.stages
    assert moves is not None
    assert stages is not None
    (table,) = between_phases(run)
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert [row[name] for name in ("move", "from", "to", "times")] == [
        "hand-over", "prefill", "decode", str(len(moves["at_s"])),
    ]  # fmt: skip
    begun = {
        int(r): s
        for r, s, d in zip(stages["request_id"], stages["start_s"], stages["decode"], strict=True)
        if d
    }
    waits = [begun[int(r)] - at for r, at in zip(moves["request_id"], moves["at_s"], strict=True)]
    assert row["wait p50"] == seconds(float(np.quantile(waits, 0.5)))
    assert row["wait p99"] == seconds(float(np.quantile(waits, 0.99)))
    assert "Between replicas" in write_report([tmp_path / "run"]).read_text(encoding="utf-8")


def test_a_move_after_which_nothing_ran_has_no_wait(make):
    run = make()
    assert run.stages is not None
    rows = run.stages["decode"]
    (table,) = between_phases(
        replace(run, stages={name: column[~rows] for name, column in run.stages.items()})
    )
    assert table.rows[0][-2:] == ["–", "–"]


def test_the_life_of_a_request_says_where_it_went(make):
    events = [dict(life.events) for life in lives(make())]
    assert any(each.get("moved", "").endswith("to replica 1") for each in events)
    assert all("on replica 0" in each["scheduled"] for each in events)


def test_a_split_that_moves_is_told_with_its_mean_over_time(small, tmp_path):
    small["deployment"] = {
        "sharing": "sm-partition",
        "partition": {"policy": "slo-aware", "window": 5},
        "groups": [{"name": role, "role": role, "kv_pool": "both", "sm_fraction": 0.5} for role in ROLES],
    }
    small["slo"] = {"ttft_s": 100.0, "tpot_s": 0.001}
    with RunWriter(tmp_path / "run") as writer:
        writer.finish(simulate(load_scenario(small), sink=writer))
    run = read_run(tmp_path / "run")
    rows = pq.read_table(tmp_path / "run" / "splits.parquet").to_pylist()
    _, table = between_phases(run)
    decode = dict(zip(table.columns, table.rows[1], strict=True))
    assert decode["at first"] == "50 %"
    assert decode["at last"] == f"{100 * rows[-1]['decode']:.0f} %"
    assert decode["changes"] == str(len(rows) - 1) != "0"
    ends = [
        *(row["from_s"] for row in rows[1:]),
        float((run.iterations["start_s"] + run.iterations["duration_s"]).max()),
    ]
    lasted = [end - row["from_s"] for row, end in zip(rows, ends, strict=True)]
    mean = sum(row["decode"] * each for row, each in zip(rows, lasted, strict=True)) / sum(lasted)
    assert decode["mean"] == f"{100 * mean:.0f} %"

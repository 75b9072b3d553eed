"""The file keeps the rules of the trace event format, whatever happened in the run."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import pyarrow.parquet as pq
import pytest

import simslm
from simslm.errors import UsageError
from simslm.metrics.files import RunWriter
from simslm.timeline import file, write_timeline

PHASES = {"M", "X", "C", "b", "e", "i"}
METADATA = {"process_name", "process_sort_index", "thread_name"}


def check_rules(trace: dict[str, Any]) -> None:
    """What "Trace Event Format" asks of the events that we write.

    Every event has a phase, a process and, but for metadata, a time; complete events of a thread do not overlap;
    counters of a process go forward in time with numbers; nestable asynchronous events of one category and id
    begin before they end, close in the order opposite to that in which they opened, and all close.
    """
    assert trace["displayTimeUnit"] in ("ms", "ns")
    named, ends, counted = set(), defaultdict(float), defaultdict(float)
    open_spans: dict[tuple[str, str], list[tuple[str, float, int]]] = defaultdict(list)
    closed = set()
    for event in trace["traceEvents"]:
        assert event["ph"] in PHASES
        pid = event["pid"]
        assert pid > 0
        if event["ph"] == "M":
            assert event["name"] in METADATA
            named.add((event["name"], pid))
            continue
        assert ("process_name", pid) in named
        assert event["ts"] >= 0
        if event["ph"] == "X":
            assert ("thread_name", pid) in named
            assert event["dur"] >= 0
            assert event["ts"] >= ends[pid, event["tid"]] - 1e-6
            ends[pid, event["tid"]] = event["ts"] + event["dur"]
        elif event["ph"] == "C":
            assert event["ts"] >= counted[pid, event["name"]]
            counted[pid, event["name"]] = event["ts"]
            assert all(isinstance(value, int | float) for value in event["args"].values())
        elif event["ph"] == "i":
            assert event["s"] in {"g", "p", "t"}
        else:
            key = (event["cat"], event["id"])
            assert key not in closed, "an id is one request's"
            if event["ph"] == "b":
                open_spans[key].append((event["name"], event["ts"], pid))
            else:
                name, begun, owner = open_spans[key].pop()
                assert (name, owner) == (event["name"], pid)
                assert event["ts"] >= begun
                if not open_spans[key]:
                    closed.add(key)
    assert not any(open_spans.values())


def run(directory, scenario, **options):
    """Simulates a scenario into a directory."""
    path = directory / "scenario.yaml"
    path.write_text(json.dumps(scenario), encoding="utf-8")
    with RunWriter(directory / "run") as writer:
        result = simslm.simulate(simslm.load_scenario(path), sink=writer, with_intervals=False, **options)
        writer.finish(result)
    return directory / "run"


def written(directory) -> dict[str, Any]:
    return json.loads(write_timeline(directory).read_text(encoding="utf-8"))


TWO_PHASES = {
    "sharing": "sm-partition",
    "partition": {"policy": "slo-aware", "window": 5},
    "groups": [
        {"name": name, "role": name, "kv_pool": "both", "engine": {"max_num_seqs": 8}}
        for name in ("prefill", "decode")
    ],
}
CASES: dict[str, dict[str, Any]] = {
    "two phases": {"deployment": TWO_PHASES, "slo": {"tpot_s": 0.001}},
    "plain": {},
    "gateway and cascade": {
        "workload": {
            "prefixes": {"count": 3, "share": 0.8, "tokens": 64},
            "prompt_tokens": {"dist": "fixed", "value": 64},
        },
        "deployment": {
            "sharing": "mps",
            "gateway": "response-cache",
            "group_router": "cascade",
            "groups": [{"name": "small"}, {"name": "large"}],
        },
    },
    "one request": {"workload": {"num_requests": 1}},
    "at once": {"workload": {"arrivals": {"process": "all-at-once"}}},
    "shared device": {"deployment": {"replicas_per_device": 3, "sharing": "mps"}},
    "preemption": {"deployment": {"engine": {"num_gpu_blocks": 12, "max_num_seqs": 8}}},
    "clients leave": {"workload": {"timeout_s": 0.02}},
    "some are turned away": {
        "deployment": {"engine": {"max_num_seqs": 1, "admission": {"policy": "limits", "max_queue": 1}}}
    },
}


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    found = dict(below)
    for key, value in above.items():
        part = isinstance(value, dict) and key != "arrivals" and "dist" not in value
        found[key] = merged(found.get(key) or {}, value) if part else value
    return found


@pytest.mark.slow
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_the_rules_of_the_format_are_kept(tmp_path, small, monkeypatch, case, together):
    if together:
        monkeypatch.setattr(file, "EACH", 0)
    directory = run(tmp_path, merged(small, CASES[case]))
    trace = written(directory)
    check_rules(trace)
    rows = pq.read_table(directory / "iterations.parquet").to_pylist()
    slices = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert sum(event["args"].get("iterations", 1) for event in slices) == len(rows)
    assert sum(event["dur"] for event in slices) == pytest.approx(
        1e6 * sum(row["duration_s"] for row in rows), rel=1e-4
    )
    requests = pq.read_table(directory / "requests.parquet").to_pylist()
    begun = [event for event in trace["traceEvents"] if event["ph"] == "b" and event["name"] == "request"]
    assert {event["args"]["request_id"] for event in begun} == {
        row["request_id"] for row in requests if row["replica"] is not None or row["status"] == "finished"
    }
    if case == "gateway and cascade":
        assert {event["name"] for event in trace["traceEvents"] if event["ph"] == "i"} == {
            "escalation to replica 1"
        }
        assert any(row["replica"] is None for row in requests)
    assert ("one slice" in trace["otherData"]["slices"]) == together


def test_hand_overs_and_splits_are_events(tmp_path, small):
    directory = run(tmp_path, merged(small, CASES["two phases"]))
    events = written(directory)["traceEvents"]
    moves, splits = (pq.read_table(directory / f"{name}.parquet").to_pylist() for name in ("moves", "splits"))
    instants = [event for event in events if event["ph"] == "i"]
    assert [(event["args"]["request_id"], event["name"]) for event in instants] == [
        (row["request_id"], f"hand-over to replica {row['target']}") for row in moves
    ]
    assert len(splits) > 1
    counters = [event for event in events if event["name"] == "SM share"]
    assert [event["args"] for event in counters] == [
        {key: row[key] for key in ("prefill", "decode")} for row in splits
    ]
    assert [event["ts"] for event in counters] == pytest.approx([1e6 * row["from_s"] for row in splits])


def test_rules_that_are_broken_are_seen(tmp_path, small):
    trace = written(run(tmp_path, small))
    ends = [i for i, event in enumerate(trace["traceEvents"]) if event["ph"] == "e"]
    del trace["traceEvents"][ends[0]]
    with pytest.raises((AssertionError, IndexError)):
        check_rules(trace)


def test_an_interrupted_run_has_a_timeline(tmp_path, small):
    directory = run(
        tmp_path, merged(small, {"workload": {"num_requests": 200}}), on_start=lambda halt: halt()
    )
    check_rules(written(directory))


def test_the_same_run_gives_the_same_bytes(tmp_path, small):
    directory = run(tmp_path, small)
    first = write_timeline(directory).read_bytes()
    assert write_timeline(directory, tmp_path / "again.json").read_bytes() == first


def test_it_is_whole_or_not_there(tmp_path, small, monkeypatch):
    directory = run(tmp_path, small)

    def fail(*_row):
        raise RuntimeError

    monkeypatch.setattr(file, "request_events", fail)
    with pytest.raises(RuntimeError):
        write_timeline(directory)
    assert not list(directory.glob("*timeline*"))
    assert not list(directory.glob(".*"))


@pytest.mark.parametrize("name", ["iterations.parquet", "requests.parquet", "summary.json", "manifest.json"])
def test_a_file_that_is_missing_or_damaged_is_named(tmp_path, small, name):
    directory = run(tmp_path, small)
    (directory / name).write_bytes(b"{")
    with pytest.raises(UsageError, match=name):
        write_timeline(directory)
    (directory / name).unlink()
    with pytest.raises(UsageError, match="is missing"):
        write_timeline(directory)

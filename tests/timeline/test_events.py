"""Rows become trace events: none lost, none overlapping, counters only where they change."""

from __future__ import annotations

from typing import Any

import pytest

from simslm.timeline.events import ReplicaTrack, request_events

ROW: dict[str, Any] = {
    "replica": 0, "host_s": 1e-3, "decode_seqs": 2, "decode_ctx_tokens": 100, "prefill_seqs": 0, "prefill_tokens": 0,
    "prefill_ctx_tokens": 0, "waiting": 0, "running": 2, "kv_blocks_used": 8, "power_w": 100.0,
}  # fmt: skip


def iterations(track: ReplicaTrack, *rows: dict[str, Any]):
    events = [event for row in rows for event in track.take(ROW | row)]
    return [*events, *track.close()]


def slices(events):
    return [(event["name"], event["ts"], event["dur"]) for event in events if event["ph"] == "X"]


def counter(events, name):
    return [
        (event["ts"], *event["args"].values())
        for event in events
        if event["ph"] == "C" and event["name"] == name
    ]


@pytest.mark.parametrize("together", [True, False])
def test_iterations_in_a_row_share_a_slice_only_when_asked_to(together):
    rows = [{"start_s": 0.01 * i, "duration_s": 0.01} for i in range(5)]
    events = iterations(ReplicaTrack(0, 50.0, together), *rows)
    found = slices(events)
    assert len(found) == (1 if together else 5)
    assert sum(duration for *_, duration in found) == pytest.approx(50_000)
    if together:
        assert [event["args"]["iterations"] for event in events if event["ph"] == "X"] == [5]


def test_another_batch_a_prompt_or_a_gap_ends_a_shared_slice():
    rows = [
        {"start_s": 0.00, "duration_s": 0.01},
        {"start_s": 0.01, "duration_s": 0.01, "decode_seqs": 3},
        {"start_s": 0.02, "duration_s": 0.01, "decode_seqs": 3, "prefill_tokens": 5},
        {"start_s": 0.03, "duration_s": 0.01, "decode_seqs": 3},
        {"start_s": 0.05, "duration_s": 0.01, "decode_seqs": 3},
        {"start_s": 0.06, "duration_s": 0.01, "decode_seqs": 0, "prefill_tokens": 9},
    ]
    names = [name for name, *_ in slices(iterations(ReplicaTrack(0, None, True), *rows))]
    assert names == ["decode", "decode", "prefill + decode", "decode", "decode", "prefill"]


def test_counters_change_only_and_fall_while_idle():
    rows = [
        {"start_s": 0.0, "duration_s": 0.01},
        {"start_s": 0.01, "duration_s": 0.01},
        {"start_s": 1.0, "duration_s": 0.01, "waiting": 1},
    ]
    events = iterations(ReplicaTrack(0, 50.0, False), *rows)
    assert counter(events, "running") == [(0, 2), (20_000, 0), (1_000_000, 2), (1_010_000, 0)]
    assert counter(events, "waiting") == [(0, 0), (1_000_000, 1), (1_010_000, 0)]
    assert counter(events, "power") == [(0, 100.0), (20_000, 50.0), (1_000_000, 100.0), (1_010_000, 50.0)]


def test_unknown_power_is_no_counter():
    events = iterations(ReplicaTrack(0, None, False), {"start_s": 0.0, "duration_s": 0.01, "power_w": None})
    assert counter(events, "power") == []
    assert all("power_w" not in event["args"] for event in events if event["ph"] == "X")


def test_a_rounding_error_makes_no_overlap():
    rows = [{"start_s": 0.1, "duration_s": 0.2 + 1e-12}, {"start_s": 0.3, "duration_s": 0.1}]
    (_, first, duration), (_, second, _) = slices(iterations(ReplicaTrack(0, None, False), *rows))
    assert first + duration <= second


def life(**row):
    request = {
        "request_id": 7, "replica": 1, "arrival_s": 1.0, "first_scheduled_s": None, "first_token_s": None,
        "finish_s": None, "prompt_tokens": 5, "output_tokens": 2, "cached_prompt_tokens": 0, "preemptions": 0,
        "status": "finished",
    }  # fmt: skip
    events = list(request_events(request | row, 9.0))
    return [(event["ph"], event["name"], event["ts"] / 1e6) for event in events]


def test_the_phases_of_a_request_lie_inside_it():
    found = life(first_scheduled_s=2.0, first_token_s=3.0, finish_s=5.0)
    assert found == [
        ("b", "request", 1.0),
        ("b", "queue", 1.0), ("e", "queue", 2.0),
        ("b", "prefill", 2.0), ("e", "prefill", 3.0),
        ("b", "decode", 3.0), ("e", "decode", 5.0),
        ("e", "request", 5.0),
    ]  # fmt: skip


def test_a_request_under_way_lasts_to_the_end_of_the_run():
    assert life(status="unfinished")[-2:] == [("e", "queue", 9.0), ("e", "request", 9.0)]
    found = life(status="unfinished", first_scheduled_s=2.0, first_token_s=3.0)
    assert found[-2:] == [("e", "decode", 9.0), ("e", "request", 9.0)]


def test_a_request_whose_client_left_ends_where_it_was_last_seen():
    assert life(status="failed")[-1] == ("e", "request", 1.0)
    assert life(status="failed", first_scheduled_s=2.0)[-2:] == [("e", "queue", 2.0), ("e", "request", 2.0)]

"""The slowest requests are those, and their lives are what the files say of them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from simslm.report.slowest import MOST, Life, lives, rankings, slowest
from simslm.report.tables import RunTables, read_run


@pytest.fixture(scope="module")
def run(make_run: Callable[..., Path]) -> RunTables:
    return read_run(
        make_run(name="slow", rate_rps=60, max_num_batched_tokens=96, max_num_seqs=24, replicas=2)
    )


def test_the_slowest_come_first_and_earlier_ones_before_later(run: RunTables):
    assert slowest(np.array([1.0, np.nan, 3.0, 3.0, 2.0])) == [2, 3, 4, 0]
    by_e2e, by_ttft, by_tpot = rankings(run)
    assert [ranking.key for ranking in (by_e2e, by_ttft, by_tpot)] == ["e2e_s", "ttft_s", "tpot_s"]
    for ranking in (by_e2e, by_ttft, by_tpot):
        values = run.requests[ranking.key]
        assert sorted(values)[::-1][:MOST] == [values[request] for request, _ in ranking.rows]


def test_every_ranked_request_has_a_life(run: RunTables):
    ranked = {request for ranking in rankings(run) for request, _ in ranking.rows}
    assert {life.request_id for life in lives(run)} == ranked


def check(run: RunTables, life: Life) -> None:
    row = {name: column[life.request_id] for name, column in run.requests.items()}
    assert life.segments[0].start_s == 0
    for one, other in zip(life.segments, life.segments[1:], strict=False):
        assert one.end_s == pytest.approx(other.start_s, abs=1e-9)
    assert life.segments[-1].end_s == pytest.approx(row["e2e_s"])
    assert life.segments[0].kind == "queue"
    assert life.segments[0].end_s == pytest.approx(row["queue_s"])


def test_a_life_has_no_gaps_and_its_known_times(run: RunTables):
    for life in lives(run):
        check(run, life)
        names = [name for name, _ in life.events]
        assert names == ["arrived", "scheduled", "first token", "finished"]
        pieces = sum(each.pieces for each in life.segments if each.kind == "prefill")
        assert f"in {pieces} piece" in life.events[2][1]


def test_a_life_without_stages_has_what_its_row_says(run: RunTables):
    for life in lives(replace(run, stages=None)):
        check(run, life)
        assert [each.kind for each in life.segments] == ["queue", "prefill and wait", "decode and wait"]


def test_what_its_replica_did_meanwhile_is_an_average_of_its_iterations(run: RunTables):
    life = lives(run)[0]
    log = run.iterations
    end = log["start_s"] + log["duration_s"]
    first, last = life.arrival_s, life.arrival_s + life.edges_s[-1]
    seen = np.clip(np.minimum(end, last) - np.maximum(log["start_s"], first), 0, None)
    seen *= log["replica"] == life.replica
    width = np.diff(life.edges_s)
    assert np.sum(life.decoding * width) == pytest.approx(np.sum(log["decode_seqs"] * seen))
    assert np.sum(life.waiting * width) == pytest.approx(np.sum(log["waiting"] * seen))


def broken(run: RunTables, parts: int) -> Life:
    """The life of a request whose decoding is torn into parts by as many breaks."""
    assert run.stages is not None
    request = lives(run)[0].request_id
    stages = {name: column.copy() for name, column in run.stages.items()}
    (row,) = np.flatnonzero((stages["request_id"] == request) & stages["decode"])
    ends = np.linspace(stages["start_s"][row], stages["end_s"][row], 2 * parts)
    stages["end_s"][row] = ends[1]
    more = {name: np.repeat(column[row], parts - 1) for name, column in stages.items()}
    more["start_s"], more["end_s"] = ends[2::2], ends[3::2]
    stages = {name: np.concatenate([column, more[name]]) for name, column in stages.items()}
    return lives(replace(run, stages=stages))[0]


@pytest.mark.parametrize(("parts", "told"), [(2, ["break"]), (9, ["break"] * 5 + ["breaks"])])
def test_breaks_are_told_and_many_are_summed_up(run: RunTables, parts: int, told: list[str]):
    life = broken(run, parts)
    assert [name for name, _ in life.events if name.startswith("break")] == told
    assert sum(each.kind == "wait" for each in life.segments) >= parts - 1


def test_nobody_served_leaves_nothing_to_rank(run: RunTables):
    nothing = np.full(len(run.requests["e2e_s"]), np.nan)
    none = replace(run, requests={**run.requests, **dict.fromkeys(("e2e_s", "ttft_s", "tpot_s"), nothing)})
    assert rankings(none) == []
    assert lives(none) == []

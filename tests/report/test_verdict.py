"""The answer in one sentence, and the figures beside it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from simslm.report.tables import RunTables, read_run
from simslm.report.verdict import slo_rows, tiles, verdict
from simslm.report.wording import attained, count, share, time_unit


@pytest.fixture
def run(make_run: Callable[..., Path]) -> RunTables:
    return read_run(make_run(name="answer"))


def test_a_met_slo(run: RunTables):
    answer = verdict(run)
    assert (answer.state, answer.word) == ("met", "SLO met")
    for words in (
        "100 % of 300 requests",
        "TTFT ≤ 500 ms and TPOT ≤ 50 ms",
        "90 % asked",
        "tokens/s",
        "J per output",
    ):
        assert words in answer.sentence


def test_a_missed_slo(make_run: Callable[..., Path]):
    run = read_run(make_run(name="late", rate_rps=40, max_num_seqs=16, num_requests=600))
    assert verdict(run).state == "missed"
    rows = {row.name: row for row in slo_rows(run)}
    assert rows["TTFT"].enough is False
    assert rows["TPOT"].enough is True
    assert rows["All together"].kept == attained(run.summary["slo"]["attainment"])


def test_without_an_slo_the_sentence_counts_requests(make_run: Callable[..., Path]):
    run = read_run(make_run(name="free", slo=None, num_requests=30))
    answer = verdict(run)
    assert answer.state == "unstated"
    assert "30 requests arrived, 30 finished" in answer.sentence
    assert slo_rows(run) == []
    assert "SLO attainment" not in [tile.name for tile in tiles(run)]


def test_a_run_in_which_nothing_finished(run: RunTables):
    run.summary["requests"].update(finished=0, rejected=300)
    answer = verdict(run)
    assert answer.state == "empty"
    assert "300 rejected" in answer.sentence


def test_unfinished_requests_break_a_bound_and_single_tokens_keep_tpot(run: RunTables):
    first = np.arange(len(run.requests["tpot_s"])) < 2
    changed = {
        "tpot_s": np.where(first, np.nan, run.requests["tpot_s"]),
        "finished": np.arange(len(first)) != 1,
    }
    row = next(
        row for row in slo_rows(replace(run, requests={**run.requests, **changed})) if row.name == "TPOT"
    )
    assert row.kept == "99.6 %"


def test_unknown_energy_says_why(make_run: Callable[..., Path]):
    run = read_run(make_run(name="dim", power_note="no power meter on this device", num_requests=30))
    assert "unknown energy" in verdict(run).sentence
    tile = tiles(run)[-1]
    assert (tile.figure, tile.note) == ("unknown", "no power meter on this device")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 %"),
        (0.0004, "under 0.1 %"),
        (0.004, "0.4 %"),
        (0.43, "43 %"),
        (0.994, "99.4 %"),
        (1.0, "100 %"),
    ],
)
def test_shares(value: float, text: str):
    assert share(value) == text


def test_a_share_is_only_whole_when_it_is():
    assert share(0.999999) == "99.99 %"
    assert share(0.9997) == "99.97 %"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.89999, "89.9 %"), (0.9, "90.0 %"), (0.29, "29.0 %"), (0.99999, "99.9 %"), (1.0, "100 %")],
)
def test_what_is_held_against_a_target_is_rounded_down(value: float, text: str):
    assert attained(value) == text


def test_requests_that_never_finished_are_counted_in_the_answer(run: RunTables):
    run.summary["requests"].update(finished=280, rejected=15, failed=5)
    misses = "Counted as misses: 15 rejected (5.0 %), 5 failed (1.7 %); the latencies are of the requests"
    assert verdict(run).sentence.endswith(f"{misses} that got so far.")


def test_a_row_of_durations_has_one_unit():
    unit = time_unit([None, 0.0, 0.02, 0.03, 4.0])
    assert unit.name == "ms"
    assert [unit.show(value) for value in (None, 0.0, 0.02345, 4.0, 12.3456)] == [
        "–",
        "0.00",
        "23.4",
        "4,000",
        "12,346",
    ]
    assert time_unit([2.0, 3.0]).name == "s"
    assert time_unit([2e-5]).name == "µs"
    assert time_unit([]).name == "ms"


def test_counts():
    assert count(12345.0) == "12,345"
    assert count(None) == "–"


def test_latencies_beside_lost_requests_say_over_how_many(make_run: Callable[..., Path]):
    run = read_run(make_run())
    summary = {**run.summary, "requests": {**run.summary["requests"], "rejected": 109}}
    summary["population"] = {"ttft_s": 91, "tpot_s": 90}
    summary["ttft_s"] = {**summary["ttft_s"], "p99": 257.0}
    lost = replace(run, summary=summary)
    assert "; the latencies are of the requests that got so far." in verdict(lost).sentence
    (ttft,) = [tile for tile in tiles(lost) if tile.name == "TTFT p99"]
    assert ttft.note.endswith(" · over 91 requests")
    assert (ttft.figure, ttft.unit) == ("4 min 17", "s")
    assert "over" not in next(tile for tile in tiles(run) if tile.name == "TTFT p99").note

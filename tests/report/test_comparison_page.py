"""The page of a comparison: what it says is what the comparison holds."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.pages import own, valid

from simslm.comparison import Comparison, Delta, compare, wording
from simslm.report.comparison import (
    HEADLINES,
    MOST_OVERLAID,
    render_comparison,
    scenario_rows,
    view,
    write_comparison,
)
from simslm.report.overlays import FURTHEST, changes_figure
from simslm.report.tables import RunTables, read_run

EVIL = "</script><script>document.title='broken'</script><b onclick=x>@accent"


def held(*directories: Path, labels: list[str] | None = None) -> Comparison:
    return compare([read_run(each) for each in directories], labels or [str(each) for each in directories])


@pytest.fixture(scope="module")
def two(make_run: Callable[..., Path]) -> Comparison:
    """The same requests, with room for fewer at a time in the second run."""
    directories = [
        make_run(name=name, max_num_seqs=limit, num_requests=400, rate_rps=30)
        for name, limit in (("wide", 64), ("tight", 8))
    ]
    return held(*directories)


def test_the_page_says_what_the_comparison_holds(two):
    shown = view(two)
    contrast = two.contrasts[0]
    rows = {row.name: row for row in (*shown.contrasts[0].headlines, *shown.contrasts[0].rest)}
    known = [delta for delta in contrast.deltas if delta.verdict != "unknown"]
    assert len(rows) == len(known)
    for delta in known:
        row = rows[delta.title]
        assert (row.baseline, row.value) == (
            delta.metric.show(delta.baseline),
            delta.metric.show(delta.value),
        )
        assert row.verdict == {"untested": "open", "different": "differs"}.get(delta.verdict, delta.verdict)
        assert row.state == {"better": "met", "worse": "missed"}.get(delta.verdict, "")
    assert "Worse: Output token throughput " in shown.sentence
    assert shown.contrasts[0].why.startswith("Paired request by request")


def test_every_figure_of_the_page_is_one_plotly_takes(two):
    shown = view(two)
    assert {plot.id for plot in shown.plots} == {
        "changes", "overtime", "cdf-ttft_s", "cdf-tpot_s", "cdf-e2e_s", "difference-ttft_s", "difference-tpot_s",
        "difference-e2e_s",
    }  # fmt: skip
    assert all(valid(plot.figure).data for plot in shown.plots)


def test_a_point_stands_where_its_figure_changed_to(two):
    shown = view(two)
    assert shown.changes is not None
    drawn = shown.changes.figure["data"][0]
    deltas = [two.contrasts[0].delta(path) for path in HEADLINES]
    ratios = [
        min(max(1 + each.relative, 1 / FURTHEST), FURTHEST) for each in deltas if each.relative is not None
    ]
    assert drawn["x"] == pytest.approx(ratios, rel=1e-5)
    assert all(low >= 0 for low in drawn["error_x"]["arrayminus"])
    assert drawn["y"] == sorted(drawn["y"], reverse=True)


def change(value: float, interval: tuple[float, float] | None = None, baseline: float = 1.0) -> Delta:
    return Delta("ttft_s.mean", baseline, baseline + value, value, interval)


@pytest.mark.parametrize("size", [0.001, 0.5, -0.5, -1.0, 40.0])
def test_small_and_huge_changes_stay_on_the_axis(size):
    figure = changes_figure(["TTFT mean"], ["a"], [[change(size, (size - 0.3, size + 0.3))]])
    low, high = (10**end for end in figure["layout"]["xaxis"]["range"])
    (x,), (up,), (down,) = (
        figure["data"][0]["x"],
        *(figure["data"][0]["error_x"][k] for k in ("array", "arrayminus")),
    )
    assert low <= x - down <= x <= x + up <= high * 1.0001
    assert low < 1 < high
    assert 1.0 in figure["layout"]["xaxis"]["tickvals"]


def test_words_of_changes():
    assert wording.change(change(0.05)) == "+5 %"
    assert wording.change(change(0.0)) == "0"
    assert wording.change(change(1e-6)) == "≈ 0"
    assert wording.change(change(14.2)) == "+1,420 %"
    assert wording.change(change(9.999)) == "+1,000 %"
    assert wording.change(change(0.05, baseline=0.0)) == "+50 ms"
    assert wording.change(change(-0.05, baseline=0.0)) == "-50 ms"
    assert wording.interval(change(0.05, (0.01, 0.09))) == "+1 to +9 %"
    assert wording.interval(change(0.0, (0.0, 0.0))) == ""
    assert wording.interval(change(0.1)) == ""


def test_keys_that_differ_have_a_value_in_every_configuration(make_run):
    first = make_run(name="a", num_requests=60)
    second = make_run(name="b", num_requests=60, max_num_seqs=8)
    third = make_run(name="c", num_requests=60, max_num_batched_tokens=512)
    rows = {row[0]: row[1:] for row in scenario_rows(held(first, second, third))}
    assert rows["deployment.engine.max_num_seqs"] == ["64", "8", "64"]
    assert len(set(rows["deployment.engine.max_num_batched_tokens"])) == 2


def test_runs_of_other_requests_have_no_differences_request_by_request(make_run):
    shown = view(held(make_run(name="few", num_requests=60), make_run(name="more", num_requests=90)))
    assert {plot.id.partition("-")[0] for plot in shown.plots} == {"changes", "overtime", "cdf"}
    assert "unpaired" in shown.contrasts[0].why.lower()


def test_a_run_against_itself_changes_nothing(quiet_run):
    shown = view(held(quiet_run, quiet_run))
    assert shown.sentence == "Every figure is the same in both."
    assert shown.scenario_rows == []
    assert all(valid(plot.figure).data for plot in shown.plots)


def test_a_run_in_which_nothing_was_served_still_has_a_page(make_run, quiet_run):
    shown = held(quiet_run, make_run(name="other", num_requests=60))
    second = shown.contrasts[0].configuration.runs[0]
    assert isinstance(second, RunTables)
    requests = {
        name: np.full(len(column), np.nan) if column.dtype == float else column
        for name, column in second.requests.items()
    }
    iterations = {name: column[:0] for name, column in second.iterations.items()}
    empty = replace(second, requests=requests, iterations=iterations)
    contrast = replace(
        shown.contrasts[0],
        configuration=replace(shown.contrasts[0].configuration, runs=(empty,)),
        latencies=(),
    )
    found = view(replace(shown, contrasts=(contrast,)))
    assert all(valid(plot.figure).data for plot in found.plots)


def test_more_configurations_than_can_be_told_apart_are_in_the_tables_alone(make_run):
    runs = [make_run(name=f"run-{i}", num_requests=30, max_num_seqs=8 + i) for i in range(MOST_OVERLAID + 2)]
    shown = view(held(*runs))
    assert shown.left_out == "2 further configurations are in the tables alone."
    assert len(shown.contrasts) == MOST_OVERLAID + 1
    assert all(valid(plot.figure).data for plot in shown.plots)


def test_the_page_is_offline_escaped_and_the_same_again(two, tmp_path):
    hostile = replace(two, baseline=replace(two.baseline, label=EVIL), notes=(EVIL,))
    page = write_comparison(hostile, tmp_path / "page.html").read_text(encoding="utf-8")
    assert page == render_comparison(hostile)
    assert EVIL not in own(page)
    assert not re.search(r"(?:src|href)=[\"'](?!#)", own(page))
    assert len(page) < 4_000_000

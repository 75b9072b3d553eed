"""The page of a comparison: complete, escaped, offline, from its file alone."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fidelity.conftest import unmeasured
from support.pages import own, valid

from simslm.errors import UsageError
from simslm.fidelity.files import write_fidelity
from simslm.fidelity.recorded import Fidelity, validate
from simslm.report.fidelity import name_of, read_fidelity, render, signed, view, write_page
from simslm.report.palette import SERIES
from simslm.report.parity import Point, error_figure, parity_figure, plain, spread_figure

EVIL = "</script><script>document.title='broken'</script><b onclick=x>@accent"


@pytest.fixture(scope="module")
def values(exact, sources, tmp_path_factory) -> dict[str, Any]:
    """Three runs, off by 10, -20 and 300 %, and one that was not simulated."""
    runs = [
        replace(run, measured={name: value / factor for name, value in run.measured.items()})
        for run, factor in zip(exact, (1.1, 0.8, 4.0), strict=True)
    ]
    runs[0] = replace(runs[0], measured=runs[0].measured | {"power_active_p50_w": 100.0})
    fidelity = validate([*runs, unmeasured(4, model="opt-350m", run="left out")], sources)
    return write_fidelity(tmp_path_factory.mktemp("fidelity"), fidelity, "simslm validate recorded x.csv")


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "Simulated and measured",
        "Half of 3 runs are simulated within 20\N{NO-BREAK SPACE}% of the measured output tokens/s",
        '<dd class="figure">20 %</dd>',
        'id="spread"',
        "opt-125m, ITL mean",
        "above 0 the simulation says more than was measured",
        "no trace of opt-350m on cpu was given",
        "B_opt (0.1, 2)",
        "simslm validate recorded x.csv",
        'id="parity-output_tokens_per_s"',
        'id="error-ttft_mean_s"',
        '<span class="pill measured">measured</span>',
    ],
)
def test_the_page_holds(values, words):
    assert words in own(render(values))


def test_the_worst_run_comes_first(values):
    page = view(values)
    assert [row[0] for row in page.worst] == ["batch 32", "batch 4", "batch 1"]
    assert page.worst[0][2] == "+300.00 %"
    assert page.worst[0][1] == "opt-125m, chunked-prefill, batch 32"
    assert page.rest == []


def test_figures_of_the_table_are_those_of_the_file(values):
    rows = {name: cells for name, *cells in view(values).by_metric}
    assert rows["output tokens/s"] == ["3", "20 %", "272 %", "300 %", "+96.67 %"]


def test_the_page_loads_nothing_and_is_the_same_for_the_same_file(values, tmp_path):
    (tmp_path / "fidelity.json").write_text(json.dumps(values))
    page = write_page(tmp_path)
    text = page.read_text(encoding="utf-8")
    assert page == tmp_path / "report.html"
    assert "default-src 'none'" in text
    assert not re.search(r"<(?:link|img|iframe)\b|\bsrc=|@import|url\(", own(text))
    assert text == render(read_fidelity(tmp_path / "fidelity.json"))


def test_what_comes_from_files_is_escaped(values):
    poisoned = json.loads(json.dumps(values).replace('"batch 32"', json.dumps(EVIL)))
    poisoned["command"] = poisoned["skipped"][0]["reason"] = EVIL
    for row in poisoned["rows"]:
        row["setting"]["model"] = EVIL
    text = own(render(poisoned))
    assert "<script>document" not in text
    assert "<b onclick" not in text
    assert "onclick=x&gt;" in text


def test_nothing_compared_is_a_page_too(sources):
    empty = Fidelity(sources, (), (), interrupted=True)
    from simslm.fidelity.files import content

    text = own(render(content(empty, "x")))
    assert "Interrupted: not all runs were simulated." in text
    assert "Nothing that was measured is simulated." in text


def test_errors_without_a_size_are_counted(values):
    changed = json.loads(json.dumps(values))
    for row, error in zip(changed["rows"], (None, 0.0, None), strict=True):
        row["error"]["preemptions"] = error
    (note,) = view(changed).notes
    assert note.startswith("preemptions: 0 was measured and more simulated in 2 runs")
    assert view(values).notes == []


def test_runs_that_the_trace_was_calibrated_on_are_no_test_of_it(values):
    changed = json.loads(json.dumps(values))
    changed["traces"][0]["fitted"] = [changed["rows"][0]["run"], "another"]
    (note,) = view(changed).notes
    assert note.startswith("1 of these ")
    assert "is one of those that" in note
    assert "does not say how well it predicts others" in note


def test_host_time_of_another_engine_is_said(values):
    changed = json.loads(json.dumps(values))
    for row, engine in zip(changed["rows"], ("", "vllm-0.6.3-v0", "vllm-0.6.3-v0"), strict=True):
        row["setting"]["engine"] = engine
    (note,) = view(changed).notes
    assert note.startswith(
        "opt-125m was served by vllm-0.6.3-v0, but the host time of its trace is that of simslm"
    )


@pytest.mark.parametrize(
    ("column", "name"),
    [("ttft_p99_s", "TTFT p99"), ("queue_mean_s", "Queue mean"), ("kv_peak", "KV peak")],
)
def test_names(column, name):
    assert name_of(column) == name


def test_signed_shares():
    assert [signed(value) for value in (0.012, -0.5, None)] == ["+1.20 %", "-50.00 %", "–"]


@pytest.mark.parametrize("text", ["{", "[]", '{"rows": []}'])
def test_a_damaged_file_is_refused(tmp_path: Path, text: str):
    (tmp_path / "fidelity.json").write_text(text)
    with pytest.raises(UsageError, match="run `simslm validate recorded` again"):
        write_page(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_a_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="not a readable JSON file"):
        write_page(tmp_path)


def points(values: list[tuple[float, float]], models: int = 2) -> list[Point]:
    return [
        Point(f"run {i}", f"model {i % models}", 2**i, measured, simulated, None if i == 2 else 0.1)
        for i, (measured, simulated) in enumerate(values)
    ]


FIGURES = {
    "wide": parity_figure("output_tokens_per_s", points([(1, 2), (10, 11), (100, 90)])),
    "narrow": parity_figure("ttft_mean_s", points([(0.010, 0.012), (0.02, 0.03)])),
    "zeros": parity_figure("preemptions", points([(0, 0), (0, 0)])),
    "many": parity_figure("power_mean_w", points([(100 + i, 100) for i in range(9)], models=9)),
    "errors": error_figure(points([(1, 2), (10, 11), (100, 90)])),
    "unsized": error_figure(points([(1, 2), (10, 11), (100, 90)])[2:]),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_valid_plotly_in_the_pages_own_colours(name):
    assert valid(FIGURES[name]).data


def test_both_axes_of_a_parity_plot_are_alike():
    for name, kind in (("wide", "log"), ("narrow", "linear"), ("zeros", "linear")):
        layout = FIGURES[name]["layout"]
        shapes = [
            {key: value for key, value in layout[axis].items() if key != "title"}
            for axis in ("xaxis", "yaxis")
        ]
        assert shapes[0] == shapes[1]
        assert shapes[0]["type"] == kind


def test_units_and_places_of_points():
    narrow = FIGURES["narrow"]
    assert narrow["layout"]["xaxis"]["title"]["text"] == "measured, ms"
    marks = [trace for trace in narrow["data"] if trace["mode"] == "markers"]
    assert marks[0]["x"] == [10.0]
    assert marks[1]["y"] == [30.0]
    assert FIGURES["wide"]["layout"]["xaxis"]["title"]["text"] == "measured, tokens/s"
    assert FIGURES["zeros"]["layout"]["xaxis"]["title"]["text"] == "measured preemptions"


def test_dotted_lines_are_ten_per_cent_beside_the_diagonal():
    lines = [trace for trace in FIGURES["narrow"]["data"] if trace["mode"] == "lines"]
    assert lines[0]["x"] == lines[0]["y"]
    for line, factor in zip(lines[1:], (0.9, 1.1), strict=True):
        assert line["y"] == pytest.approx([factor * x for x in line["x"]])


def test_the_spread_of_errors_has_a_row_for_each_metric(values):
    summary = list(values["summary"].values())
    figure = valid(spread_figure([f"m{i}" for i in range(len(summary))], summary))
    median, tail, largest = figure.data[1:]
    assert list(median.x) == pytest.approx(
        [max(100 * each["median_abs_error"], 0.1) for each in summary], rel=1e-5
    )
    assert all(a <= b <= c for a, b, c in zip(median.x, tail.x, largest.x, strict=True))
    exact = dict.fromkeys(("median_abs_error", "p95_abs_error", "max_abs_error"), 0.0)
    assert valid(spread_figure(["exact"], [exact])).data


def test_every_model_has_its_own_mark():
    marks = [(trace["marker"]["color"], trace["marker"]["symbol"]) for trace in FIGURES["many"]["data"][3:]]
    assert len(set(marks)) == 9
    assert {colour for colour, _ in marks} == set(SERIES)


def test_errors_without_a_size_are_not_drawn():
    assert sum(len(trace["x"]) for trace in FIGURES["errors"]["data"]) == 2
    assert sum(len(trace["x"]) for trace in FIGURES["unsized"]["data"]) == 0


def test_batch_labels_keep_apart():
    batches = (1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512)
    many = [Point("r", "m", batch, 1.0, 1.0, 0.0) for batch in batches]
    shown = error_figure(many)["layout"]["xaxis"]["tickvals"]
    assert shown == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]


def test_text_from_files_is_no_markup():
    assert plain("<b>@accent & co") == "&lt;b>&#64;accent &amp; co"

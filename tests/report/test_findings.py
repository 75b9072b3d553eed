"""The page of findings: valid figures with measured beside simulated; complete, escaped, offline; in a real browser."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from support.browser import fits, plots, well_drawn
from support.pages import own, valid

from simslm.report.curves import (
    MEASURED,
    Series,
    against_figure,
    bars_figure,
    bars_legend,
    batch_figure,
    legend,
)
from simslm.report.figures import Figure
from simslm.report.findings import FindingsView, Section, render
from simslm.report.page import Key, Plot
from simslm.report.palette import SERIES as PALETTE

EVIL = "</script><script>document.title='broken'</script><b onclick=x>@accent"
BATCHES = (1, 8, 64, 512)
NAMES = ("opt-125m", "opt-350m", "opt-1.3b", "opt-6.7b", "llama-2-13b")
SERIES = [
    Series("small", BATCHES, (0.5, 2.0, 9.0, 11.0)),
    Series("small", BATCHES, (0.4, 2.1, math.nan, 11.5), measured=True),
    Series("large", BATCHES, (0.1, 0.5, 2.0, 2.2)),
]
LABELS = ("1 × 96", "2 × 96", "4 × 96")
GROUPS = {
    "measured": (4400.0, 5500.0, None),
    "as run": (4500.0, 5400.0, None),
    "scenario": (4.8e3, 6e3, 5.6e3),
}


@pytest.fixture(scope="module")
def drawn() -> dict[str, Figure]:
    along = [
        Series(each.name, each.batches, each.values, each.measured, (5.0, 6.0, 11.0, 40.0)) for each in SERIES
    ]
    return {
        "throughput": batch_figure("tokens/s", SERIES),
        "joules": batch_figure("J per output token", SERIES, logarithmic=True),
        "frontier": against_figure("mean ITL, ms", "tokens/s", along),
        "family": batch_figure("tokens/s", [Series(name, BATCHES, (1.0, 2.0, 3.0, 4.0)) for name in NAMES]),
        "replicas": bars_figure("output tokens/s", LABELS, GROUPS),
        "nothing": batch_figure("tokens/s", []),
    }


@pytest.mark.parametrize("name", ["throughput", "joules", "frontier", "family", "replicas", "nothing"])
def test_figures_are_valid_plotly_with_titles_and_named_colours(drawn: dict[str, Figure], name: str):
    assert all(len(trace.x) == len(trace.y) > 0 for trace in valid(drawn[name]).data)


def test_measured_is_hollow_markers_and_simulated_a_line_in_the_same_colour(drawn: dict[str, Figure]):
    small, measured, large = drawn["throughput"]["data"]
    assert (small["mode"], measured["mode"]) == ("lines+markers", "markers")
    assert measured["marker"]["symbol"] == "circle-open"
    assert small["line"]["color"] == measured["marker"]["color"] == PALETTE[0]
    assert large["line"]["color"] == PALETTE[1]
    assert measured["y"] == [0.4, 2.1, None, 11.5]
    assert measured["name"] == "small, measured"


def test_axes_hold_all_values(drawn: dict[str, Figure]):
    low, high = drawn["throughput"]["layout"]["yaxis"]["range"]
    assert low == 0
    assert 11.5 < high < 13
    joules = drawn["joules"]["layout"]["yaxis"]
    assert joules["type"] == "log"
    assert joules["range"][0] < math.log10(0.1)
    assert joules["range"][1] > math.log10(11.5)
    frontier = drawn["frontier"]
    assert frontier["data"][0]["x"] == [5.0, 6.0, 11.0, 40.0]
    assert frontier["layout"]["xaxis"]["range"][1] > 40
    assert "type" not in frontier["layout"]["xaxis"]


def test_five_names_have_five_colours(drawn: dict[str, Figure]):
    assert len({trace["line"]["color"] for trace in drawn["family"]["data"]}) == 5


def test_the_legend_names_each_series_once_and_what_is_measured():
    assert legend(SERIES) == [Key("small", PALETTE[0]), Key("large", PALETTE[1]), MEASURED]
    assert legend(SERIES[2:]) == [Key("large", PALETTE[0])]
    assert [key.name for key in bars_legend(GROUPS)] == list(GROUPS)


def test_bars_stand_side_by_side_and_unknown_ones_are_left_out(drawn: dict[str, Figure]):
    bars = drawn["replicas"]["data"]
    assert [bar["y"] for bar in bars] == [[4400, 5500, None], [4500, 5400, None], [4800, 6000, 5600]]
    assert len({bar["marker"]["color"] for bar in bars}) == 3
    assert drawn["replicas"]["layout"]["barmode"] == "group"


def page_of(figures: dict[str, Figure], words: str = "What it is.") -> str:
    keys = {"throughput": legend(SERIES), "replicas": bars_legend(GROUPS)}
    plots = [
        Plot(f"paper-{name}", name, f"{name} in words", figure, keys.get(name, ()))
        for name, figure in figures.items()
    ]
    rows = [
        ("a gain over something", "", "+8.1 %", "+5.0 %", "-3.1 points", "+4 to +17 %", "inside"),
        ("another", "", "+12.8 %", "+2.3 %", "-10.5 points", "+4 to +17 %", "outside"),
    ]
    head = ("figure", "published", "measured", "simulated", "difference", "bound", "")
    view = FindingsView(
        title="Findings",
        setup=("one GPU", words),
        sentence="`1` of 2 lie inside.",
        sources=[("roofline", "opt-125m"), ("calibrated", words)],
        notes=[words],
        sections=[
            Section("first", "1 First", words, head, rows, plots),
            Section("last", "2", words, head, rows),
        ],
    )
    return render(view)


def test_the_page_says_which_bounds_hold(drawn: dict[str, Figure]):
    text = own(page_of(drawn))
    assert text.count('<span class="state met">inside</span>') == 2
    assert text.count('<span class="state missed">outside</span>') == 2
    assert '<span class="pill roofline">roofline</span> opt-125m' in text
    assert 'aria-label="frontier in words"' in text
    assert "<code>1</code> of 2" in text


def test_what_it_is_given_is_escaped(drawn: dict[str, Figure]):
    text = own(page_of({"throughput": drawn["throughput"]}, EVIL))
    assert "<b onclick" not in text
    assert "<script>document" not in text
    assert text.count("&lt;b onclick=x&gt;") >= 4
    bad = batch_figure("tokens/s", [Series(EVIL, BATCHES, (1.0, 2.0, 3.0, 4.0))])
    assert "<b onclick" not in json.dumps(bad)
    assert "<b onclick" not in json.dumps(bars_figure("x", [EVIL], {EVIL: [1.0]}))


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
def test_it_fits_and_draws(opened: Any, drawn: dict[str, Figure], tmp_path: Path, width: int, scheme: str):
    page = tmp_path / "findings.html"
    page.write_text(page_of({name: drawn[name] for name in drawn if name != "nothing"}), encoding="utf-8")
    tab = opened(page, width, scheme)
    fits(tab)
    well_drawn(tab)
    assert len(plots(tab)) == 5
    for name, curves in {"throughput": 2, "family": 5}.items():
        assert tab.locator(f"#paper-{name} .scatterlayer path.js-line").count() == curves
    bars = (
        "[...document.querySelectorAll('#paper-replicas .barlayer .point path')]"
        ".filter((bar) => bar.getBBox().height > 1).length"
    )
    assert tab.evaluate(bars) == 7

"""Figures are valid plotly figures, with titles and units on every axis and colours from the palette alone."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.pages import valid

from simslm.report.distribution import cdf
from simslm.report.figures import Figure, decades, rounded
from simslm.report.latencies import cdf_figure, cdf_legend, first_token_plot, first_tokens
from simslm.report.life import life_figure
from simslm.report.overtime import overtime_figure, overview_plot
from simslm.report.slowest import lives
from simslm.report.tables import read_run
from simslm.report.timeline import timelines


@pytest.fixture(scope="module")
def drawn(make_run: Callable[..., Path]) -> dict[str, Figure]:
    run = read_run(make_run(name="drawn", rate_rps=40, max_num_seqs=16, num_requests=200))
    found = timelines(run)
    assert found is not None
    return {
        "timeline": overtime_figure(found[0]),
        "overview": overview_plot(found[0], "run-1").figure,
        "life": life_figure(lives(run)[0]),
        "first": first_token_plot(first_tokens(run), "run-1").figure,
        "ttft": cdf_figure(cdf("ttft_s", run.requests["ttft_s"], 0.5)),
        "tpot": cdf_figure(cdf("tpot_s", run.requests["tpot_s"], 0.05)),
        "tail": cdf_figure(cdf("e2e_s", np.random.default_rng(0).lognormal(0, 2, 5000), 3.0)),
        "same": cdf_figure(cdf("e2e_s", np.full(5, 2.0))),
        "zero": cdf_figure(cdf("ttft_s", np.zeros(3))),
    }


@pytest.mark.parametrize(
    "name", ["timeline", "overview", "life", "first", "ttft", "tpot", "tail", "same", "zero"]
)
def test_figures_are_valid_plotly_with_titles_and_named_colours(drawn: dict[str, Figure], name: str):
    for trace in valid(drawn[name]).data:
        assert len(trace.y) > 0
        assert trace.dx if trace.x is None else len(trace.x) == len(trace.y)


def test_the_bound_is_marked_or_said_to_be_off_the_scale(drawn: dict[str, Figure]):
    assert drawn["ttft"]["layout"]["shapes"][0]["x0"] in (0.5, 500.0)
    assert "shapes" not in drawn["tpot"]["layout"]
    near, far = (cdf_legend(cdf("ttft_s", np.arange(1.0, 5.0), limit)) for limit in (2.0, 100.0))
    assert [key.name for key in near] == ["SLO 2 s: 50 %"]
    assert [key.name for key in far] == ["SLO 100 s: 100 %, off the scale"]
    assert cdf_legend(cdf("ttft_s", np.arange(4.0))) == []


def test_a_distribution_rises_from_nothing_even_if_all_values_are_one(drawn: dict[str, Figure]):
    (line,) = drawn["same"]["data"]
    assert (line["x"], line["y"]) == ([2.0, 2.0], [0.0, 100.0])


def test_a_long_tail_is_drawn_on_a_logarithmic_axis(drawn: dict[str, Figure]):
    axis = drawn["tail"]["layout"]["xaxis"]
    assert axis["type"] == "log"
    assert len(axis["tickvals"]) == len(axis["ticktext"]) >= 3
    assert drawn["ttft"]["layout"]["xaxis"]["type"] == "linear"


def test_the_timeline_shows_each_panel_once_and_the_batch_limit(drawn: dict[str, Figure]):
    layout = drawn["timeline"]["layout"]
    titles = [layout[key]["title"]["text"] for key in layout if key.startswith("yaxis")]
    assert titles == ["requests", "sequences", "% of blocks", "W", "tokens/s", "requests/s"]
    assert [shape["y0"] for shape in layout["shapes"]] == [16.0]
    domains = [layout[key]["domain"] for key in layout if key.startswith("yaxis")]
    assert all(lower[1] < upper[0] for upper, lower in itertools.pairwise(domains))


def test_unknown_power_has_no_panel(make_run: Callable[..., Path]):
    found = timelines(read_run(make_run(name="unlit", power_note="no meter", num_requests=20)))
    assert found is not None
    layout = overtime_figure(found[0])["layout"]
    assert "W" not in [layout[key]["title"]["text"] for key in layout if key.startswith("yaxis")]


def test_decades():
    assert decades(0.9, 120) == [1.0, 3.0, 10.0, 30.0, 100.0]
    assert decades(0.009, 120) == [0.01, 0.1, 1.0, 10.0, 100.0]


def test_rounded_numbers_are_json():
    assert rounded([1.23456789, float("nan"), np.inf]) == [1.23457, None, None]
    assert rounded([1.23456789], digits=3) == [1.23]

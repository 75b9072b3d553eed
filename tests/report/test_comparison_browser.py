"""The page of a comparison in a real browser with the network off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.browser import fits, hover, plots, well_drawn

from simslm.comparison import compare
from simslm.report.comparison import write_comparison
from simslm.report.tables import read_run

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page(make_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three configurations of the same requests, one under an SLO that it misses."""
    limits = {"wide <b>": 64, "tight": 8, "a-name-that-is-rather-long-for-a-legend": 16}
    runs = [
        make_run(name=f"c{limit}", max_num_seqs=limit, num_requests=400, rate_rps=30)
        for limit in limits.values()
    ]
    comparison = compare([read_run(run) for run in runs], list(limits))
    return write_comparison(comparison, tmp_path_factory.mktemp("comparison") / "comparison.html")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
def test_it_fits_and_every_plot_is_drawn(opened: Any, page: Path, width: int, scheme: str) -> None:
    tab = opened(page, width, scheme)
    fits(tab)
    well_drawn(tab)
    assert list(plots(tab)) == [
        "changes", "cdf-ttft_s", "cdf-tpot_s", "cdf-e2e_s", "difference-ttft_s", "difference-tpot_s",
        "difference-e2e_s", "overtime",
    ]  # fmt: skip


def test_a_change_says_its_figures_and_interval(opened: Any, page: Path) -> None:
    tab = opened(page)
    place = tab.evaluate(
        """() => {
          const plot = document.getElementById("changes");
          const box = plot.getBoundingClientRect();
          const { xaxis, yaxis } = plot._fullLayout;
          const [trace] = plot.data;
          return [box.x + xaxis._offset + xaxis.d2p(trace.x[0]), box.y + yaxis._offset + yaxis.d2p(trace.y[0])];
        }"""
    )
    tab.mouse.move(*place, steps=4)
    tab.wait_for_selector("#changes .hovertext")
    said = tab.text_content("#changes .hovertext")
    assert "Output token throughput: " in said
    assert "95 % interval" in said


def test_a_distribution_names_its_run(opened: Any, page: Path) -> None:
    tab = opened(page)
    hover(tab, "cdf-ttft_s", 0.3, 0.2)
    tab.wait_for_selector("#cdf-ttft_s .hovertext")
    assert "TTFT ≤" in tab.text_content("#cdf-ttft_s .hovertext")


def test_what_unfolds_fits_too(opened: Any, page: Path) -> None:
    tab = opened(page, 360)
    tab.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    fits(tab)

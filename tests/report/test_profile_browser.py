"""The page of a trace in a real browser with the network off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.browser import CLIPBOARD, copied, fits, hover, plots, well_drawn
from support.traces import gpu_trace

from simslm.cost.portrait import portrait
from simslm.report.profile import write_profile
from simslm.traces.files import read_trace

pytestmark = pytest.mark.browser

TRACES = Path(__file__).parents[2] / "traces"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("pages")
    found = {
        "cpu": read_trace(TRACES / "cpu" / "opt-125m-bf16"),
        "calibrated": read_trace(TRACES / "h100-64gb" / "opt-2.7b-fp16"),
        "gpu": gpu_trace(directory / "gpu"),
    }
    return {name: write_profile(portrait(trace), directory / f"{name}.html") for name, trace in found.items()}


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [("cpu", 1280, "light"), ("calibrated", 360, "dark"), ("gpu", 1280, "dark"), ("gpu", 360, "light")],
)
def test_it_fits_and_every_plot_is_drawn(
    opened: Any, pages: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    tab = opened(pages[name], width, scheme)
    fits(tab)
    well_drawn(tab)


def test_an_operator_says_what_it_reaches(opened: Any, pages: dict[str, Path]) -> None:
    tab = opened(pages["gpu"])
    tab.locator("#roofline").scroll_into_view_if_needed()
    place = tab.evaluate(
        """() => {
          const plot = document.getElementById("roofline");
          const trace = plot.data.find((each) => each.name === "mlp");
          const box = plot.getBoundingClientRect();
          const { xaxis, yaxis } = plot._fullLayout;
          return [box.x + xaxis._offset + xaxis.d2p(trace.x[1]), box.y + yaxis._offset + yaxis.d2p(trace.y[1])];
        }"""
    )
    tab.mouse.move(*place, steps=4)
    tab.wait_for_selector("#roofline .hovertext")
    assert "50 % of its ceiling" in tab.text_content("#roofline .hovertext")


def test_a_line_says_batch_context_and_latency(opened: Any, pages: dict[str, Path]) -> None:
    tab = opened(pages["cpu"])
    hover(tab, "decode", 0.99, 0.05)
    tab.wait_for_selector("#decode .hovertext")
    assert "batch 32, context 2,047" in tab.text_content("#decode .hovertext")


def test_the_surface_is_drawn_with_its_points(opened: Any, pages: dict[str, Path]) -> None:
    tab = opened(pages["gpu"])
    assert plots(tab)["surface"]["marks"]
    kinds = tab.evaluate("document.getElementById('surface').data.map((each) => each.type)")
    assert kinds == ["surface", "scatter3d"]


def test_the_command_is_copied(opened: Any, pages: dict[str, Path]) -> None:
    tab = opened(pages["gpu"], permissions=CLIPBOARD)
    tab.locator("[data-copy=command]").click()
    assert copied(tab) == "simslm profile --model opt-1.3b"

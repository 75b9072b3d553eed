"""The page of a comparison in a real browser with the network off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.browser import fits, plots, well_drawn

from simslm.fidelity.files import write_fidelity
from simslm.fidelity.recorded import Fidelity, validate
from simslm.report.fidelity import write_page

pytestmark = pytest.mark.browser

MARKS = """() => Object.fromEntries([...document.querySelectorAll(".plot")].map((plot) =>
  [plot.id, plot.querySelectorAll(".scatterlayer .points path").length]))"""
COLUMNS = {
    "parity": ("output_tokens_per_s", "itl_mean_s", "ttft_mean_s", "preemptions"),
    "error": ("output_tokens_per_s", "itl_mean_s", "ttft_mean_s"),
}


@pytest.fixture(scope="module")
def page(exact, sources, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("fidelity")
    write_fidelity(directory, Fidelity(sources, validate(exact, sources).comparisons, ()), "simslm validate")
    return write_page(directory)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
def test_it_draws_every_run_and_fits(opened: Any, page: Path, width: int, scheme: str):
    tab = opened(page, width, scheme)
    fits(tab)
    well_drawn(tab)
    assert set(plots(tab)) == {
        "spread",
        *(f"{kind}-{column}" for kind, columns in COLUMNS.items() for column in columns),
    }
    marks = tab.evaluate(MARKS)
    assert marks.pop("spread") % 3 == 0
    assert set(marks.values()) == {3}


def test_a_point_names_its_run(opened: Any, page: Path):
    tab = opened(page)
    plot = tab.locator("#parity-itl_mean_s")
    plot.scroll_into_view_if_needed()
    box = plot.locator(".scatterlayer .points path").first.bounding_box()
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=4)
    tab.wait_for_selector("#parity-itl_mean_s .hovertext")
    said = tab.text_content("#parity-itl_mean_s .hovertext")
    assert "batch " in said
    assert "simulated" in said

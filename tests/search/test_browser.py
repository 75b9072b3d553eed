"""The page of a search in a real browser with the network off: it fits, draws, asks for nothing, and copies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.browser import CLIPBOARD, copied, fits, plots, well_drawn

import simslm
from simslm.api import load_scenario
from simslm.report import write_report
from simslm.search import files

pytestmark = pytest.mark.browser


@pytest.fixture
def page(searched, tmp_path) -> Path:
    searched["search"]["objectives"]["energy.j_per_output_token"] = "min"
    files.write(tmp_path, simslm.search(load_scenario(searched), again=["asked.yaml"]))
    return write_report([tmp_path])


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_it_fits_and_draws(opened: Any, page: Path, width: int, scheme: str) -> None:
    tab = opened(page, width, scheme)
    fits(tab)
    well_drawn(tab)
    assert len(plots(tab)) == 4
    assert tab.locator(".plot .scatterlayer .point").count() == 3 * 18


def test_the_commands_of_a_point_can_be_copied(opened: Any, page: Path) -> None:
    tab = opened(page, permissions=CLIPBOARD)
    tab.locator("details summary").first.click()
    tab.locator("details [data-copy]").first.click()
    assert copied(tab).startswith("simslm simulate asked.yaml --set deployment.engine.max_num_seqs=")

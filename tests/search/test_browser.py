"""The page of a search in a real browser with the network off: it fits, draws, asks for nothing, and copies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from report.test_browser import OVERFLOWING, PLOTS, browser, opened, requested, wait  # noqa: F401

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
def test_it_opens_clean_fits_and_draws(browser: Any, page: Path, width: int, scheme: str) -> None:  # noqa: F811
    requested(browser), browser.get_log("browser")
    opened(browser, page, width, scheme)
    assert [url for url in requested(browser) if not url.startswith("data:")] == [page.as_uri()]
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script(OVERFLOWING) == []
    plots = browser.execute_script(PLOTS)
    assert len(plots) == 4
    for plot in plots:
        assert plot["box"]["width"] == pytest.approx(plot["room"]["width"], abs=1)
        for text in plot["texts"]:
            assert text["box"]["left"] >= plot["room"]["left"] - 0.5, text["text"]
            assert text["box"]["right"] <= plot["room"]["right"] + 0.5, text["text"]
    drawn = "return document.querySelectorAll('.plot .scatterlayer .point').length"
    assert browser.execute_script(drawn) == 3 * 18


def test_the_commands_of_a_point_can_be_copied(browser: Any, page: Path) -> None:  # noqa: F811
    opened(browser, page)
    browser.execute_script("document.querySelector('details').open = true")
    button = browser.find_element("css selector", "details [data-copy]")
    button.click()
    assert wait(browser, "return document.querySelector('details [data-copy]').textContent != 'Copy'")
    browser.execute_script("getSelection().selectAllChildren(document.querySelector('details pre'))")
    selected = browser.execute_script("return getSelection().toString()")
    assert selected.startswith("simslm simulate asked.yaml --set deployment.engine.max_num_seqs=")

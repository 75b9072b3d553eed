"""The page of a comparison in a real browser with the network off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from report.test_browser import OVERFLOWING, browser, opened, requested

from simslm.fidelity.files import write_fidelity
from simslm.fidelity.recorded import Fidelity, validate
from simslm.report.fidelity import write_page

__all__ = ["browser"]

pytestmark = pytest.mark.browser

MARKS = """
return Object.fromEntries([...document.querySelectorAll(".plot")].map((plot) =>
  [plot.id, plot.querySelectorAll(".scatterlayer .points path").length]));
"""


@pytest.fixture(scope="module")
def page(exact, sources, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("fidelity")
    write_fidelity(directory, Fidelity(sources, validate(exact, sources).comparisons, ()), "simslm validate")
    return write_page(directory)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light")])
def test_it_draws_every_run_and_fits(browser: Any, page: Path, width: int, scheme: str):
    requested(browser)
    opened(browser, page, width, scheme)
    marks = browser.execute_script(MARKS)
    assert set(marks) == {
        f"{kind}-{column}"
        for kind, columns in {
            "parity": ("output_tokens_per_s", "itl_mean_s", "ttft_mean_s", "preemptions"),
            "error": ("output_tokens_per_s", "itl_mean_s", "ttft_mean_s"),
        }.items()
        for column in columns
    }
    assert set(marks.values()) == {3}
    assert browser.execute_script(OVERFLOWING) == []
    assert requested(browser) == [page.as_uri()]
    assert [entry["message"] for entry in browser.get_log("browser")] == []

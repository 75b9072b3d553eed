"""How long a browser takes to open a page."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from statistics import median

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def open_s(page: Path, times: int = 3) -> float | None:
    """Seconds until all plots of a page are drawn, each time in a context of its own; None without a browser."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        return None
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        taken = []
        for _ in range(times):
            tab = browser.new_context().new_page()
            begun = time.perf_counter()
            tab.goto(page.as_uri())
            while not tab.evaluate("document.documentElement.dataset.drawn"):
                tab.wait_for_timeout(5)
            taken.append(time.perf_counter() - begun)
        browser.close()
    return median(taken)

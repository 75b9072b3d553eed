"""Pages in a real browser with the network off, and what holds for each of them.

The fixtures, known to all tests: ``browser`` is one for all of them, ``opened`` opens a page.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CLIPBOARD = ("clipboard-read", "clipboard-write")
FLAGS = ("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-dev-shm-usage")
DRAWN = "document.documentElement.dataset.drawn"

OVERFLOWING = """() => {
  const width = document.documentElement.clientWidth;
  const clipped = (element) => element.closest(".scroll, svg") && !element.matches(".scroll");
  return [...document.querySelectorAll("body *:not(.unseen)")]
    .filter((element) => !clipped(element) && element.getBoundingClientRect().right > width + 0.5)
    .map((element) => element.tagName + "." + element.className);
}"""

PLOTS = """() => [...document.querySelectorAll(".plot")].filter((plot) => plot.clientWidth).map((plot) => {
  const box = (element) => element.getBoundingClientRect().toJSON();
  const axes = (layout) => Object.entries(layout).filter(([name]) => /^[xyz]axis/.test(name)).map(([, axis]) => axis);
  const scenes = Object.entries(plot.layout).filter(([name]) => /^scene/.test(name)).map(([, scene]) => scene);
  return {
    id: plot.id,
    words: plot.getAttribute("aria-label"),
    room: box(plot),
    width: plot.querySelector("svg").getBoundingClientRect().width,
    marks: plot.querySelectorAll(
      ".scatterlayer path.js-line[d*='L'], .scatterlayer path.js-line[d*='H'], .scatterlayer .points path," +
      ".barlayer path, .heatmaplayer image, .contourlayer path, .gl-container canvas").length,
    untitled: [plot.layout, ...scenes].flatMap(axes)
      .filter((axis) => axis.visible !== false && axis.showticklabels !== false && !axis.title?.text).length,
    texts: [...plot.querySelectorAll("svg text")]
      .filter((text) => text.textContent.trim() && text.getClientRects().length)
      .map((text) => ({ text: text.textContent, box: box(text) })),
  };
})"""


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium, drawing in software."""
    if not CHROMIUM:
        pytest.skip("needs Chromium on the PATH (Debian: apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install '.[dev]')")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield chromium
        chromium.close()


class Opener:
    """Opens pages, and notes what they complain of and ask for."""

    def __init__(self, browser: Any) -> None:
        self._browser = browser
        self._contexts: list[Any] = []
        self.complaints: list[str] = []
        self.requests: list[str] = []

    def __call__(self, page: Path, width: int = 1280, scheme: str = "light", **context: Any) -> Any:
        """A page of a width (pixels) in a colour scheme, its plots drawn.

        Args:
            page: the file.
            width, scheme: of the window.
            context: further options of a browser context.
        """
        opened = self._browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True, **context
        )
        self._contexts.append(opened)
        tab = opened.new_page()
        tab.on("console", lambda message: message.type == "error" and self.complaints.append(message.text))
        tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        own = page.resolve().as_uri()
        tab.on("request", lambda request: self._asked(request.url, own))
        tab.goto(own)
        until(tab, DRAWN)
        return tab

    def _asked(self, url: str, own: str) -> None:
        if url.partition("#")[0] != own and not url.startswith(("data:", "blob:")):
            self.requests.append(url)

    def close(self) -> None:
        for context in self._contexts:
            context.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Opener]:
    """Opens pages; fails at the end if one of them complained in the console or asked for anything."""
    opener = Opener(browser)
    yield opener
    opener.close()
    assert opener.complaints == []
    assert opener.requests == []


def until(tab: Any, expression: str, seconds: float = 20.0) -> Any:
    """Waits for a JavaScript expression to be true; a page's policy forbids the driver to wait inside it."""
    end = time.monotonic() + seconds
    while not (value := tab.evaluate(expression)):
        assert time.monotonic() < end, f"not within {seconds} s: {expression}"
        tab.wait_for_timeout(20)
    return value


def copied(tab: Any) -> str:
    """What a button just copied, read back from the clipboard."""
    until(tab, "document.querySelector('#said').textContent === 'Copied'")
    return tab.evaluate("navigator.clipboard.readText()")


def fits(tab: Any) -> None:
    """Nothing is wider than the window."""
    assert tab.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert tab.evaluate(OVERFLOWING) == []


def plots(tab: Any) -> dict[str, dict[str, Any]]:
    """What is drawn, by the id of its place; what is folded away is left out."""
    return {plot["id"]: plot for plot in tab.evaluate(PLOTS)}


def well_drawn(tab: Any) -> None:
    """Every plot has something in it, says what it is, titles its axes, and no label is cut or on another."""
    found = plots(tab)
    assert found
    for name, plot in found.items():
        assert plot["words"], name
        assert plot["marks"], f"{name} is empty"
        assert plot["untitled"] == 0, name
        assert plot["width"] == pytest.approx(plot["room"]["width"], abs=1), name
        assert not (cut := outside(plot)), (name, cut)
        assert not (pairs := overlapping(plot["texts"])), (name, pairs)


def outside(plot: dict[str, Any]) -> list[str]:
    """Labels that are not wholly inside their plot."""
    room = plot["room"]
    return [
        text["text"]
        for text in plot["texts"]
        if text["box"]["left"] < room["left"] - 0.5
        or text["box"]["right"] > room["right"] + 0.5
        or text["box"]["top"] < room["top"] - 0.5
        or text["box"]["bottom"] > room["bottom"] + 0.5
    ]


def overlapping(texts: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Pairs of labels that share more than a pixel both ways."""

    def shared(one: dict[str, float], other: dict[str, float], low: str, high: str) -> float:
        return min(one[high], other[high]) - max(one[low], other[low])

    return [
        (one["text"], other["text"])
        for index, one in enumerate(texts)
        for other in texts[index + 1 :]
        if shared(one["box"], other["box"], "left", "right") > 1
        and shared(one["box"], other["box"], "top", "bottom") > 1
    ]


def hover(tab: Any, plot: str, share_x: float = 0.5, share_y: float = 0.5) -> None:
    """Moves the pointer into the first axes of a plot, to a place given in shares of their size."""
    area = tab.locator(f"[id={json.dumps(plot)}] .nsewdrag").first
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    tab.mouse.move(box["x"] + share_x * box["width"], box["y"] + share_y * box["height"], steps=4)

"""The page in a real browser with the network off: it draws, fits, follows the theme, and asks for nothing."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from simslm.report import write_report

pytestmark = pytest.mark.browser

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHROMEDRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)

OVERFLOWING = """
const width = document.documentElement.clientWidth;
const clipped = (element) => element.closest(".scroll, svg") && !element.matches(".scroll");
return [...document.querySelectorAll("body *")]
  .filter((element) => !clipped(element) && element.getBoundingClientRect().right > width + 0.5)
  .map((element) => element.tagName + "." + element.className);
"""
PLOTS = """
return [...document.querySelectorAll(".plot")].map((plot) => ({
  id: plot.id,
  words: plot.getAttribute("aria-label"),
  curves: [...plot.querySelectorAll(".scatterlayer .trace path.js-line")].map((path) => path.getAttribute("d").length),
  titles: [...plot.querySelectorAll(".xtitle, [class^=y][class$=title]")].map((text) => text.textContent),
  box: plot.querySelector("svg").getBoundingClientRect().toJSON(),
  room: plot.getBoundingClientRect().toJSON(),
  texts: [...plot.querySelectorAll("svg text")]
    .filter((text) => text.textContent.trim() && text.getClientRects().length)
    .map((text) => ({ text: text.textContent, box: text.getBoundingClientRect().toJSON() })),
}));
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Headless Chromium that resolves no name and logs every request."""
    if not CHROMIUM or not CHROMEDRIVER:
        pytest.skip("needs Chromium and chromedriver on the PATH (Debian: chromium chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=CHROMEDRIVER, log_output=os.devnull)
    driver = webdriver.Chrome(options=options, service=service)
    driver.execute_cdp_cmd("Network.enable", {})
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def pages(make_run: Callable[..., Path]) -> dict[str, Path]:
    overloaded = make_run(name="overloaded", rate_rps=40, max_num_seqs=16, num_requests=600)
    roofline = make_run(name="roofline", source="roofline", power_note="no power", num_requests=60)
    both = write_report([overloaded, roofline], overloaded.parent / "both.html")
    return {"one": write_report([overloaded]), "roofline": write_report([roofline]), "both": both}


def opened(browser: Any, page: Path, width: int = 1280, scheme: str = "light") -> None:
    """Load the page at a width and a colour scheme, and wait until its plots are drawn."""
    emulate(browser, scheme)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.as_uri())
    wait(browser, "return document.documentElement.dataset.drawn")


def emulate(browser: Any, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def wait(browser: Any, script: str, seconds: float = 20.0) -> Any:
    end = time.monotonic() + seconds
    while not (value := browser.execute_script(script)):
        assert time.monotonic() < end, f"not within {seconds} s: {script}"
        time.sleep(0.02)
    return value


def requested(browser: Any) -> list[str]:
    """Every address asked for since the last call."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [message["params"] for message in messages if message["method"] == "Network.requestWillBeSent"]
    return [params["request"]["url"] for params in sent]


@pytest.mark.parametrize("name", ["one", "roofline", "both"])
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light")])
def test_the_page_opens_clean_and_fits(
    browser: Any, pages: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    requested(browser), browser.get_log("browser")
    opened(browser, pages[name], width, scheme)
    assert [url for url in requested(browser) if not url.startswith("data:")] == [pages[name].as_uri()]
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script(OVERFLOWING) == []


@pytest.mark.parametrize("width", [1280, 390])
def test_every_plot_is_drawn_labelled_and_inside_its_place(
    browser: Any, pages: dict[str, Path], width: int
) -> None:
    opened(browser, pages["one"], width)
    plots = browser.execute_script(PLOTS)
    assert [plot["id"] for plot in plots] == [
        f"run-1-{name}" for name in ("ttft_s", "tpot_s", "e2e_s", "timeline")
    ]
    for plot in plots:
        assert plot["curves"]
        assert min(plot["curves"]) > 100
        assert plot["words"]
        assert plot["box"]["width"] == pytest.approx(plot["room"]["width"], abs=1)
        for text in plot["texts"]:
            assert text["box"]["left"] >= plot["room"]["left"] - 0.5, text["text"]
            assert text["box"]["right"] <= plot["room"]["right"] + 0.5, text["text"]
    assert [sorted(plot["titles"]) for plot in plots[:3]] == [
        sorted(["requests, %", title]) for title in ("TTFT, s", "TPOT, ms", "E2E, s")
    ]
    timeline = ["requests", "sequences", "% of blocks", "tokens/s", "W", "simulated time, s"]
    assert sorted(plots[3]["titles"]) == sorted(timeline)


@pytest.mark.parametrize("width", [1280, 390])
def test_no_two_labels_of_a_plot_overlap(browser: Any, pages: dict[str, Path], width: int) -> None:
    opened(browser, pages["one"], width)
    for plot in browser.execute_script(PLOTS):
        boxes = [(text["text"], text["box"]) for text in plot["texts"]]
        clashes = [
            (one, other)
            for index, (one, a) in enumerate(boxes)
            for other, b in boxes[index + 1 :]
            if min(a["right"], b["right"]) - max(a["left"], b["left"]) > 1
            and min(a["bottom"], b["bottom"]) - max(a["top"], b["top"]) > 1
        ]
        assert clashes == [], plot["id"]


def test_the_page_follows_the_theme(browser: Any, pages: dict[str, Path]) -> None:
    opened(browser, pages["one"])
    ground = "return getComputedStyle(document.body).backgroundColor"
    curve = "return document.querySelector('.js-line').style.stroke"
    light = browser.execute_script(ground), browser.execute_script(curve)
    emulate(browser, "dark")
    wait(browser, f"return (() => {{ {curve} }})() !== {json.dumps(light[1])}")
    dark = browser.execute_script(ground), browser.execute_script(curve)
    assert light[0] == "rgb(246, 247, 249)"
    assert dark[0] == "rgb(14, 16, 19)"
    assert dark[1] == "rgb(90, 184, 238)"


def test_paper_is_light_and_narrow_and_the_screen_comes_back(browser: Any, pages: dict[str, Path]) -> None:
    opened(browser, pages["one"], scheme="dark")
    width = "return document.querySelector('#run-1-timeline svg').getBoundingClientRect().width"
    wide = browser.execute_script(width)
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert wait(browser, f"return (() => {{ {width} }})() < 700")
    assert (
        browser.execute_script("return document.querySelector('.js-line').style.stroke") == "rgb(0, 104, 166)"
    )
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    wait(browser, f"return (() => {{ {width} }})() === {wide}")


def test_a_narrower_window_redraws_the_plots(browser: Any, pages: dict[str, Path]) -> None:
    opened(browser, pages["one"])
    size = {"width": 390, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    wait(browser, "return document.querySelector('#run-1-timeline svg').getBoundingClientRect().width < 390")
    assert browser.execute_script(OVERFLOWING) == []


def test_the_copy_button_copies_the_command(browser: Any, pages: dict[str, Path]) -> None:
    opened(browser, pages["one"])
    browser.execute_script(
        "window.copied = null; navigator.clipboard.writeText = async (text) => { window.copied = text; };"
        "document.querySelector('[data-copy=run-1-command]').click();"
    )
    assert wait(browser, "return window.copied") == "simslm simulate scenarios/overloaded.yaml --seed 7"
    wait(browser, "return document.querySelector('[data-copy=run-1-command]').textContent === 'Copied'")


def test_what_unfolds_fits_too(browser: Any, pages: dict[str, Path]) -> None:
    opened(browser, pages["one"], 390)
    browser.execute_script("for (const each of document.querySelectorAll('details')) each.open = true")
    assert browser.execute_script(OVERFLOWING) == []
    assert browser.execute_script("return document.querySelector('#run-1-scenario').offsetHeight") > 200

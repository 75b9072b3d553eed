"""The page of a run in a real browser with the network off."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.browser import CLIPBOARD, copied, fits, hover, plots, until, well_drawn

from simslm.report import write_report

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def pages(make_run: Callable[..., Path]) -> dict[str, Path]:
    overloaded = make_run(name="overloaded", rate_rps=40, max_num_seqs=16, num_requests=600, replicas=2)
    roofline = make_run(name="roofline", source="roofline", power_note="no power", num_requests=60)
    both = write_report([overloaded, roofline], overloaded.parent / "both.html")
    lone = make_run(name="lone", num_requests=1)
    single = {"roofline": roofline, "lone": lone}
    return {"one": write_report([overloaded]), "both": both} | {
        name: write_report([run]) for name, run in single.items()
    }


@pytest.mark.parametrize("name", ["one", "roofline", "both", "lone"])
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
def test_the_page_fits_and_every_plot_is_drawn(
    opened: Any, pages: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    tab = opened(pages[name], width, scheme)
    fits(tab)
    well_drawn(tab)


def test_every_figure_is_there(opened: Any, pages: dict[str, Path]) -> None:
    names = ("ttft_s", "tpot_s", "itl_s", "e2e_s", "first", "timeline", "overview", "life")
    assert list(plots(opened(pages["one"]))) == [f"run-1-{name}" for name in names]


def test_the_pointer_on_a_curve_is_told_its_value(opened: Any, pages: dict[str, Path]) -> None:
    tab = opened(pages["one"])
    hover(tab, "run-1-ttft_s")
    tab.wait_for_selector("#run-1-ttft_s .hovertext")
    assert "% of requests: TTFT ≤" in tab.text_content("#run-1-ttft_s .hovertext")


GROUND = "getComputedStyle(document.body).backgroundColor"
CURVE = "document.querySelector('.js-line').style.stroke"
WIDTH = "document.querySelector('#run-1-timeline svg').getBoundingClientRect().width"


def test_the_page_follows_the_theme_of_the_system(opened: Any, pages: dict[str, Path]) -> None:
    tab = opened(pages["one"])
    assert tab.evaluate(GROUND) == "rgb(246, 247, 249)"
    assert tab.evaluate(CURVE) == "rgb(0, 80, 158)"
    tab.emulate_media(color_scheme="dark")
    until(tab, f"{CURVE} === 'rgb(79, 159, 240)'")
    assert tab.evaluate(GROUND) == "rgb(14, 16, 19)"


def test_the_reader_chooses_the_theme_from_the_keyboard(opened: Any, pages: dict[str, Path]) -> None:
    tab = opened(pages["one"])
    button = tab.get_by_role("button", name="Switch to the dark theme")
    button.focus()
    tab.keyboard.press("Enter")
    until(tab, f"{CURVE} === 'rgb(79, 159, 240)'")
    tab.get_by_role("button", name="Switch to the light theme").click()
    until(tab, f"{CURVE} === 'rgb(0, 80, 158)'")


def test_paper_is_light_and_narrow_and_the_screen_comes_back(opened: Any, pages: dict[str, Path]) -> None:
    tab = opened(pages["one"], scheme="dark")
    wide = tab.evaluate(WIDTH)
    tab.emulate_media(media="print", color_scheme="dark")
    until(tab, f"{WIDTH} < 720 && {CURVE} === 'rgb(0, 80, 158)'")
    assert tab.evaluate(GROUND) == "rgb(255, 255, 255)"
    assert not tab.is_visible("#theme")
    assert tab.is_visible("#run-1-requests tbody:not([hidden]) button")
    well_drawn(tab)
    tab.emulate_media(media="screen", color_scheme="dark")
    until(tab, f"{WIDTH} === {wide} && {CURVE} === 'rgb(79, 159, 240)'")


def test_a_narrower_window_redraws_the_plots(opened: Any, pages: dict[str, Path]) -> None:
    tab = opened(pages["one"])
    tab.set_viewport_size({"width": 360, "height": 900})
    until(tab, f"{WIDTH} < 360")
    fits(tab)
    well_drawn(tab)


def test_the_copy_button_copies_the_command(opened: Any, pages: dict[str, Path]) -> None:
    tab = opened(pages["one"], permissions=CLIPBOARD)
    button = tab.get_by_role("button", name="Copy the command")
    button.click()
    assert copied(tab) == "simslm simulate scenarios/overloaded.yaml --seed 7"


def test_what_unfolds_fits_too(opened: Any, pages: dict[str, Path]) -> None:
    tab = opened(pages["one"], 360)
    for summary in tab.locator("summary").all():
        summary.click()
    fits(tab)
    assert tab.locator("#run-1-scenario").bounding_box()["height"] > 200


SPAN = "document.querySelector('#run-1-timeline').layout.xaxis.range.map(Number)"
YS = "document.querySelector('#run-1-timeline').data.map((trace) => [trace.name, Math.max(...trace.y)])"


def test_the_brush_moves_all_rows_of_the_timeline(opened: Any, pages: dict[str, Path]) -> None:
    tab = opened(pages["one"])
    begin, end = tab.evaluate(SPAN)
    thumb = tab.get_by_label("Beginning of the time shown")
    thumb.scroll_into_view_if_needed()
    box = thumb.bounding_box()
    tab.mouse.move(box["x"] + 8, box["y"] + box["height"] / 2)
    tab.mouse.down()
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=5)
    tab.mouse.up()
    until(tab, f"Math.abs({SPAN}[0] - {(begin + end) / 2}) < {0.02 * (end - begin)}")
    assert tab.evaluate(SPAN)[1] == pytest.approx(end, rel=1e-5)
    assert (
        tab.evaluate(
            "new Set(document.querySelector('#run-1-timeline').data.map((trace) => trace.xaxis)).size"
        )
        == 1
    )
    tab.get_by_role("button", name="Whole run").click()
    until(tab, f"Math.abs({SPAN}[0] - {begin}) < 1e-3")
    assert tab.locator("#run-1-whole").is_disabled()


def test_the_brush_listens_to_the_keyboard_and_to_a_zoom(opened: Any, pages: dict[str, Path]) -> None:
    tab = opened(pages["one"])
    begin, end = tab.evaluate(SPAN)
    thumb = tab.get_by_label("End of the time shown")
    thumb.focus()
    for _ in range(3):
        tab.keyboard.press("PageDown")
    until(tab, f"{SPAN}[1] < {end - 0.2 * (end - begin)}")
    assert " s to " in thumb.get_attribute("aria-valuetext")
    hover(tab, "run-1-timeline", 0.2)
    tab.mouse.down()
    hover(tab, "run-1-timeline", 0.4)
    tab.mouse.up()
    until(tab, f"{SPAN}[0] > {begin + 0.1 * (end - begin)}")
    until(tab, "document.querySelector('#run-1-brush input').value > 100")
    tab.get_by_role("button", name="Whole run").click()
    until(tab, f"Math.abs({SPAN}[0] - {begin}) < 1e-3 && Math.abs({SPAN}[1] - {end}) < 1e-3")


def test_what_the_brush_shows_stays_through_a_change_of_theme(opened: Any, pages: dict[str, Path]) -> None:
    tab = opened(pages["one"])
    begin, end = tab.evaluate(SPAN)
    tab.get_by_label("End of the time shown").focus()
    tab.keyboard.press("PageDown")
    until(tab, f"{SPAN}[1] < {end - 0.05 * (end - begin)}")
    shown = tab.evaluate(SPAN)
    tab.locator("#theme").click()
    until(tab, f"{CURVE} === 'rgb(79, 159, 240)'")
    assert tab.evaluate(SPAN) == pytest.approx(shown)


def test_the_timeline_shows_all_replicas_each_or_one(opened: Any, pages: dict[str, Path]) -> None:
    tab = opened(pages["one"])
    together = dict(tab.evaluate(YS))
    tab.select_option("#run-1-shown", "1")
    until(tab, "document.querySelector('#run-1-timeline-title .name').textContent === 'Replica 1'")
    alone = dict(tab.evaluate(YS))
    assert alone.keys() <= together.keys()
    assert alone["sequences decoding, highest"] <= 16 < together["sequences decoding, highest"] <= 32
    limits = "document.querySelector('#run-1-timeline').layout.annotations[1].text.match(/limit (\\d+)/)[1]"
    assert tab.evaluate(limits) == "16"
    tab.select_option("#run-1-shown", "each")
    until(tab, "document.querySelector('#run-1-timeline').data[0].name === 'replica 0'")
    assert len(tab.evaluate(YS)) == 2 * 6
    assert tab.locator("#run-1-keys").inner_text().split() == ["replica", "0", "replica", "1"]
    well_drawn(tab)
    tab.select_option("#run-1-shown", "-1")
    until(
        tab, "document.querySelector('#run-1-timeline-title .name').textContent === 'All replicas together'"
    )
    assert dict(tab.evaluate(YS)) == together


def life(tab: Any) -> str:
    return tab.text_content("#run-1-life-title .name")


def test_a_click_on_a_request_shows_its_life(opened: Any, pages: dict[str, Path]) -> None:
    tab = opened(pages["one"])
    rows = tab.locator("#run-1-requests tbody:not([hidden]) tr")
    assert rows.count() == 10
    first, third = (rows.nth(i).get_attribute("data-life") for i in (0, 2))
    assert life(tab) == f"Request {first}"
    rows.nth(2).locator("td").nth(3).click()
    until(tab, f"document.querySelector('#run-1-life-title .name').textContent === 'Request {third}'")
    assert f"Life of request {third}: arrived" in tab.get_attribute("#run-1-life", "aria-label")
    shown = tab.locator("#run-1-events dt").all_inner_texts()
    assert shown == ["arrived", "scheduled", "first token", "finished"]
    assert tab.locator("tr.current").count() == 1
    assert (
        tab.locator(f"tbody:not([hidden]) tr[data-life='{third}'] button").get_attribute("aria-pressed")
        == "true"
    )
    well_drawn(tab)


def test_enter_on_a_request_shows_its_life_and_says_so(opened: Any, pages: dict[str, Path]) -> None:
    tab = opened(pages["one"])
    tab.select_option("#run-1-rank", "ttft_s")
    button = tab.locator("#run-1-requests tbody:not([hidden]) button").nth(1)
    name = button.inner_text()
    button.focus()
    tab.keyboard.press("Enter")
    until(tab, f"document.querySelector('#said').textContent.startsWith('Life of request {name}:')")
    assert life(tab) == f"Request {name}"
    assert (
        tab.evaluate("document.querySelector('#run-1-life').layout.annotations[0].text") == f"Request {name}"
    )


FOCUSED = """(() => {
  const focused = document.activeElement;
  return [focused.tagName, focused.id, getComputedStyle(focused).outlineStyle];
})()"""


def test_everything_that_acts_is_reached_by_the_keyboard_and_seen_there(
    opened: Any, pages: dict[str, Path]
) -> None:
    tab = opened(pages["one"])
    reached = set()
    for _ in range(60):
        tab.keyboard.press("Tab")
        tag, name, outline = tab.evaluate(FOCUSED)
        reached.add(f"{tag}#{name}" if name else tag)
        assert tag == "BODY" or outline != "none", (tag, name)
    assert {
        "BUTTON#theme",
        "SELECT#run-1-shown",
        "SELECT#run-1-rank",
        "INPUT",
        "BUTTON",
        "SUMMARY",
        "A",
    } <= reached


def test_landmarks_headings_tables_and_figures_have_names(opened: Any, pages: dict[str, Path]) -> None:
    tab = opened(pages["both"])
    for landmark in ("banner", "navigation", "main", "contentinfo"):
        assert tab.get_by_role(landmark).count() >= 1, landmark
    nameless = tab.evaluate(
        """() => [...document.querySelectorAll("table:not(:has(caption)), th:not([scope]), section:not([aria-label])" +
          ":not([aria-labelledby]), input:not([aria-label]), .plot:not([aria-label]), figure:not(:has(figcaption))")]
          .map((element) => element.outerHTML.slice(0, 80))"""
    )
    assert nameless == []
    levels = tab.evaluate(
        "[...document.querySelectorAll('h1, h2, h3')].map((heading) => +heading.tagName[1])"
    )
    assert levels[0] == 1
    assert all(below - above <= 1 for above, below in itertools.pairwise(levels))
    assert tab.locator("html").get_attribute("lang") == "en"

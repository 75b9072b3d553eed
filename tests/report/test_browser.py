"""The page of a run in a real browser with the network off."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.browser import CLIPBOARD, copied, fits, hover, plots, until, well_drawn

from simslm.report import write_report

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def pages(make_run: Callable[..., Path]) -> dict[str, Path]:
    overloaded = make_run(name="overloaded", rate_rps=40, max_num_seqs=16, num_requests=600)
    roofline = make_run(name="roofline", source="roofline", power_note="no power", num_requests=60)
    both = write_report([overloaded, roofline], overloaded.parent / "both.html")
    return {"one": write_report([overloaded]), "roofline": write_report([roofline]), "both": both}


@pytest.mark.parametrize("name", ["one", "roofline", "both"])
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light")])
def test_the_page_fits_and_every_plot_is_drawn(
    opened: Any, pages: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    tab = opened(pages[name], width, scheme)
    fits(tab)
    well_drawn(tab)


def test_every_figure_is_there(opened: Any, pages: dict[str, Path]) -> None:
    names = ("ttft_s", "tpot_s", "e2e_s", "timeline")
    assert list(plots(opened(pages["one"]))) == [f"run-1-{name}" for name in names]


def test_the_pointer_on_a_curve_is_told_its_value(opened: Any, pages: dict[str, Path]) -> None:
    tab = opened(pages["one"])
    hover(tab, "run-1-ttft_s")
    tab.wait_for_selector("[id=run-1-ttft_s] .hovertext")
    assert "% of requests: TTFT ≤" in tab.text_content("[id=run-1-ttft_s] .hovertext")


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
    well_drawn(tab)
    tab.emulate_media(media="screen", color_scheme="dark")
    until(tab, f"{WIDTH} === {wide} && {CURVE} === 'rgb(79, 159, 240)'")


def test_a_narrower_window_redraws_the_plots(opened: Any, pages: dict[str, Path]) -> None:
    tab = opened(pages["one"])
    tab.set_viewport_size({"width": 390, "height": 900})
    until(tab, f"{WIDTH} < 390")
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

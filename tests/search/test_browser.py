"""The page of a search in a real browser with the network off: what the reader changes, and what follows from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from support.browser import CLIPBOARD, copied, fits, plots, until, well_drawn

import simslm
from simslm.api import load_scenario
from simslm.report import choice, write_report
from simslm.search import files
from simslm.search.frontier import frontier, inside, near, nearness, points
from simslm.search.objectives import Constraint
from simslm.search.run import SearchResult

pytestmark = pytest.mark.browser

THROUGHPUT, ITL, TTFT = "throughput.output_tokens_per_s", "itl_s.p50", "ttft_s.p99"


@pytest.fixture(scope="module")
def result() -> SearchResult:
    """Random arrivals under three seeds, so that a frontier is a matter of intervals; a constraint that some break."""
    return simslm.search(
        load_scenario(
            {
                "schema_version": 1,
                "name": "asked <b>& more</b>",
                "model": "opt-1.3b",
                "device": "h200",
                "cost": {"roofline": {}},
                "workload": {
                    "num_requests": 60,
                    "arrivals": {"process": "poisson", "rate_rps": 400},
                    "prompt_tokens": {"dist": "lognormal", "mean": 200, "p95": 600},
                    "output_tokens": {"dist": "uniform", "low": 1, "high": 60},
                },
                "slo": {"ttft_s": 0.1, "tpot_s": 0.01, "attainment": 0.5},
                "search": {
                    "space": {
                        "deployment.engine.max_num_seqs": [1, 2, 4, 8, 16, 32],
                        "deployment.engine.max_num_batched_tokens": [64, 256, 1024],
                    },
                    "objectives": {THROUGHPUT: "max", ITL: "min", "energy.j_per_output_token": "min"},
                    "constraints": ["e2e_s.p99 <= 2"],
                    "slo": "ignored",
                    "replications": 3,
                    "near": 0.01,
                },
            }
        ),
        again=["asked.yaml"],
    )


@pytest.fixture(scope="module")
def page(result: SearchResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("search")
    files.write(directory, result)
    return write_report([directory])


@pytest.fixture
def tab(opened: Any, page: Path) -> Any:
    tab = opened(page, permissions=CLIPBOARD)
    until(tab, "document.documentElement.dataset.explored")
    return tab


def numbers(tab: Any, layer: str) -> set[int]:
    """The points that are drawn in one layer."""
    of_layer = "document.getElementById('explorer').data.filter((each) => each.name === name)[0].customdata"
    return set(tab.evaluate(f"(name) => {of_layer}.map((point) => simslm.data.numbers[point])", layer))


def move(tab: Any, bound: int, position: int) -> None:
    """Drags a slider to a position."""
    slider = tab.locator(f"#bound-{bound}")
    slider.evaluate(
        "(input, to) => { input.value = to; input.dispatchEvent(new Event('input', {bubbles: true})); }",
        position,
    )


PLACE = """(point) => {
  const plot = document.getElementById("explorer");
  const trace = plot.data.find((each) => each.customdata?.includes(point));
  const at = trace.customdata.indexOf(point);
  const box = plot.getBoundingClientRect();
  const { xaxis, yaxis } = plot._fullLayout;
  return [box.x + xaxis._offset + xaxis.d2p(trace.x[at]), box.y + yaxis._offset + yaxis.d2p(trace.y[at])];
}"""
"""Where a point is drawn in the window."""


ALONE = """(() => {
  const drawn = document.getElementById("explorer").data.filter((each) => each.customdata && each.name !== "chosen");
  const [x, y] = [drawn.flatMap((each) => each.x), drawn.flatMap((each) => each.y)];
  const size = (values) => Math.max(...values) - Math.min(...values);
  const front = drawn.find((each) => each.name === "frontier");
  const room = (at) => Math.min(...x.map((_, i) => {
    const distance = Math.hypot((x[i] - front.x[at]) / size(x), (y[i] - front.y[at]) / size(y));
    return distance || Infinity;
  }));
  const places = front.customdata.map((_, at) => at).slice(1);
  return front.customdata[places.reduce((found, at) => (room(at) > room(found) ? at : found))];
})()"""
"""The point of the frontier that is drawn furthest from any other, the best left out."""


def found(result: SearchResult, *more: Constraint) -> tuple[set[int], set[int]]:
    """The points that keep the constraints of a search and some more, and those of them on the frontier."""
    goals = replace(result.goals, constraints=(*result.goals.constraints, *more))
    kept = inside(points(result.done), goals)
    asked = result.search
    chosen = frontier(near(kept, goals, nearness(asked)), goals, asked.confidence, asked.margin)
    return {point.number for point in kept}, {choice.point.number for choice in chosen}


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
def test_it_fits_and_every_plot_is_drawn(opened: Any, page: Path, width: int, scheme: str) -> None:
    tab = opened(page, width, scheme)
    until(tab, "document.documentElement.dataset.explored")
    fits(tab)
    well_drawn(tab)
    assert list(plots(tab)) == ["explorer", "heat", "shares", "growth"]


def test_it_begins_with_the_answer_of_the_search(tab: Any, result: SearchResult) -> None:
    assert numbers(tab, "frontier") == {point.number for point in result.points}
    kept = {point.number for point in result.feasible}
    assert numbers(tab, "beaten or the same") == kept - numbers(tab, "frontier")
    assert len(numbers(tab, "breaks a bound")) == 18 - len(kept) > 0
    assert (
        f"{len(kept)} of 18 points keep the bounds; {len(result.points)} on the frontier"
        in tab.text_content("#answer")
    )


@pytest.mark.parametrize("position", [20, 60, 90, 120, 160])
def test_a_bound_moves_the_feasible_set_and_the_frontier_as_the_search_would(
    tab: Any, result: SearchResult, position: int
) -> None:
    row = tab.locator(".bound", has_text="TTFT")
    number = int(row.get_attribute("data-bound"))
    move(tab, number, position)
    bound = tab.evaluate(f"explorer.state.bounds[{number}].bound")
    kept, front = found(result, Constraint("", TTFT, "<=", bound))
    until(tab, f"document.getElementById('answer').textContent.includes('. {len(kept)} of 18')")
    assert numbers(tab, "frontier") == front
    assert numbers(tab, "beaten or the same") == kept - front
    assert row.locator("output").text_content() == tab.evaluate(
        f"document.getElementById('bound-{number}').ariaValueText"
    )


def test_every_position_of_a_slider_is_a_bound_of_its_own_or_a_finer_one(
    tab: Any, result: SearchResult
) -> None:
    row = tab.locator(".bound", has_text="TPOT")
    row.locator("select").select_option("tpot_s.mean")
    sizes = []
    for position in range(0, 201, 10):
        move(tab, int(row.get_attribute("data-bound")), position)
        sizes.append(tab.evaluate("explorer.answer().kept.length"))
    assert sizes == sorted(sizes)
    assert sizes[0] < 3
    assert sizes[-1] == len(result.feasible)


def test_nothing_may_be_left_and_a_reset_brings_all_back(tab: Any, result: SearchResult) -> None:
    for row in tab.locator(".bound").all():
        move(tab, int(row.get_attribute("data-bound")), 0)
    until(tab, "document.getElementById('answer').textContent.startsWith('None of 18 points')")
    assert not tab.is_visible("#chosen")
    tab.get_by_role("button", name="Reset").click()
    until(tab, f"document.getElementById('answer').textContent.includes('. {len(result.feasible)} of 18')")
    assert tab.is_visible("#chosen")


def test_the_stated_slo_is_one_click_away(tab: Any, result: SearchResult) -> None:
    tab.get_by_role("button", name="as stated").click()
    kept, front = found(result, Constraint("", "slo.attainment", ">=", 0.5))
    until(tab, f"document.getElementById('answer').textContent.includes('. {len(kept)} of 18')")
    assert numbers(tab, "frontier") == front
    assert len(kept) < len(result.feasible)


def test_the_axes_are_the_readers(tab: Any) -> None:
    tab.select_option("#axis-x", "deployment.engine.max_num_seqs")
    tab.select_option("#axis-y", TTFT)
    until(tab, "document.getElementById('explorer').layout.xaxis.title.text === 'max_num_seqs'")
    assert tab.evaluate("document.getElementById('explorer').layout.yaxis.title.text").startswith(
        "TTFT p99, "
    )
    drawn = tab.evaluate(
        "document.getElementById('explorer').data.flatMap((each) => each.customdata ? each.x : [])"
    )
    assert set(drawn) == {1, 2, 4, 8, 16, 32}
    well_drawn(tab)


def test_three_objectives_at_once(tab: Any) -> None:
    tab.get_by_role("button", name="3-D").click()
    until(tab, "document.querySelector('#explorer .gl-container canvas')")
    titles = tab.evaluate(
        "['x', 'y', 'z'].map((name) => document.getElementById('explorer').layout.scene[`${name}axis`].title.text)"
    )
    assert [title.split(",")[0] for title in titles] == [
        "Output token throughput",
        "Energy per output token",
        "ITL p50",
    ]
    assert all(title.endswith(("↑", "↓")) for title in titles)
    well_drawn(tab)
    tab.get_by_role("button", name="2-D").click()
    until(tab, "document.querySelector('#explorer .scatterlayer .point')")


def test_the_best_point_is_marked_chosen_and_named(tab: Any, result: SearchResult) -> None:
    """The one that the headline, the terminal and frontier.json name."""
    best = result.frontier["best"]
    assert numbers(tab, "best") == {best}
    assert tab.evaluate("(at) => simslm.data.numbers[at]", int(tab.input_value("#choice"))) == best
    words = choice.headline(result.frontier)
    assert tab.text_content(".verdict .word").strip().startswith("Choose max_num_seqs ")
    assert words in " ".join(tab.text_content(".verdict").split())
    assert tab.text_content("#answer").startswith(words.removesuffix("."))


@pytest.fixture(scope="module")
def turning_away(tmp_path_factory: pytest.TempPathFactory) -> tuple[SearchResult, Path]:
    """Half of the points turn most of the requests away, and are let do so."""
    result = simslm.search(
        load_scenario(
            {
                "name": "turning away",
                "model": "opt-1.3b",
                "device": "h200",
                "cost": {"roofline": {}},
                "workload": {
                    "num_requests": 80,
                    "arrivals": {"process": "poisson", "rate_rps": 400},
                    "prompt_tokens": {"dist": "fixed", "value": 200},
                    "output_tokens": {"dist": "uniform", "low": 1, "high": 60},
                },
                "search": {
                    "space": {
                        "deployment.engine.max_num_seqs": [1, 4, 16, 64],
                        "deployment.engine.admission": ["open", {"policy": "limits", "max_queue": 1}],
                    },
                    "objectives": {"throughput.requests_per_s": "max", TTFT: "min"},
                    "finished_share": 0,
                    "replications": 2,
                },
            }
        )
    )
    directory = tmp_path_factory.mktemp("turning")
    files.write(directory, result)
    return result, write_report([directory])


def test_points_that_turn_requests_away_have_no_latency_and_lose(
    opened: Any, turning_away: tuple[SearchResult, Path]
) -> None:
    result, page = turning_away
    tab = opened(page)
    until(tab, "document.documentElement.dataset.explored")
    assert numbers(tab, "frontier") == {point.number for point in result.points}
    at = next(
        i
        for i, number in enumerate(tab.evaluate("simslm.data.numbers"))
        for trial, outcome in result.done
        if trial.point == number and outcome.values[TTFT] == float("inf")
    )
    tab.select_option("#choice", str(at))
    shown = tab.text_content("#chosen-figures")
    assert "TTFT p99none" in shown
    assert "Rejected" in shown
    well_drawn(tab)


def test_a_point_says_its_configuration_under_the_pointer_and_is_chosen_by_a_click(tab: Any) -> None:
    alone = tab.evaluate(ALONE)
    tab.locator("#explorer").scroll_into_view_if_needed()
    place = tab.evaluate(PLACE, alone)
    tab.mouse.move(*place, steps=4)
    tab.wait_for_selector("#explorer .hovertext")
    said = tab.text_content("#explorer .hovertext")
    assert tab.evaluate(f"explorer.answer().best !== {alone}")
    assert "max_num_seqs " in said
    assert "mean of 3 seeds" in said
    tab.mouse.click(*place)
    until(tab, f"document.getElementById('choice').value === '{alone}'")
    assert "tokens/s" in tab.text_content("#chosen-figures")


def test_a_point_is_copied_as_flags_as_a_scenario_and_as_a_command(
    tab: Any, result: SearchResult, tmp_path: Path
) -> None:
    point = result.frontier["points"][-1]
    index = tab.evaluate("(number) => simslm.data.numbers.indexOf(number)", point["point"])
    tab.select_option("#choice", str(index))
    tab.get_by_role("button", name="Copy as vLLM flags").click()
    assert copied(tab) == point["vllm"]
    tab.evaluate("document.querySelector('#said').textContent = ''")
    tab.get_by_role("button", name="Copy simulate command").click()
    assert copied(tab) == point["command"]
    tab.evaluate("document.querySelector('#said').textContent = ''")
    tab.get_by_role("button", name="Copy scenario").click()
    text = copied(tab)
    assert YAML(typ="safe", pure=True).load(text) == point["scenario"]
    (tmp_path / "point.yaml").write_text(text, encoding="utf-8")
    engine = load_scenario(tmp_path / "point.yaml").deployment.engine
    assert engine.max_num_seqs == point["parameters"]["deployment.engine.max_num_seqs"]


def test_points_off_the_frontier_are_copied_too(tab: Any, result: SearchResult) -> None:
    off = next(iter(sorted(numbers(tab, "breaks a bound"))))
    tab.select_option("#choice", str(tab.evaluate("(number) => simslm.data.numbers.indexOf(number)", off)))
    tab.get_by_role("button", name="Copy as vLLM flags").click()
    limit = next(
        trial.parameters["deployment.engine.max_num_seqs"] for trial, _ in result.done if trial.point == off
    )
    assert f"--max-num-seqs {limit} " in copied(tab)


def test_the_heat_map_shows_the_best_of_each_cell_and_chooses(tab: Any) -> None:
    cells = tab.evaluate("document.getElementById('heat').data[0].z")
    assert (len(cells), len(cells[0])) == (6, 3)
    tab.select_option("#heat-row", "deployment.engine.max_num_batched_tokens")
    tab.select_option("#heat-column", "deployment.engine.max_num_seqs")
    tab.select_option("#heat-figure", ITL)
    until(tab, "document.getElementById('heat').data[0].z.length === 3")
    turned = tab.evaluate("document.getElementById('heat').data[0].z")
    values = tab.evaluate(
        f"simslm.data.figures.find((each) => each.path === '{ITL}').values.map((each) => 1000 * each)"
    )
    shown = [value for row in turned for value in row if value is not None]
    assert sorted(shown) == pytest.approx(
        sorted(values[point] for point in tab.evaluate("explorer.answer().kept"))
    )
    tab.locator("#heat").scroll_into_view_if_needed()
    area = tab.locator("#heat .nsewdrag").bounding_box()
    column = turned[-1].index(max(value for value in turned[-1] if value is not None))
    tab.mouse.click(area["x"] + area["width"] * (column + 0.5) / 6, area["y"] + 8)
    until(tab, "explorer.state.chosen !== null")


def test_the_commands_of_a_point_can_be_copied_from_the_table(tab: Any) -> None:
    tab.locator("details[id^=point] summary").first.click()
    tab.locator("details [data-copy]").first.click()
    assert copied(tab).startswith("simslm simulate asked.yaml --set deployment.engine.max_num_seqs=")

"""Every number of a summary can be explained, by any of its names; the glossary is what the program says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simslm.metrics.definitions import METRICS
from simslm.metrics.divided import DIVIDED
from simslm.metrics.figure_paths import FIGURES, figures_of
from simslm.metrics.glossary import TERMS, markdown

GLOSSARY = Path(__file__).parents[2] / "docs" / "glossary.md"
NOT_FIGURES = ("schema_version", "population", "counted", "intervals", "cost")


def numbers(value, path=""):
    """The dotted paths of the numbers (and unknown ones) of a summary."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from numbers(inner, f"{path}.{key}" if path else key)
    elif not isinstance(value, str):
        yield path


def test_the_glossary_is_what_the_program_says(simslm):
    assert simslm("explain", "--markdown").out == GLOSSARY.read_text(encoding="utf-8") == markdown()


def test_every_number_of_a_summary_is_defined(simslm, scenario):
    summary = json.loads(simslm("simulate", scenario, "--json").out)
    found = {path for path in numbers(summary) if path.partition(".")[0] not in NOT_FIGURES}
    assert found == set(FIGURES)


def test_definitions_are_whole():
    names = [each.name.lower() for each in (*METRICS, *DIVIDED, *TERMS)]
    assert len(set(names)) == len(names)
    for metric in (*METRICS, *DIVIDED):
        assert metric.definition
        assert metric.better in ("less", "more", "")
        assert metric.formula or metric.unit in ("requests", "programs"), metric.key


@pytest.mark.parametrize("name", ["ttft_s", "ttft_s.p99", "TTFT", "ttft", "time to first token"])
def test_a_figure_goes_by_its_names(simslm, name):
    ended = simslm("explain", name)
    assert ended.code == 0
    assert "first output token’s time − arrival" in ended.out
    assert "first_token_s − arrival_s" in ended.out
    assert "ttft_s.{mean,p50,p90,p95,p99,max}" in ended.out


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *figures_of(("chat",), programs=True, gateway=True, group_routing=True),
        *(metric.name for metric in (*METRICS, *DIVIDED)),
        *(term.name for term in TERMS),
    ],
)
def test_every_name_is_known(simslm, name):
    assert simslm("explain", name, "--json").code == 0


def test_without_a_name_everything_is_listed(simslm):
    shown, listed = simslm("explain").out, json.loads(simslm("explain", "--json").out)
    assert all(metric.meaning in shown for metric in (*METRICS, *DIVIDED))
    assert all(term.definition in shown for term in TERMS)
    assert [each["key"] for each in listed["figures"]] == [metric.key for metric in (*METRICS, *DIVIDED)]
    assert [each["name"] for each in listed["words"]] == [term.name for term in TERMS]


def test_a_run_shows_the_value_and_what_bounded_it(simslm, scenario):
    summary = json.loads(simslm("simulate", scenario, "--json", "-o", "run").out)
    found = json.loads(simslm("explain", "ttft_s", "--run", "run", "--json").out)["run"]
    assert found["values"] == {f"ttft_s.{name}": value for name, value in summary["ttft_s"].items()}
    shown = simslm("explain", "goodput", "--run", "run").out
    assert "Goodput" in shown
    assert "why:" in shown
    assert found["bound"][0] in shown


def test_an_unknown_figure_says_why(simslm, scenario):
    simslm("simulate", scenario, "-o", "run")
    shown = simslm("explain", "economics.usd_per_million_output_tokens", "--run", "run").out
    assert "not known: the scenario has no economics section" in shown


def test_a_wrong_name_is_refused_with_the_nearest(simslm, here):
    ended = simslm("explain", "tftt_s.p99")
    assert ended.code == 2
    assert "did you mean 'ttft_s.p99'" in ended.complaint


def test_no_run_no_value(simslm, here):
    ended = simslm("explain", "ttft_s", "--run", "nowhere")
    assert ended.code == 2
    assert "nowhere" in ended.complaint

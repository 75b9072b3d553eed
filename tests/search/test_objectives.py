"""The figures that may be asked for are those of a summary."""

from __future__ import annotations

from typing import Any

import pytest

from simslm.api import load_scenario, simulate
from simslm.errors import ScenarioError
from simslm.metrics.figure_paths import FIGURES
from simslm.search.objectives import Constraint, figure, goals


def leaves(value: Any, place: str = "") -> set[str]:
    """The dotted paths of all numbers, and of what would be one, in a summary."""
    if isinstance(value, dict):
        return {
            path for key, each in value.items() for path in leaves(each, f"{place}.{key}" if place else key)
        }
    return set() if isinstance(value, str) else {place}


def test_every_number_of_a_summary_is_known(small):
    small["economics"] = {"g_co2_per_kwh": 300}
    summary = simulate(load_scenario(small)).summary
    del summary["intervals"], summary["schema_version"], summary["population"]  # about the figures
    assert leaves(summary) == set(FIGURES)
    assert all(figure(summary, path) is not None for path in FIGURES)


def test_what_is_no_figure_is_refused_with_all_its_places(searched):
    searched["search"] |= {
        "objectives": {"throughput.output_token_per_s": "min", "capacity.value": "max"},
        "constraints": ["ttft_s.p99 <= 1", "ttft.p99 <= 1"],
    }
    scenario = load_scenario(searched)
    assert scenario.search is not None
    with pytest.raises(ScenarioError) as caught:
        goals(scenario, scenario.search)
    assert [problem.partition(": ")[2] for problem in caught.value.problems] == [
        "search.objectives: no figure 'throughput.output_token_per_s' in summary.json "
        "(did you mean 'throughput.output_tokens_per_s'?)",
        "search.objectives: no figure 'capacity.value' in summary.json without search.capacity",
        "search.constraints: no figure 'ttft.p99' in summary.json (did you mean 'ttft_s.p99'?)",
    ]


@pytest.mark.parametrize(
    ("sign", "bound", "value", "excess"),
    [("<=", 2.0, 3.0, 0.5), ("<=", 2.0, 2.0, 0.0), (">=", 4.0, 3.0, 0.25), ("<=", 0.0, 3.0, 3.0)],
)
def test_how_far_a_constraint_is_missed(sign, bound, value, excess):
    assert Constraint("", "x", sign, bound).excess(value) == excess

"""Requests that are turned away are misses with infinite latency wherever a configuration is chosen."""

from __future__ import annotations

import json
from math import ceil, inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import simslm
from simslm.api import load_scenario, simulate
from simslm.errors import InfeasibleError
from simslm.metrics.misses import figures
from simslm.metrics.quantiles import LEVELS, distribution
from simslm.report import choice, write_report
from simslm.search import files
from simslm.search.objectives import goals
from simslm.search.reasons import infeasible
from simslm.sim.log import FINISHED

TURNING_AWAY = {"policy": "limits", "max_queue": 1}
ADMISSION = "deployment.engine.admission"
TTFT = "ttft_s.p99"


@pytest.fixture
def crowded(small: dict) -> dict:
    """More requests than a batch of 4 can serve; with and without turning some away."""
    small["workload"] |= {"num_requests": 120, "arrivals": {"process": "poisson", "rate_rps": 200}}
    small["deployment"] = {"engine": {"max_num_seqs": 4}}
    del small["slo"]
    small["search"] = {
        "space": {ADMISSION: ["open", TURNING_AWAY]},
        "objectives": {"throughput.requests_per_s": "max", TTFT: "min"},
        "replications": 2,
    }
    return small


def quantile(values: list[float], misses: int, level: float) -> float:
    """Linear between order statistics, those that are missing infinite."""
    every = sorted(values) + [inf] * misses
    position = level * (len(every) - 1)
    low, high = every[int(position)], every[ceil(position)]
    return high if high == inf else low + (high - low) * (position - int(position))


@given(st.lists(st.floats(0, 100), max_size=30), st.integers(1, 30))
def test_a_percentile_counts_misses_as_infinite(values, misses):
    found = distribution(np.array(values, dtype=float)).spread(misses)
    assert found["mean"] == found["max"] == inf
    for name, level in LEVELS.items():
        assert found[name] == pytest.approx(quantile(values, misses, level), rel=1e-12)


def test_two_percent_missing_leave_the_median_and_take_the_tail():
    values = np.arange(1.0, 99.0)
    found = distribution(values).spread(2)
    assert found["p50"] == 50.5
    assert found["p95"] == pytest.approx(95.05)
    assert found["p99"] == inf


def test_the_figures_of_a_run_count_its_misses(crowded):
    crowded["workload"] |= {"timeout_s": 1.0}
    result = simulate(load_scenario(crowded, {ADMISSION: TURNING_AWAY}))
    counts = result.summary["requests"]
    assert min(counts["finished"], counts["rejected"]) > 5
    found = figures(result)
    columns = result.request_columns
    done = columns["status"] == FINISHED
    for name in ("ttft_s", "e2e_s", "queue_s", "tpot_s"):
        known = columns[name][done]
        missing = ~done & (columns["output_tokens"] > 1) if name == "tpot_s" else ~done
        for statistic, level in LEVELS.items():
            by_hand = quantile(known[~np.isnan(known)].tolist(), int(missing.sum()), level)
            assert found[f"{name}.{statistic}"] == pytest.approx(by_hand, rel=1e-12), (name, statistic)
    assert found["itl_s.mean"] == inf
    assert np.isnan(columns["ttft_s"][columns["status"] != FINISHED]).any()  # the tables keep their nulls


def test_a_run_that_misses_nothing_has_nothing_to_add(crowded):
    assert figures(simulate(load_scenario(crowded))) == {}


def test_classes_and_programs_count_their_own(crowded):
    crowded["workload"]["classes"] = {
        "short": {"output_tokens": {"dist": "fixed", "value": 2}},
        "chat": {
            "programs": {"kind": "conversation", "turns": 2, "think_time_s": 0},
            "arrivals": {"process": "poisson", "rate_rps": 100},
            "num_requests": 30,
        },
    }
    result = simulate(load_scenario(crowded, {ADMISSION: TURNING_AWAY}))
    found = figures(result)
    columns = result.request_columns
    for name in ("short", "chat"):
        mine = columns["class"] == name
        done = mine & (columns["status"] == FINISHED)
        missing = int(mine.sum() - done.sum())
        by_hand = quantile(columns["ttft_s"][done].tolist(), missing, 0.5)
        assert found[f"classes.{name}.ttft_s.p50"] == pytest.approx(by_hand)
    programs = result.summary["classes"]["chat"]["programs"]
    took = simulate(load_scenario(crowded, {ADMISSION: TURNING_AWAY})).summary["classes"]["chat"]["programs"]
    assert programs == took
    assert programs["failed"] > 0
    assert found["classes.chat.programs.jct_s.max"] == inf


def asked(mapping: dict, **changes: Any) -> dict[str, Any]:
    mapping["search"] |= changes
    return simslm.search(load_scenario(mapping)).frontier


def test_turning_away_wins_nothing(crowded):
    """It has the shortest waits of those that it lets in, and is not even feasible unless the search lets it be."""
    admitted = simulate(load_scenario(crowded, {ADMISSION: TURNING_AWAY})).summary
    everyone = simulate(load_scenario(crowded)).summary
    assert admitted["ttft_s"]["p99"] < everyone["ttft_s"]["p99"] / 2
    found = asked(crowded)
    assert [point["parameters"][ADMISSION] for point in found["points"]] == ["open"]
    assert found["constraints"] == ["requests.finished_share >= 0.99"]
    assert found["bounds"][0]["origin"] == "default"
    (violated,) = found["violated"]
    assert violated["closest"] == pytest.approx(admitted["requests"]["finished"] / 120, abs=0.1)


def test_where_it_may_win_throughput_its_latency_is_none(crowded):
    found = asked(crowded, finished_share=0, objectives={TTFT: "min"}, replications=1)
    (point,) = found["points"]
    assert point["parameters"][ADMISSION] == "open"
    del crowded["search"]["objectives"]
    found = asked(crowded, space={ADMISSION: [TURNING_AWAY]}, objectives={TTFT: "min", "ttft_s.p50": "min"})
    (point,) = found["points"]
    assert point["objectives"][TTFT] == {"value": None, "interval": None}
    assert point["requests"]["rejected_share"] > 0.3
    assert point["requests"]["finished_share"] + point["requests"]["rejected_share"] == pytest.approx(1)


@pytest.mark.slow
@pytest.mark.parametrize("executor", [1, 2])
def test_every_file_is_valid_json_and_a_search_is_taken_up_again(crowded, tmp_path, executor):
    crowded["search"] |= {"finished_share": 0, "space": {ADMISSION: [TURNING_AWAY]}}

    def strict(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    place = tmp_path / "crowded.json"
    place.write_text(json.dumps(crowded))
    scenario = load_scenario(place)
    first = simslm.search(scenario, directory=tmp_path, jobs=executor)
    again = simslm.search(scenario, directory=tmp_path, resume=True)
    assert json.dumps(first.frontier) == json.dumps(again.frontier)
    assert json.loads(json.dumps(first.frontier), parse_constant=strict)["points"]
    files.write(tmp_path, again)
    json.loads((tmp_path / "frontier.json").read_text(), parse_constant=strict)
    assert again.trials[TTFT].tolist() == [inf, inf]
    assert "none" in write_report([tmp_path]).read_text(encoding="utf-8")


@pytest.mark.slow
def test_an_slo_that_lets_a_tenth_be_missed_is_no_leave_to_turn_it_away(crowded):
    """At capacity: shedding serves more within the SLO, and is chosen only where the search lets it be."""
    crowded["slo"] = {"ttft_s": 0.2, "attainment": 0.8}
    asked_of = {
        "space": {ADMISSION: ["open", {"policy": "limits", "max_queue": 4}]},
        "objectives": {"capacity.value": "max"},
        "capacity": {"of": "workload.arrivals.rate_rps"},
        "replications": 1,
    }
    (point,) = asked(crowded, **asked_of)["points"]
    assert point["parameters"][ADMISSION] == "open"
    (point,) = asked(crowded, **asked_of, rejected_share=1)["points"]
    assert point["parameters"][ADMISSION] != "open"
    assert 0.1 < point["requests"]["rejected_share"] <= 0.2
    # beside an objective that it has no value for, what turns requests away is not the best
    asked_of["objectives"] = {"capacity.value": "max", TTFT: "min"}
    found = asked(crowded, **asked_of, rejected_share=1)
    assert [point["parameters"][ADMISSION] == "open" for point in found["points"]] == [True, False]
    assert found["best"] == 0
    assert not found["topmost"]
    assert "a point with more of it loses more elsewhere" in choice.reason(found)


def test_the_slo_is_a_constraint_unless_the_search_says_otherwise(crowded):
    crowded["slo"] = {"ttft_s": 0.5, "attainment": 0.95}

    def kept(**changes: Any) -> list[str]:
        scenario = load_scenario(crowded | {"search": crowded["search"] | changes})
        assert scenario.search is not None
        return [each.text for each in goals(scenario, scenario.search).constraints]

    few = "requests.rejected_share <= 0.01"
    assert kept() == ["slo.attainment >= 0.95", few]
    assert kept(rejected_share=1) == ["slo.attainment >= 0.95"]
    assert kept(slo="ignored") == ["requests.finished_share >= 0.99"]
    assert kept(slo="ignored", finished_share=0) == []
    assert kept(constraints=["slo.attainment >= 0.5"]) == ["slo.attainment >= 0.5", few]
    assert kept(slo="ignored", constraints=["requests.rejected_share <= 0.2"]) == [
        "requests.rejected_share <= 0.2"
    ]
    assert kept(constraints=["ttft_s.p99 <= 3"]) == ["ttft_s.p99 <= 3", "slo.attainment >= 0.95", few]
    crowded["workload"]["classes"] = {"a": {"slo": {"ttft_s": 1, "attainment": 0.8}}, "b": {}}
    assert kept() == ["classes.a.slo.attainment >= 0.8", "classes.b.slo.attainment >= 0.95", few]
    del crowded["slo"]
    assert kept() == ["classes.a.slo.attainment >= 0.8", "classes.b.requests.finished_share >= 0.99", few]


def test_a_bound_on_a_latency_that_has_no_value_is_missed_without_bound(crowded):
    found = asked(
        crowded, space={ADMISSION: [TURNING_AWAY]}, constraints=["ttft_s.p99 <= 1000", "e2e_s.mean <= 1000"]
    )
    assert found["points"] == []
    assert found["nearest"]["excess"]["ttft_s.p99 <= 1000"] is None
    assert {each["closest"] for each in found["violated"][:2]} == {None}
    words = str(InfeasibleError(infeasible(found)))
    assert "the closest with no finite value: requests are missed" in words
    assert "requests.finished_share >= 0.99 is a default (search.finished_share, search." in words


@pytest.mark.parametrize("method", [
    {"name": "nsga2", "num_points": 6, "population_size": 3},
    {"name": "halving", "rungs": [0.5, 1.0], "at_least": 2},
    "random",
])  # fmt: skip
def test_every_method_copes_with_figures_that_are_infinite(crowded, method):
    if method == "random" or method["name"] == "halving" or pytest.importorskip("optuna"):
        found = asked(
            crowded,
            finished_share=0,
            replications=1,
            method=method,
            space={ADMISSION: ["open", TURNING_AWAY], "deployment.engine.max_num_seqs": [1, 2, 4]},
        )
        assert all(point["objectives"][TTFT]["value"] is not None for point in found["points"])


ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "scenarios").glob("*.yaml"))
BATCHES = {"deployment.engine.max_num_seqs": [2, 16, 64]}
SHEDDING = {ADMISSION: ["open", {"policy": "limits", "max_queue": 0}, {"policy": "limits", "max_queue": 2}]}
LIKED = {"throughput.output_tokens_per_s": "max", TTFT: "min"}


def searched_example(path: Path, more: dict[str, Any]) -> dict[str, Any]:
    """An example with few requests, searched as it says itself, else over batch limits; and over something more."""
    stated = load_scenario(path)
    space = (BATCHES if stated.search is None else stated.search.space) | more
    search = {"space": space, "objectives": LIKED, "replications": 1}
    if stated.search is not None:
        search["constraints"] = stated.search.constraints
    found = simslm.search(load_scenario(path, {"workload.num_requests": 30, "search": search})).frontier
    assert found["counts"]["points"] == np.prod(
        [len(values) for values in space.values() if isinstance(values, list | tuple)]
    )
    return found


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_no_example_finds_a_point_that_turns_requests_away(path):
    for point in searched_example(path, {})["points"]:
        assert point["requests"]["finished_share"] == 1
        assert all(each["value"] is not None for each in point["objectives"].values())


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_no_example_finds_a_point_that_sheds_load(path):
    """With admission among what is tried, many points turn requests away, and none of the frontier above one in 100."""
    for point in searched_example(path, SHEDDING)["points"]:
        assert point["requests"]["rejected_share"] + point["requests"]["failed_share"] <= 0.01
        assert all(each["value"] is not None for each in point["objectives"].values())


def test_a_command_says_at_which_seeds_capacity_it_simulates():
    runs = [{"seed": seed, "capacity": {"value": value}} for seed, value in ((0, 2.89), (1, 2.1))]
    assert choice.at_capacity({"runs": runs}) == " at 2.89, its capacity under seed 0"
    assert choice.at_capacity({"runs": runs[:1]}) == "", "there is no other"
    assert choice.at_capacity({"runs": [{"seed": 0, "capacity": None}, {"seed": 1, "capacity": None}]}) == ""

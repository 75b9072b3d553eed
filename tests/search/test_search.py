"""The frontier against one worked out point by point, and how little of the work the strategies need."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats
from search.conftest import OBJECTIVES, Table, as_set

import simslm
from simslm.api import load_scenario
from simslm.errors import ScenarioError
from simslm.report import write_report
from simslm.search import files
from simslm.search.run import SearchResult
from simslm.search.strategies import IDLE_ROUNDS

REFERENCE = {"throughput.output_tokens_per_s": 0.0, "itl_s.p50": 0.01}

ALIKE = {"throughput.output_tokens_per_s": "max", "e2e_s.mean": "min"}
"""Both are better with larger batches, so that many points are far from the frontier."""


def found_by(mapping: dict, **changes: object) -> SearchResult:
    mapping["search"] |= changes
    return simslm.search(load_scenario(mapping), jobs=1)


def named(result: SearchResult) -> list[dict]:
    """The parameters of the points of the frontier and of those that do not differ from one of them."""
    return [
        each["parameters"]
        for point in result.frontier["points"]
        for each in (point, *point["same"])
        if each.get("equal", True)
    ]


def volume(gains: np.ndarray) -> float:
    """The area of two gains above the reference, by columns between neighbouring values of the first."""
    corner = np.array([0.0, -0.01])
    gains = gains[(gains > corner).all(axis=1)]
    edges = np.unique(np.append(gains[:, 0], corner[0]))
    heights = [gains[gains[:, 0] >= right, 1].max() - corner[1] for right in edges[1:]]
    return float(np.dot(np.diff(edges), heights))


def worked_out(table: Table) -> list[dict]:
    """The points that none beats everywhere, on one seed."""
    gains = np.array([rows[0] for _, rows in table])
    beaten = [np.any(np.all(gains >= row, axis=1) & np.any(gains > row, axis=1)) for row in gains]
    return [point for (point, _), lost in zip(table, beaten, strict=True) if not lost]


@pytest.mark.slow
def test_the_frontier_is_the_one_worked_out_by_hand(searched, table):
    every = table(1)
    result = found_by(searched, reference=REFERENCE)
    assert as_set(named(result)) == as_set(worked_out(every))
    gains = np.array([rows[0] for _, rows in every])
    assert result.volume is not None
    assert result.volume.total == pytest.approx(volume(gains), rel=1e-12)
    for i, (trial, size) in enumerate(result.volume.growth):
        assert trial == i
        assert size == pytest.approx(volume(gains[: i + 1]), rel=1e-12)


@pytest.mark.slow
def test_the_reference_is_a_tenth_beyond_the_worst(searched, table):
    gains = np.array([rows[0] for _, rows in table(1)])
    result = found_by(searched)
    expected = np.maximum(gains.min(axis=0) - np.ptp(gains, axis=0) / 10, [0.0, -np.inf])
    found = result.frontier["reference_point"]
    assert list(found) == list(OBJECTIVES)
    assert list(found.values()) == pytest.approx([expected[0], -expected[1]])
    assert result.frontier["reference_stated"] is False
    assert result.frontier["hypervolume"] > 0


@pytest.mark.slow
def test_with_seeds_only_the_paired_difference_dominates(searched, table):
    """As the file says: among the points under all seeds, one is gone when another is surely better in one objective
    and surely worse in none."""
    searched["workload"]["arrivals"] = {"process": "poisson", "rate_rps": 60}
    result = found_by(searched, replications=4, near=0.05, objectives=ALIKE)
    many = [point for point in result.feasible if len(point.outcomes) == 4]
    assert 1 < len(many) < len(result.feasible)
    every = {tuple(point.items()): np.array(rows) for point, rows in table(4, ALIKE)}
    gains = {tuple(point.parameters.items()): every[tuple(point.parameters.items())] for point in many}

    def ends(differences: np.ndarray) -> np.ndarray:
        """The ends of the interval of each objective's differences."""
        return np.array(
            [
                [column.mean()] * 2 if np.ptp(column) == 0
                else stats.ttest_1samp(column, 0.0).confidence_interval(0.95)
                for column in differences.T
            ]
        )  # fmt: skip

    def beaten(mine: np.ndarray) -> bool:
        intervals = [ends(other - mine) for other in gains.values()]
        return any(np.any(each[:, 0] > 0) and not np.any(each[:, 1] < 0) for each in intervals)

    expected = {name for name, mine in gains.items() if not beaten(mine)}
    assert as_set(named(result)) == expected
    for point in result.frontier["points"]:
        rows = every[tuple(point["parameters"].items())]
        low, high = point["objectives"]["throughput.output_tokens_per_s"]["interval"]
        mean, half = rows[:, 0].mean(), stats.sem(rows[:, 0]) * stats.t.ppf(0.975, 3)
        assert (low, high) == pytest.approx((mean * np.exp(-half / mean), mean * np.exp(half / mean)))
        assert [run["seed"] for run in point["runs"]] == [0, 1, 2, 3]


def test_points_that_are_not_near_are_far_behind(searched):
    searched["workload"]["arrivals"] = {"process": "poisson", "rate_rps": 60}
    result = found_by(searched, replications=2, near=0.05, objectives=ALIKE)
    once = [point for point in result.feasible if len(point.outcomes) == 1]
    first = np.array([result.goals.gains(point.outcomes[0].values) for point in result.feasible])
    assert once
    for point in once:
        mine = np.array(result.goals.gains(point.outcomes[0].values))
        better = mine + 0.05 * np.abs(mine)
        assert np.any(np.all(first >= better, axis=1))


def test_points_that_are_the_same_are_one_and_named(searched):
    """Beyond the 40 requests that there are, a batch limit changes nothing."""
    result = found_by(searched, space={"deployment.engine.max_num_seqs": [64, 128, 256]})
    (point,) = result.frontier["points"]
    assert point["parameters"] == {"deployment.engine.max_num_seqs": 64}
    assert [each["parameters"] for each in point["same"]] == [
        {"deployment.engine.max_num_seqs": batch} for batch in (128, 256)
    ]
    assert [each["equal"] for each in point["same"]] == [True, True]


@pytest.fixture
def wide(searched) -> dict:
    """384 points."""
    searched["seed"] = 1
    searched["workload"] |= {
        "num_requests": 160,
        "prompt_tokens": {"dist": "fixed", "value": 100},
        "output_tokens": {"dist": "uniform", "low": 10, "high": 60},
    }
    searched["search"]["space"] = {
        "deployment.engine.max_num_seqs": [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64],
        "deployment.engine.max_num_batched_tokens": [128, 256, 1024, 4096],
        "deployment.engine.batching": ["chunked-prefill", "prefill-first", "orca", "static"],
        "deployment.engine.block_size": [1, 16],
    }
    searched["search"]["reference"] = REFERENCE
    return searched


@pytest.mark.slow
def test_halving_and_nsga2_find_it_with_a_quarter_of_the_work(wide):
    whole = found_by(wide, method="grid")
    assert whole.volume is not None
    for method in (
        {"name": "halving", "rungs": [0.15, 1.0], "keep": 0.08},
        {"name": "nsga2", "num_points": 96, "population_size": 16},
    ):
        part = found_by(wide, method=method)
        assert part.volume is not None
        assert part.frontier["counts"]["requests"] <= 0.25 * whole.frontier["counts"]["requests"]
        assert part.volume.total >= 0.99 * whole.volume.total, method


def test_halving_gives_the_best_of_short_runs_longer_ones(searched):
    result = found_by(
        searched, method={"name": "halving", "rungs": [0.25, 0.5, 1.0], "keep": 0.5, "at_least": 1}
    )
    sizes = [sum(trial.share == share for trial, _ in result.done) for share in (0.25, 0.5, 1.0)]
    assert sizes == [18, 9, 5]
    requests = {trial.share: outcome.requests for trial, outcome in result.done}
    assert requests == {0.25: 10, 0.5: 20, 1.0: 40}
    survivors = [
        {trial.point for trial, _ in result.done if trial.share == share} for share in (0.25, 0.5, 1)
    ]
    assert survivors[0] > survivors[1] > survivors[2]


def test_nsga2_ends_when_it_has_seen_everything(searched):
    searched["search"]["space"] = {"deployment.engine.max_num_seqs": [1, 2, 4]}
    result = found_by(searched, method={"name": "nsga2", "num_points": 50, "population_size": 4})
    assert len(result.done) <= 3 < IDLE_ROUNDS


def test_drawn_points_are_as_many_as_asked(searched):
    result = found_by(searched, method={"name": "random", "num_points": 7})
    assert len({trial.point for trial, _ in result.done}) == len(result.done) == 7
    again = found_by(searched, method={"name": "random", "num_points": 7})
    assert json.dumps(again.frontier) == json.dumps(result.frontier)


def test_what_cannot_be_is_counted_with_its_reason(searched):
    searched["deployment"]["sharing"] = "mps"
    result = found_by(
        searched,
        space={"deployment.replicas_per_device": [1, 60], "deployment.engine.max_num_seqs": [8, 4096]},
    )
    counts = result.frontier["counts"]
    assert (counts["points"], counts["infeasible"], counts["trials"]) == (4, 3, 4)
    rule, memory = (each["reason"] for each in result.frontier["infeasible"])
    assert rule.startswith(
        "deployment.engine: max_num_batched_tokens (2048) must be at least max_num_seqs (4096)"
    )
    assert memory.startswith("opt-1.3b in bf16 does not fit")
    assert [outcome.requests for _, outcome in result.done] == [40, 0, 0, 0]


@pytest.mark.slow
def test_a_constraint_drops_points_and_says_how_close_they_came(searched, table):
    throughput = [rows[0][0] for _, rows in table(1)]
    bound = sorted(throughput)[9]
    result = found_by(searched, constraints=[f"throughput.output_tokens_per_s >= {bound!r}"])
    assert len(result.feasible) == 9
    (violated,) = result.frontier["violated"]
    assert (violated["points"], violated["of"]) == (9, 18)
    assert violated["closest"] == sorted(throughput)[8]
    assert violated["excess"] == pytest.approx(1 - sorted(throughput)[8] / bound)


@pytest.mark.slow
def test_an_impossible_search_names_the_nearest_point(searched, table):
    best = max(table(1), key=lambda row: row[1][0][0])
    result = found_by(searched, constraints=["throughput.output_tokens_per_s >= 1e9"])
    assert result.points == ()
    assert result.volume is None
    nearest = result.frontier["nearest"]
    assert nearest["parameters"] == best[0]
    (excess,) = nearest["excess"].values()
    assert excess == pytest.approx(1 - best[1][0][0] / 1e9)


def test_energy_without_power_is_refused_before_anything_runs(searched):
    from pathlib import Path

    trace = Path(__file__).parents[2] / "traces" / "cpu" / "opt-125m-bf16"
    searched |= {"model": "opt-125m", "device": "cpu", "cost": {"trace": str(trace)}}
    with pytest.raises(ScenarioError, match=r"energy.total_j has no value: "):
        found_by(searched, objectives=OBJECTIVES | {"energy.total_j": "min"})


def test_a_figure_that_only_some_points_have(searched):
    """Requests of one output token have no time per output token."""
    result = found_by(
        searched,
        space={"workload.output_tokens": [{"dist": "fixed", "value": 1}, {"dist": "fixed", "value": 5}]},
        objectives={"tpot_s.p50": "min"},
    )
    assert [outcome.reason for _, outcome in result.done] == ["tpot_s.p50 has no value", ""]
    assert len(result.points) == 1


def test_ctrl_c_between_trials_keeps_what_is_done(searched):
    calls = []

    def obey() -> None:
        calls.append(None)
        if len(calls) == 6:
            raise KeyboardInterrupt

    result = simslm.search(load_scenario(searched), jobs=1, obey=obey)
    assert result.interrupted
    assert len(result.done) == 5
    assert result.points


def test_stopped_before_the_first_trial_there_is_still_a_page(searched, tmp_path):
    def obey() -> None:
        raise KeyboardInterrupt

    result = simslm.search(load_scenario(searched), obey=obey)
    assert (result.interrupted, result.done, result.points) == (True, (), ())
    files.write(tmp_path, result)
    assert "Interrupted: not all trials were done." in write_report([tmp_path]).read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("workload", ["requests", "duration", "replay"])
def test_a_short_run_is_the_beginning_of_the_long_one(searched, tmp_path, workload):
    if workload == "replay":
        rows = [f"{i / 10},{50 + i},{3 + i % 7}" for i in range(20)]
        (tmp_path / "trace.csv").write_text("\n".join(["arrival_s,prompt_tokens,output_tokens", *rows]))
        searched["workload"] = {"replay": {"format": "csv", "path": str(tmp_path / "trace.csv")}}
    elif workload == "duration":
        searched["workload"] |= {"duration_s": 2.0, "arrivals": {"process": "deterministic", "rate_rps": 10}}
        del searched["workload"]["num_requests"]
    else:
        searched["workload"]["num_requests"] = 20
    result = found_by(searched, method={"name": "halving", "rungs": [0.25, 1.0]})
    assert {(trial.share, outcome.requests) for trial, outcome in result.done} == {(0.25, 5), (1.0, 20)}


def test_progress_counts_to_the_end(searched):
    seen: list[tuple[int, int, str]] = []
    result = simslm.search(load_scenario(searched), jobs=1, progress=lambda *each: seen.append(each))
    assert [done for done, _, _ in seen] == list(range(1, 19))
    assert {total for _, total, _ in seen} == {18}
    best = max(outcome.values["throughput.output_tokens_per_s"] for _, outcome in result.done)
    assert seen[-1][2] == f"best throughput.output_tokens_per_s {best:.4g}"


def test_a_scenario_without_a_search(small):
    with pytest.raises(ScenarioError, match="has no search section"):
        simslm.search(load_scenario(small))

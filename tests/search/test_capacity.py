"""The highest rate that meets the SLO: against thresholds that are known, and on the simulator."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import simslm
from simslm.api import load_scenario, simulate
from simslm.errors import InfeasibleError, ScenarioError
from simslm.search.capacity import CapacityRange, highest, span
from simslm.search.run_length import TIMES_IN_FLIGHT


@given(st.floats(0.02, 500), st.floats(0.001, 0.3), st.floats(1, 100))
def test_a_threshold_is_found_within_the_tolerance(threshold, tolerance, start):
    asked = []

    def attainment(value: float) -> float:
        asked.append(value)
        return 1.0 if value <= threshold else 0.0

    found = highest(CapacityRange(start, 0.01, 1000.0, False, tolerance), attainment, 0.9)
    assert found.missed is not None
    assert found.value <= threshold < found.missed
    assert found.missed - found.value <= tolerance * found.value
    assert found.simulations == len(asked) == len(set(asked))


@given(st.integers(1, 900), st.integers(1, 900))
def test_a_whole_threshold_is_found_exactly(threshold, start):
    found = highest(CapacityRange(start, 1, 1000, True, 1e-6), lambda value: float(value <= threshold), 1.0)
    assert (found.value, found.missed) == (threshold, threshold + 1)


def test_a_span_that_never_misses_ends_at_its_end():
    found = highest(CapacityRange(3.0, 1.0, 50.0, False, 0.01), lambda value: 1.0, 0.9)
    assert (found.value, found.missed) == (50.0, None)


def test_a_span_that_never_meets_is_an_answer():
    with pytest.raises(
        InfeasibleError, match=r"no value from 1 on meets the SLO: at 1 its attainment is 0.5"
    ):
        highest(CapacityRange(3.0, 1.0, 50.0, False, 0.01), lambda value: 0.5, 0.9)


@pytest.fixture
def loaded(searched: dict) -> dict:
    """Poisson arrivals, and an SLO on what waiting makes worse."""
    searched["workload"] |= {"num_requests": 120, "arrivals": {"process": "poisson", "rate_rps": 20}}
    searched["slo"] = {"ttft_s": 0.05, "attainment": 0.9}
    searched["search"] |= {
        "space": {"deployment.engine.max_num_seqs": [2, 8]},
        "capacity": {"of": "workload.arrivals.rate_rps"},
        "objectives": {"capacity.value": "max"},
    }
    return searched


def test_the_simulator_meets_the_slo_there_and_not_beyond(loaded):
    result = simslm.search(load_scenario(loaded), jobs=1)
    for point in result.feasible:
        (outcome,) = point.outcomes
        assert outcome.capacity is not None
        assert outcome.capacity.missed is not None
        assert outcome.capacity.missed <= 1.02 * outcome.capacity.value
        attained = [
            simulate(
                load_scenario(
                    loaded,
                    {**point.parameters, **outcome.changes, "workload.arrivals.rate_rps": rate},
                )
            ).summary["slo"]["attainment"]
            for rate in (outcome.capacity.value, outcome.capacity.missed)
        ]
        assert attained[0] >= 0.9 > attained[1]
    small, large = (point.outcomes[0].values["capacity.value"] for point in result.feasible)
    assert small < large
    assert [point.parameters for point in result.points] == [{"deployment.engine.max_num_seqs": 8}]


@pytest.mark.slow
def test_a_run_that_is_too_short_is_made_longer(loaded):
    """Of 120 requests, a slow SLO is met at rates at which nearly all are in flight at once; of more it is not."""
    loaded["search"]["space"] = {"deployment.engine.max_num_seqs": [2]}
    slow = {"slo.ttft_s": 5.0}
    at_once = {"workload.arrivals.rate_rps": 1000.0}
    assert simulate(load_scenario(loaded, slow | at_once)).summary["slo"]["attainment"] == 1
    (point,) = simslm.search(load_scenario(loaded, slow), jobs=1).points
    (outcome,) = point.outcomes
    assert outcome.capacity is not None
    assert not outcome.capacity.short
    assert outcome.capacity.value < 100
    again = {**point.parameters, **slow, **outcome.changes}
    run = simulate(load_scenario(loaded, again | {"workload.arrivals.rate_rps": outcome.capacity.value}))
    in_flight = outcome.capacity.value * run.summary["e2e_s"]["mean"]
    assert run.summary["requests"]["arrived"] >= TIMES_IN_FLIGHT * in_flight
    assert run.summary["slo"]["attainment"] >= 0.9


def test_a_capacity_from_few_recorded_requests_says_so(loaded, tmp_path):
    rows = [f"{i / 1000},{200},{30}" for i in range(60)]
    (tmp_path / "trace.csv").write_text("\n".join(["arrival_s,prompt_tokens,output_tokens", *rows]))
    loaded["workload"] = {"replay": {"format": "csv", "path": str(tmp_path / "trace.csv"), "time_scale": 1.0}}
    loaded["search"] |= {
        "space": {"deployment.engine.max_num_seqs": [2]},
        "capacity": {"of": "deployment.engine.max_num_batched_tokens", "low": 256, "high": 2048},
    }
    loaded["slo"] = {"ttft_s": 50.0}
    loaded["deployment"]["engine"]["max_num_batched_tokens"] = 512
    result = simslm.search(load_scenario(loaded), jobs=1)
    assert "1 of 1 capacities come from recorded requests" in result.frontier["capacity"]["note"]


def test_clients_are_counted_whole(loaded):
    loaded["workload"]["arrivals"] = {"process": "closed-loop", "concurrency": 4}
    loaded["search"]["capacity"] = {"of": "workload.arrivals.concurrency", "relative_tolerance": 1e-6}
    result = simslm.search(load_scenario(loaded), jobs=1)
    for point in result.feasible:
        (outcome,) = point.outcomes
        assert outcome.capacity is not None
        assert outcome.capacity.missed == outcome.capacity.value + 1
        assert isinstance(result.points[0].outcomes[0].capacity.value, int)  # type: ignore[union-attr]


def test_an_slo_that_nothing_meets_is_infeasible(loaded):
    loaded["slo"] = {"ttft_s": 1e-6}
    result = simslm.search(load_scenario(loaded), jobs=1)
    assert result.points == ()
    (reason,) = result.frontier["infeasible"]
    assert reason["points"] == 2
    assert reason["reason"].startswith(
        "no value from 0.0195 on meets the SLO: at 0.0195 no request keeps it, or more are rejected than"
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"capacity": {"of": "workload.arrivals.process"}}, "is no number above 0 in this scenario"),
        ({"capacity": {"of": "workload.arrivals.rate"}}, "is no number above 0 in this scenario"),
        (
            {"capacity": {"of": "workload.arrivals.rate_rps", "low": 5, "high": 4}},
            "low (5) must be below high (4)",
        ),
    ],
)
def test_what_has_no_capacity(loaded, change, words):
    loaded["search"] |= change
    scenario = load_scenario(loaded)
    assert scenario.search is not None
    assert scenario.search.capacity is not None
    with pytest.raises(ScenarioError) as caught:
        span(scenario, scenario.search.capacity)
    assert words in str(caught.value)


def test_it_needs_an_slo(loaded):
    del loaded["slo"]
    with pytest.raises(ScenarioError, match=r"search.capacity needs an slo"):
        simslm.search(load_scenario(loaded), jobs=1)

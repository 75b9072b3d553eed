"""Plans against simulations of their own: one device fewer misses the SLO, and a run is long enough to tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import simslm
from simslm.api import load_scenario, simulate
from simslm.catalog.prices import device_price
from simslm.errors import InfeasibleError, ScenarioError, UsageError
from simslm.scenario.schema import Scenario
from simslm.search.plan import SEEDS, Planner, kinds, smallest
from simslm.search.run_length import TIMES_IN_FLIGHT

BATCH = "deployment.engine.max_num_seqs"
NOWHERE = Path("nowhere")


@pytest.fixture
def planned() -> dict:
    """OPT-125M on the roofline of a CPU, which serves a few requests a second."""
    return {
        "name": "planned",
        "model": "opt-125m",
        "device": "cpu",
        "dtype": "fp32",
        "cost": {"roofline": {}},
        "workload": {
            "num_requests": 40,
            "arrivals": {"process": "poisson", "rate_rps": 1},
            "prompt_tokens": {"dist": "fixed", "value": 64},
            "output_tokens": {"dist": "uniform", "low": 1, "high": 24},
        },
        "deployment": {"engine": {"max_num_seqs": 8}},
        "slo": {"ttft_s": 0.3, "tpot_s": 0.1, "attainment": 0.9},
        "search": {"space": {BATCH: [1, 8]}, "objectives": {"itl_s.p50": "min"}},
    }


def plan(mapping: dict, rate: float, devices: tuple[str, ...] = ()) -> dict[str, Any]:
    scenario = load_scenario(mapping)
    (found,) = Planner(scenario).plans(kinds(scenario, devices, NOWHERE), [rate])
    return found


def summary(mapping: dict, setup: dict, devices: int, rate: float, requests: int) -> dict[str, Any]:
    changes = setup | {
        "deployment.num_devices": devices,
        "workload.arrivals.rate_rps": rate,
        "workload.num_requests": requests,
    }
    return simulate(load_scenario(mapping, changes), with_intervals=False).summary


@pytest.mark.slow
def test_one_device_fewer_misses_the_slo(planned):
    alone = plan(planned, 1.0)["options"][0]
    rate = 2.6 * alone["capacity_rps"]["value"]
    option = plan(planned, rate)["options"][0]
    assert option["devices"] in (2, 3)
    run = summary(planned, option["setup"], option["devices"], rate, option["requests"])
    assert run["slo"]["attainment"] == option["attainment"] >= 0.9
    fewer = summary(planned, option["setup"], option["devices"] - 1, rate, 4 * option["requests"])
    assert fewer["slo"]["attainment"] < 0.9


@pytest.mark.slow
def test_the_setup_is_the_one_with_the_highest_capacity(planned):
    option = plan(planned, 3.0)["options"][0]
    assert option["setup"] == {BATCH: 8}
    value = option["capacity_rps"]["value"]
    # well above the capacity a long run of one device misses; and batch 1 misses where batch 8 serves
    assert summary(planned, {BATCH: 8}, 1, 1.2 * value, 2000)["slo"]["attainment"] < 0.9
    assert summary(planned, {BATCH: 8}, 1, 0.8 * value, 2000)["slo"]["attainment"] >= 0.9
    assert summary(planned, {BATCH: 1}, 1, value, 2000)["slo"]["attainment"] < 0.9


@pytest.mark.slow
def test_a_short_workload_is_made_long_enough_to_tell(planned):
    """Eight requests that all find a slot would meet a lax SLO at any rate."""
    planned["workload"]["num_requests"] = 8
    planned["slo"] = {"ttft_s": 5.0, "attainment": 0.9}
    assert summary(planned, {BATCH: 8}, 1, 1000.0, 8)["slo"]["attainment"] == 1
    option = plan(planned, 20.0)["options"][0]
    assert option["capacity_rps"]["value"] < 200
    run = summary(planned, option["setup"], option["devices"], 20.0, option["requests"])
    assert option["requests"] >= TIMES_IN_FLIGHT * 20.0 * run["e2e_s"]["mean"]


@pytest.mark.slow
def test_every_rate_has_a_plan_of_its_own(planned):
    """How a device is set up and what it serves is found once; the rest is as if each rate were asked for alone."""
    scenario = load_scenario(planned)
    compared = kinds(scenario, (), NOWHERE)
    both = Planner(scenario).plans(compared, [2.0, 200.0])
    assert [found["rate_rps"] for found in both] == [2.0, 200.0]
    assert both == [plan(planned, rate) for rate in (2.0, 200.0)]
    assert both[0]["options"][0]["devices"] < both[1]["options"][0]["devices"]


@pytest.mark.slow
def test_plan_and_search_mean_the_same_by_capacity(planned):
    """One set-up, one device, one traffic, one SLO: the same figure within the tolerance of both bisections."""
    planned["deployment"]["sharing"] = "mps"
    planned["search"] = {
        "space": {BATCH: [8]},
        "objectives": {"capacity.value": "max"},
        "capacity": {"of": "workload.arrivals.rate_rps"},
        "replications": SEEDS,
    }
    (point,) = simslm.search(load_scenario(planned)).points
    found = plan(planned, 7.0)["options"][0]["capacity_rps"]
    values = [outcome.capacity.value for outcome in point.outcomes if outcome.capacity is not None]
    assert len(set(values)) == SEEDS
    assert found["value"] == pytest.approx(sum(values) / SEEDS, rel=0.02)
    low, high = found["interval"]
    assert low < sum(values) / SEEDS < high


@pytest.mark.slow
def test_devices_have_to_meet_the_slo_under_more_than_one_seed(planned):
    """Under the scenario's own, whose figures are printed, and in the mean over all."""
    rate = 2.2 * plan(planned, 1.0)["options"][0]["capacity_rps"]["value"]
    option = plan(planned, rate)["options"][0]
    runs = [
        summary({**planned, "seed": seed}, option["setup"], option["devices"], rate, option["requests"])
        for seed in range(SEEDS)
    ]
    met = [run["slo"]["attainment"] for run in runs]
    assert met[0] == option["attainment"] >= 0.9
    assert sum(met) / SEEDS >= 0.9


@pytest.mark.slow
def test_headroom_is_what_so_many_devices_serve_beyond_the_rate(planned):
    capacity = plan(planned, 1.0)["options"][0]["capacity_rps"]["value"]
    little, much = (plan(planned, share * capacity)["options"][0] for share in (0.9, 0.3))
    assert (little["devices"], much["devices"]) == (1, 1)
    assert 0 <= little["headroom"]["value"] < little["headroom"]["missed"] < 0.5
    assert much["headroom"] == {"value": 1.0, "missed": None}


@pytest.mark.slow
def test_costs_are_those_of_all_devices(planned):
    planned["economics"] = {"usd_per_device_hour": 0.25}
    rate = 2.6 * plan(planned, 1.0)["options"][0]["capacity_rps"]["value"]
    option = plan(planned, rate)["options"][0]
    assert option["usd_per_hour"] == pytest.approx(0.25 * option["devices"])
    assert option["assumptions"] == "$0.25 per device-hour (stated)"


@pytest.mark.slow
def test_devices_are_compared_by_what_they_cost(planned):
    planned["workload"]["num_requests"] = 10
    found = plan(planned, 5.0, ("h200", "l4"))
    assert [option["device"] for option in found["options"]] == ["l4", "h200"]
    assert (found["recommended"], found["ranked_by"]) == ("l4", "usd_per_hour")
    for option in found["options"]:
        price = device_price(option["device"])
        assert price is not None
        assert option["source"] == "roofline"
        assert option["usd_per_hour"] == pytest.approx(option["devices"] * price.usd_per_device_hour)
    unpriced = plan(planned, 5.0, ("h200", "cpu"))
    assert unpriced["ranked_by"] == "devices"


def test_no_device_serves_it_and_why(planned):
    planned["slo"] = {"ttft_s": 1e-6}
    found = plan(planned, 2.0)
    assert (found["recommended"], found["ranked_by"]) == (None, None)
    assert "no value from" in found["options"][0]["reason"]
    planned["slo"] = {"ttft_s": 1.0}
    planned["search"]["space"] = {BATCH: [8], "deployment.engine.num_gpu_blocks": [10**9]}
    assert "does not fit" in plan(planned, 2.0)["options"][0]["reason"]


@pytest.mark.parametrize(
    ("section", "value", "words"),
    [
        ("slo", None, "has no slo to meet"),
        ("workload", {"arrivals": {"process": "all-at-once"}}, "a plan needs arrivals with a rate_rps"),
        ("deployment", {"groups": [{"name": "one"}]}, "one group of replicas"),
        ("deployment", {"tensor_parallel_size": 2, "num_devices": 2}, "each on one device"),
        ("search", {"space": {"seed": [1]}}, "not seed"),
        ("search", {"space": {"deployment.num_devices": [1]}}, "not deployment.num_devices"),
        ("search", {"space": {BATCH: {"low": 1, "high": 8}}, "method": "random"}, "a range of"),
        ("search", {"space": {BATCH: ["many"]}}, "input should be a valid integer"),
    ],
)  # fmt: skip
def test_what_cannot_be_planned_is_refused(planned, section, value, words):
    planned[section] = planned[section] | value if isinstance(value, dict) else value
    with pytest.raises(ScenarioError, match=words):
        plan(planned, 2.0)


def test_kinds_are_the_own_device_and_those_with_a_trace(planned):
    traces = Path(__file__).parents[2] / "traces"
    planned["dtype"] = "bf16"
    planned["device"] = "h200"

    def found(*wanted: str) -> dict[str, Any]:
        scenario: Scenario = load_scenario(planned)
        return {kind.device: kind.overrides for kind in kinds(scenario, wanted, traces)}

    assert list(found()) == ["h200", "cpu"]
    assert found()["h200"] == {}
    trace = found("cpu")["cpu"]["cost.trace"]
    assert Path(trace).resolve() == (traces / "cpu/opt-125m-bf16").resolve()
    assert found("l4", "l4") == {"l4": {"device": "l4", "cost.roofline": {}}}
    with pytest.raises(UsageError, match="no device 'h201'"):
        found("h201")
    planned["dtype"] = "fp32"
    assert list(found()) == ["h200"]


@pytest.mark.parametrize(
    ("needed", "first", "count"), [(3, 3, 3), (2, 5, 2), (1, 4, 1), (7, 5, 7), (12, 10, 12), (1, 1, 1)]
)
def test_the_smallest_number_is_found_from_either_side(needed, first, count):
    assert smallest(lambda devices: devices >= needed, first) == count


@pytest.mark.parametrize(("needed", "first"), [(10, 5), (10**6, 10**6)])
def test_no_number_near_the_guess_is_enough(needed, first):
    with pytest.raises(InfeasibleError):
        smallest(lambda devices: devices >= needed, first)

"""What tokens cost and emit, against the same worked out from the tables of a run; nothing where nothing is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from simslm.api import load_scenario, prepare, simulate
from simslm.catalog.prices import device_price
from simslm.errors import ScenarioError, SimslmError
from simslm.metrics.economics import KEYS

TRACE = Path(__file__).parents[2] / "traces/cpu/opt-125m-bf16"
"""Without power."""


def run(mapping: dict, **economics: object):
    return simulate(load_scenario(mapping | {"economics": economics}))


def test_devices_are_paid_by_the_hour_for_the_whole_run(small):
    small["deployment"] = {"num_devices": 3}
    result = run(small, usd_per_device_hour=2.5)
    done = result.requests[result.requests.status == "finished"]
    usd = 3 * 2.5 * result.summary["makespan_s"] / 3600
    found = result.summary["economics"]
    assert found["usd_per_million_output_tokens"] == pytest.approx(usd / done.output_tokens.sum() * 1e6)
    total = done.output_tokens.sum() + done.prompt_tokens.sum()
    assert found["usd_per_million_total_tokens"] == pytest.approx(usd / total * 1e6)
    assert found["assumptions"] == "$2.5 per device-hour (stated)"


def test_electricity_and_carbon_follow_from_the_energy(small):
    result = run(small, usd_per_device_hour=0, usd_per_kwh=0.3, g_co2_per_kwh=250)
    kwh = result.summary["energy"]["total_j"] / 3.6e6
    tokens = result.requests.output_tokens[result.requests.status == "finished"].sum()
    found = result.summary["economics"]
    assert found["usd_per_million_output_tokens"] == pytest.approx(0.3 * kwh / tokens * 1e6)
    assert found["g_co2_per_million_output_tokens"] == pytest.approx(250 * kwh / tokens * 1e6)
    assert "note" not in found


def test_nothing_stated_is_nothing_known(small):
    found = simulate(load_scenario(small)).summary["economics"]
    assert [found[key] for key in KEYS] == [None] * 3
    assert found["note"] == "the scenario has no economics section"


def test_an_empty_section_takes_the_table(small):
    result = run(small)
    price = device_price("h200")
    assert price is not None
    stated = run(small, usd_per_device_hour=price.usd_per_device_hour)
    found, expected = result.summary["economics"], stated.summary["economics"]
    assert [found[key] for key in KEYS] == [expected[key] for key in KEYS]
    assert found["usd_per_million_output_tokens"] > 0
    assert price.source in found["assumptions"]
    assert found["note"] == "g_co2_per_kwh is not stated"


def test_the_users_own_table(small, tmp_path):
    (tmp_path / "mine.yaml").write_text("h200: {usd_per_device_hour: 9, date: today, source: my contract}\n")
    small["economics"] = {"prices": "mine.yaml"}
    scenario = load_scenario({"scenario": small, "base_dir": str(tmp_path)})
    prepared = prepare(scenario)
    assert prepared.tariff is not None
    assert prepared.tariff.usd_per_hour(1) == 9
    assert prepared.tariff.assumptions == "$9 per device-hour (my contract, today)"
    assert set(prepared.files) == {"mine.yaml"}


def test_a_device_without_a_price(small):
    small["device"] = {"like": "h200", "name": "ours", "max_w": 500.0}
    found = run(small, usd_per_kwh=0.2).summary["economics"]
    assert found["usd_per_million_output_tokens"] is None
    assert found["note"].startswith("no price is known of ours")


def test_electricity_of_a_run_without_power(small):
    small |= {"model": "opt-125m", "device": "cpu", "cost": {"trace": str(TRACE)}}
    found = run(small, usd_per_device_hour=1, usd_per_kwh=0.2).summary
    assert found["energy"]["total_j"] is None
    assert found["economics"]["usd_per_million_output_tokens"] is None
    assert found["energy"]["note"] in found["economics"]["note"]


def test_a_search_may_be_after_the_cost(small):
    import simslm

    small["economics"] = {}
    small["search"] = {
        "space": {"deployment.num_devices": [1, 2]},
        "objectives": {"economics.usd_per_million_output_tokens": "min"},
        "replications": 1,
    }
    result = simslm.search(load_scenario(small), jobs=1)
    assert [point.parameters for point in result.points] == [{"deployment.num_devices": 1}]
    del small["economics"]
    without = simslm.search(load_scenario(small), jobs=1).frontier
    assert without["points"] == []
    assert "the scenario has no economics section" in without["infeasible"][0]["reason"]


@pytest.mark.parametrize(
    ("economics", "words"),
    [
        ({"usd_per_device_hour": -1}, "economics.usd_per_device_hour"),
        ({"usd_per_hour": 1}, "unknown key"),
        ({"usd_per_device_hour": 1, "prices": "mine.yaml"}, "not both"),
    ],
)
def test_a_wrong_section_is_refused(small, economics, words):
    with pytest.raises(ScenarioError, match=words):
        load_scenario(small | {"economics": economics})


def test_a_table_that_is_not_there(small):
    with pytest.raises(SimslmError, match=r"nowhere\.yaml: cannot be read"):
        run(small, prices="nowhere.yaml")

"""What a scenario says of its control plane, and what is refused with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from support.traces import CLOCKS, gpu_trace

from simslm.api import load_scenario, prepare, simulate
from simslm.errors import ScenarioError, TraceError, UsageError
from simslm.fidelity.live import check_servable

BASE: dict[str, Any] = {
    "name": "fleet",
    "model": "opt-1.3b",
    "device": "h100-80gb",
    "workload": {
        "num_requests": 40,
        "arrivals": {"process": "poisson", "rate_rps": 20},
        "prompt_tokens": {"dist": "fixed", "value": 200},
        "output_tokens": {"dist": "uniform", "low": 10, "high": 60},
    },
}


def written(directory: Path, deployment: dict[str, Any], **more: Any) -> Path:
    path = directory / "fleet.yaml"
    with path.open("w") as file:
        YAML(typ="safe").dump({"cost": {"roofline": {}}, **BASE, **more, "deployment": deployment}, file)
    return path


@pytest.mark.parametrize(
    ("deployment", "said"),
    [
        (
            {"scaling": {"policy": "horizontal", "max_replicas": 3}},
            "scaling.max_replicas is 3, but the devices",
        ),
        (
            {"scaling": {"policy": "horizontal", "min_replicas": 2}},
            "scaling.min_replicas is 2, but the devices",
        ),
        (
            {"num_devices": 4, "scaling": {"policy": "horizontal", "min_replicas": 3, "max_replicas": 2}},
            r"min_replicas \(3\) is more than max_replicas \(2\)",
        ),
        (
            {"num_devices": 4, "scaling": {"policy": "horizontal", "initial_replicas": 0}},
            r"initial_replicas \(0\) must lie between",
        ),
        ({"migration": "freeness"}, "migration needs two replicas at least"),
        (
            {"num_devices": 2, "faults": {"policy": "schedule", "at": [{"at_s": 1, "replica": 2}]}},
            "replica 2 does not exist: there are 2, counted from 0",
        ),
        ({"faults": {"policy": "exponential", "mtbf": 3}}, r"mtbf.*did you mean 'mtbf_s'"),
        ({"scaling": {"policy": "horizontl"}}, "horizontl"),
        ({"power": "budget"}, "deployment.power needs cost: {trace: ...}"),
        ({"power": {"policy": "budget", "clocks_mhz": [900, 1200]}}, "the highest first"),
        (
            {"groups": [{"name": "a"}], "scaling": "horizontal"},
            "scaling: with groups, state it in the group that it is for",
        ),
        (
            {"groups": [{"name": "a"}, {"name": "b", "devices": [0], "migration": "freeness"}]},
            "group 'b': migration needs two replicas|would share one",
        ),
        (
            {"num_devices": 2, "migration": "freeness", "engine": {"batching": "static"}},
            "does not go with batches held to their end",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_line(tmp_path, deployment, said):
    with pytest.raises(ScenarioError, match=said) as refused:
        load_scenario(written(tmp_path, deployment))
    assert all("fleet.yaml:" in problem for problem in refused.value.problems)


def test_defaults_leave_everything_to_all_replicas(tmp_path):
    scenario = load_scenario(
        written(
            tmp_path, {"num_devices": 4, "replicas_per_device": 2, "sharing": "mps", "scaling": "horizontal"}
        )
    )
    scaling = prepare(scenario).deployment().groups[0].scaling
    assert scaling is not None
    assert (scaling.min_replicas, scaling.initial_replicas, scaling.max_replicas) == (1, 1, 8)


def test_faults_are_drawn_from_a_stream_of_their_own(tmp_path):
    """Other faults do not redraw the workload, and the same seed gives the same faults."""
    faults = {"num_devices": 2, "faults": {"policy": "exponential", "mtbf_s": 1, "mttr_s": 0.5}}
    runs = [
        simulate(load_scenario(written(tmp_path, deployment)), with_intervals=False)
        for deployment in ({"num_devices": 2}, faults, faults)
    ]
    arrivals = [run.request_columns["arrival_s"].tolist() for run in runs]
    assert arrivals[0] == arrivals[1]
    assert runs[1].log.lives == runs[2].log.lives
    assert runs[1].summary["fleet"]["failures"] > 0
    assert "fleet" not in runs[0].summary


def test_a_fleet_cannot_be_served_live(tmp_path):
    scenario = load_scenario(written(tmp_path, {"faults": "exponential"}))
    with pytest.raises(UsageError, match="no scaling, migration, faults or power"):
        check_servable(prepare(scenario), scaled=False)


# ---- clocks --------------------------------------------------------------------------------------------------


def clocked(directory: Path, budget_w: float, **more: Any) -> Any:
    gpu_trace(directory / "trace", CLOCKS)
    power = {"policy": "budget", "budget_w": budget_w, "every_s": 0.05, **more}
    path = written(directory, {"num_devices": 2, "power": power}, cost={"trace": "trace"})
    return simulate(load_scenario(path), with_intervals=False)


def test_a_power_budget_lowers_the_clock(tmp_path):
    """Two devices that decode draw some 1,000 W at the highest clock, and half of it at the lowest."""
    free, tight = clocked(tmp_path, 1e6), clocked(tmp_path, 500.0)
    assert free.log.clocks == ((0.0, 1980.0),)
    assert {clock for _, clock in tight.log.clocks} <= {1980.0, 1500.0, 1000.0}
    assert tight.summary["fleet"]["mean_clock_mhz"] < 1980.0
    assert tight.summary["e2e_s"]["mean"] > free.summary["e2e_s"]["mean"]
    assert tight.summary["energy"]["mean_power_w"] < free.summary["energy"]["mean_power_w"]


def test_the_highest_clock_changes_nothing(tmp_path):
    plain = simulate(
        load_scenario(
            written(tmp_path, {"num_devices": 2}, cost={"trace": str(gpu_trace(tmp_path / "trace").path)})
        ),
        with_intervals=False,
    )
    free = clocked(tmp_path, 1e6)
    for key in ("makespan_s", "throughput", "energy"):
        assert free.summary[key] == pytest.approx(plain.summary[key], rel=1e-12), key


def test_clocks_that_were_not_measured_are_refused(tmp_path):
    with pytest.raises(TraceError, match="choose a sm_clock_mhz in between"):
        clocked(tmp_path, 600.0, clocks_mhz=[1980, 300])
    gpu_trace(tmp_path / "trace")
    power = {"policy": "budget", "budget_w": 600}
    path = written(tmp_path, {"power": power}, cost={"trace": "trace"})
    with pytest.raises(TraceError, match="two clocks or more"):
        prepare(load_scenario(path))
    with pytest.raises(ScenarioError, match=r"leave cost\.sm_clock_mhz and cost\.power_cap_w out"):
        load_scenario(written(tmp_path, {"power": power}, cost={"trace": "trace", "sm_clock_mhz": 1500}))

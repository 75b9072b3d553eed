"""The goodput of a run under way becomes, at its end, that of its summary."""

from __future__ import annotations

import pytest

import simslm
from simslm.metrics.underway import goodput_rps
from simslm.sim import world


@pytest.mark.parametrize("bounds", [{"ttft_s": 0.002}, {"ttft_s": 0.003, "tpot_s": 0.0013}, {"e2e_s": 0.05}])
def test_the_last_look_is_the_summary(small, monkeypatch, bounds):
    monkeypatch.setattr(world, "PROGRESS_EVERY", 1)
    scenario = simslm.load_scenario(small | {"slo": bounds})
    looks = []

    def look(underway):
        looks.append(
            (underway.done, underway.total, underway.time_s, goodput_rps(underway, scenario.slo.bounds()))
        )

    summary = simslm.simulate(scenario, progress=look, with_intervals=False).summary
    assert [done for done, *_ in looks] == list(range(1, 51))
    assert {total for _, total, *_ in looks} == {50}
    times = [time for *_, time, _ in looks]
    assert times == sorted(times)
    assert 0 < summary["slo"]["attainment"] < 1
    *_, last = looks[-1]
    assert last == pytest.approx(summary["slo"]["goodput_rps"], rel=1e-2)


def test_before_anything_happened_nothing_is_said(small, monkeypatch):
    monkeypatch.setattr(world, "PROGRESS_EVERY", 1)
    scenario = simslm.load_scenario(
        small | {"workload": small["workload"] | {"arrivals": {"process": "all-at-once"}}}
    )
    looks = []
    simslm.simulate(
        scenario, progress=lambda underway: looks.append(goodput_rps(underway, {})), with_intervals=False
    )
    assert looks[-1] > 0

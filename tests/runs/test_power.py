"""Samples of a second: energy and busy time land where they belong."""

from __future__ import annotations

import numpy as np
import pytest

from simslm.metrics.iterations import IterationTable
from simslm.runs.power import device_samples


def iterations(starts, ends, power_w=None, host_s=0.0) -> IterationTable:
    start, end = np.array(starts, dtype=float), np.array(ends, dtype=float)
    columns = {
        "start_s": start,
        "end_s": end,
        "duration_s": end - start,
        "host_s": np.full(len(start), host_s),
    }
    energy = None if power_w is None else np.array(power_w) * (end - start)
    return IterationTable(columns, energy, np.zeros(len(start)), np.ones(len(start), dtype=bool))


def summary(makespan_s, busy=1.0, idle_j=0.0):
    return {"makespan_s": makespan_s, "utilization": {"busy": busy}, "energy": {"idle_j": idle_j}}


def test_the_median_is_that_of_the_seconds():
    table = iterations([0, 1.5, 2], [1.5, 2, 3], [100, 300, 500])
    found = device_samples([table], summary(3.0))
    assert found == {"power_active_p50_w": pytest.approx(200), "sm_busy_pct": pytest.approx(100)}


def test_seconds_without_work_do_not_count():
    table = iterations([0, 9], [1, 10], [300, 300])
    found = device_samples([table], summary(10.0, busy=0.2, idle_j=8 * 50.0))
    assert found["power_active_p50_w"] == pytest.approx(300)


def test_a_rest_within_a_second_draws_idle_power():
    table = iterations([0, 1], [0.5, 1.5], [300, 300])
    found = device_samples([table], summary(2.0, busy=0.5, idle_j=1.0 * 100))
    assert found == {"power_active_p50_w": pytest.approx(200), "sm_busy_pct": pytest.approx(50)}


def test_replicas_add_up():
    one, two = iterations([0], [2], [150]), iterations([0], [1], [250])
    found = device_samples([one, two], summary(2.0, busy=0.75, idle_j=30.0))
    assert found["power_active_p50_w"] == pytest.approx((400 + 150 + 30) / 2)


def test_host_time_is_not_busy_and_replicas_are_independent():
    half = iterations([0, 1], [1, 2], [100, 100], host_s=0.5)
    assert device_samples([half], summary(2.0))["sm_busy_pct"] == pytest.approx(50)
    assert device_samples([half, half], summary(2.0))["sm_busy_pct"] == pytest.approx(75)


def test_the_last_part_of_a_second_is_no_sample():
    table = iterations([0, 1, 2], [1, 2, 2.1], [100, 200, 900])
    assert device_samples([table], summary(2.1))["power_active_p50_w"] == pytest.approx(150)


def test_a_run_of_less_than_a_second_is_one_sample():
    table = iterations([0], [0.25], [120])
    assert device_samples([table], summary(0.25))["power_active_p50_w"] == pytest.approx(120)


def test_nothing_active_has_no_median():
    table = iterations([0], [10], [120], host_s=9.0)
    assert device_samples([table], summary(10.0)) == {"power_active_p50_w": None, "sm_busy_pct": None}


def test_unknown_power_stays_unknown():
    table = iterations([0], [2])
    found = device_samples([table], summary(2.0, idle_j=None))
    assert found == {"power_active_p50_w": None, "sm_busy_pct": pytest.approx(100)}

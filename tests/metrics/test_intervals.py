"""Intervals of a run's figures follow from what is known of the error of its costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simslm import api
from simslm.catalog.work import IterationShape, equal_prompts
from simslm.cost.transforms import HostReplaced, Scaled
from simslm.metrics.intervals import SECTIONS, WIDTH, intervals
from simslm.scenario.cost import HostTime

ROOT = Path(__file__).parents[2]
TRACE = str(ROOT / "traces" / "cpu" / "opt-125m-bf16")
SCENARIO = {
    "name": "sure",
    "model": "opt-125m",
    "device": "cpu",
    "cost": {"trace": TRACE},
    "workload": {
        "num_requests": 30,
        "arrivals": {"process": "all-at-once"},
        "prompt_tokens": {"dist": "fixed", "value": 64},
        "output_tokens": {"dist": "fixed", "value": 20},
    },
}


def test_the_delta_method_by_hand():
    def summary(value: float | None, attained: float | None = None) -> dict:
        empty: dict = {section: {} for section in SECTIONS}
        return empty | {"makespan_s": value, "slo": {"attainment": attained, "note": "text"}}

    first, second = (summary(9.0, 0.9), summary(11.0, 1.0)), (summary(14.0, 1.0), summary(8.0, 1.0))
    found = intervals(summary(10.0, 0.99), [first, second])
    spread = WIDTH * np.hypot(1.0, 3.0)
    assert found["level"] == 0.95
    assert found["figures"]["makespan_s"] == pytest.approx([10 - spread, 10 + spread])
    assert found["figures"]["slo.attainment"] == pytest.approx([0.99 - WIDTH * 0.05, 1.0])
    assert found["figures"].keys() == {"makespan_s", "slo.attainment"}
    assert intervals(summary(1.0), [(summary(0.1), summary(9.0))])["figures"]["makespan_s"][0] == 0.0
    assert intervals(summary(1.0), []) == {"level": None, "figures": {}}


def test_all_at_once_scales_with_the_error_of_the_measurement():
    """Every latency off by a share makes the run as much longer: its interval is 1.96 times the error at the
    held-out points to either side."""
    scenario = api.load_scenario(SCENARIO)
    (pair,) = api.prepare(scenario).groups[0].cost.variants()
    error = pair[1].provenance["scaled"] - 1
    assert 0.01 < error < 0.2
    summary = api.simulate(scenario).summary
    low, high = summary["intervals"]["figures"]["makespan_s"]
    assert [low, high] == pytest.approx(
        [summary["makespan_s"] * (1 + sign * WIDTH * error) for sign in (-1, 1)]
    )
    assert summary["intervals"]["figures"]["itl_s.p50"][0] < summary["itl_s"]["p50"]


def test_nothing_is_known_of_a_roofline_and_long_runs_are_not_repeated(monkeypatch):
    roofline = api.load_scenario(SCENARIO | {"cost": {"roofline": {}}})
    assert api.simulate(roofline).summary["intervals"] == {"level": None, "figures": {}}
    monkeypatch.setattr(api, "MOST_REPEATED", 29)
    assert api.simulate(api.load_scenario(SCENARIO)).summary["intervals"]["level"] is None


def test_variants_survive_what_is_put_around_costs():
    """A host time of one's own has no error; the device time keeps its."""
    cost = api.prepare(api.load_scenario(SCENARIO)).groups[0].cost
    ((low, high),) = cost.variants()
    assert isinstance(low, Scaled)
    own = HostReplaced(cost, HostTime(fixed_s=1e-3, per_seq_s=0.0))
    ((lower, higher),) = own.variants()
    for inner, outer in ((low, lower), (high, higher)):
        line, outside = inner.decode(4), outer.decode(4)
        assert outside.slopes == line.slopes
        device_s = line.latency_s(400) - inner.host_s(IterationShape(4, 400))
        assert outside.latency_s(400) == pytest.approx(device_s + 1e-3)


@given(st.integers(1, 30), st.integers(0, 4000), st.integers(0, 2), st.integers(1, 600), st.floats(0.5, 2))
def test_scaled_numbers_and_columns_are_bitwise_equal(seqs, context, prompts, each, factor):
    cost = Scaled(
        api.prepare(api.load_scenario(SCENARIO | {"cost": {"roofline": {}}})).groups[0].cost, factor
    )
    shape = equal_prompts(seqs, seqs * context, prompts, prompts * each, 0)
    columns = IterationShape(*(np.array([float(part)]) for part in shape))
    number = IterationShape(*(part.item() if isinstance(part, np.generic) else part for part in shape))
    assert cost.latency_s(number) == cost.evaluate(columns).latency_s[0]
    assert cost.evaluate(columns).host_s[0] == cost.host_s(number)

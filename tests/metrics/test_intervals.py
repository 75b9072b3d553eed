"""Intervals of a run's figures follow from what is known of the error of its costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simslm import api
from simslm.catalog.work import IterationShape, equal_prompts
from simslm.cost.retimed import Retimed
from simslm.cost.scaled import Scaled
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
    low, high = intervals(summary(1.0), [(summary(0.1), summary(9.0))])["figures"]["makespan_s"]
    assert 0 < low < 0.01, "a positive figure stays positive"
    assert high == pytest.approx(1 + WIDTH * 4.45)
    assert intervals(summary(1.0), [])["figures"] == {}


def test_repetitions_say_that_they_are():
    seen = []
    api.simulate(api.load_scenario(SCENARIO, {"workload.num_requests": 1100}), progress=seen.append)
    assert [(each.repeat, each.done, each.total) for each in seen] == [(i, 1024, 1100) for i in range(3)]


def test_all_at_once_scales_with_the_error_of_the_measurement():
    """Every latency off by a share makes the run as much longer: its interval is 1.96 times the error at the
    held-out points to either side."""
    scenario = api.load_scenario(SCENARIO)
    (pair,) = api.prepare(scenario).groups[0].cost.variants()
    error = pair[1].provenance["scaled"] - 1
    assert 0.01 < error < 0.2
    summary = api.simulate(scenario).summary
    low, high = summary["intervals"]["figures"]["makespan_s"]
    half = WIDTH * (pair[1].provenance["scaled"] - pair[0].provenance["scaled"]) / 2
    assert [low, high] == pytest.approx([summary["makespan_s"] * (1 + sign * half) for sign in (-1, 1)])
    assert summary["intervals"]["figures"]["itl_s.p50"][0] < summary["itl_s"]["p50"]


def test_nothing_is_known_of_a_roofline_and_long_runs_are_not_repeated(monkeypatch):
    roofline = api.load_scenario(SCENARIO | {"cost": {"roofline": {}}})
    unknown = api.simulate(roofline).summary["intervals"]
    assert (unknown["level"], unknown["figures"]) == (None, {})
    assert "not known" in unknown["note"]
    monkeypatch.setattr(api, "MOST_REPEATED", 29)
    unknown = api.simulate(api.load_scenario(SCENARIO)).summary["intervals"]
    assert unknown["level"] is None
    assert unknown["note"] == "more than 29 requests: the run was not repeated"


def test_other_requests_have_intervals_of_their_own():
    """Whatever is known of the costs: the two kinds are named and kept apart."""
    long = {"workload.num_requests": 2000, "workload.arrivals": {"process": "poisson", "rate_rps": 5}}
    summary = api.simulate(api.load_scenario(SCENARIO | {"cost": {"roofline": {}}}, long)).summary
    found = summary["intervals"]["sampling"]
    assert (found["level"], found["note"], summary["intervals"]["of"]) == (0.95, "", "cost error only")
    low, high = found["figures"]["ttft_s.mean"]
    assert low < summary["ttft_s"]["mean"] < high
    assert "ttft_s.p99" not in found["figures"]
    few = api.simulate(api.load_scenario(SCENARIO)).summary["intervals"]["sampling"]
    assert few["level"] is None
    assert few["note"] == "fewer than 100 requests: run more requests or several seeds"


def test_stopping_in_a_repeat_keeps_the_run():
    """The first run is whole; Ctrl-C in what follows ends that, and only that."""
    stops: list[Any] = []

    def start(stop: Any) -> None:
        stops.append(stop)
        if len(stops) == 2:
            stop()

    result = api.simulate(api.load_scenario(SCENARIO), on_start=start)
    assert result.summary["requests"]["finished"] == 30
    assert not result.manifest["interrupted"]
    assert result.summary["intervals"]["note"] == "the repeats were interrupted"


def test_groups_of_one_trace_vary_together():
    """Also with a host time of one's own beside it: they are the same measurement."""
    group = {"router": {"policy": "round-robin"}, "engine": {"max_num_seqs": 8}}
    own = {"trace": TRACE, "transforms": [{"host": {"fixed_s": 1e-3, "per_seq_s": 0.0}}]}
    groups = [
        {"name": "a", "devices": [0], **group},
        {"name": "b", "devices": [1], "cost": own, **group},
    ]
    both = api.prepare(api.load_scenario(SCENARIO | {"deployment": {"num_devices": 2, "groups": groups}}))
    ((low, high),) = both.variants()
    for varied, sign in ((low, -1), (high, 1)):
        for before, after in zip(both.groups, varied.groups, strict=True):
            changed = after.cost.decode(4).latency_s(400) - before.cost.decode(4).latency_s(400)
            assert changed * sign > 0


def test_variants_survive_what_is_put_around_costs():
    """A host time of one's own has no error; the device time keeps its."""
    cost = api.prepare(api.load_scenario(SCENARIO)).groups[0].cost
    ((low, high),) = cost.variants()
    assert isinstance(low, Scaled)
    own = Retimed(cost, HostTime(fixed_s=1e-3, per_seq_s=0.0))
    ((lower, higher),) = own.variants()
    for inner, outer in ((low, lower), (high, higher)):
        line, outside = inner.decode(4), outer.decode(4)
        assert outside.slopes == line.slopes
        device_s = line.latency_s(400) - inner.host_s(IterationShape(4, 400))
        assert outside.latency_s(400) == pytest.approx(device_s + 1e-3)


@pytest.mark.slow
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

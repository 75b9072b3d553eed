"""A power cap or a lower clock: what was measured against them, and nothing beyond it."""

from __future__ import annotations

import numpy as np
import pytest
from cost.conftest import DEVICE, DTYPE, MODEL, PROVENANCE
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import simslm
from simslm.api import load_scenario
from simslm.catalog.devices import load_device
from simslm.catalog.models import load_model
from simslm.catalog.work import IterationShape
from simslm.cost.load import load_cost
from simslm.cost.throttled import Throttled, throttles
from simslm.errors import TraceError
from simslm.scenario.cost import Cost
from simslm.traces.files import read_trace, write_trace

CAPS = {
    "state": ["idle", *["decode"] * 3, *["prefill"] * 3],
    "cap_w": [None, 50.0, 75.0, 100.0, 50.0, 75.0, 100.0],
    "sm_clock_mhz": [300.0, 800.0, 1200.0, 1600.0, 700.0, 1100.0, 1600.0],
    "power_w": [20.0, 50.0, 60.0, 60.0, 50.0, 75.0, 100.0],
    "relative_speed": [None, 0.95, 1.0, 1.0, 0.4, 0.7, 1.0],
    "repeat": [0] * 7,
}

decodes = st.tuples(st.integers(1, 60), st.integers(1, 2000))


@pytest.fixture(scope="module")
def capped(synthetic):
    """A trace with power and speed against cap and clock."""
    builder = synthetic(noise=0.1)
    trace = builder.trace()
    return write_trace(trace.path, provenance=PROVENANCE, iterations=trace.iterations, power=CAPS)


def cost(trace, **setting):
    return load_cost(Cost(trace=str(trace.path), **setting), load_model(MODEL), load_device(DEVICE), DTYPE)


def columns(shapes) -> IterationShape:
    return IterationShape(*(np.array(values) for values in zip(*shapes, strict=True)))


def test_settings_lie_between_those_measured(capped):
    found = throttles(capped, "power_cap_w", 62.5)
    assert found["decode"].speed == pytest.approx(0.975)
    assert found["decode"].power == pytest.approx(35 / 40)
    assert found["prefill"].speed == pytest.approx(0.55)
    assert found["prefill"].power == pytest.approx(42.5 / 80)
    assert throttles(capped, "sm_clock_mhz", 1200.0)["decode"].speed == 1.0


def test_the_highest_setting_changes_nothing(capped):
    plain, highest = cost(capped), cost(capped, power_cap_w=100.0)
    shapes = columns([IterationShape(8, 4000), IterationShape(8, 4000, 1, 300, 0, 45150.0)])
    np.testing.assert_allclose(
        highest.evaluate(shapes).latency_s, plain.evaluate(shapes).latency_s, rtol=1e-12
    )
    np.testing.assert_allclose(highest.evaluate(shapes).energy_j, plain.evaluate(shapes).energy_j, rtol=1e-12)


def test_numbers_and_columns_are_bitwise_equal(capped):
    held = cost(capped, power_cap_w=60.0)

    @given(st.lists(decodes, min_size=1))
    def check(rows):
        shapes = [IterationShape(seqs, seqs * context) for seqs, context in rows]
        shapes += [IterationShape(*shape[:2], 1, 300, 0, 45150.0) for shape in shapes]
        assert [held.latency_s(shape) for shape in shapes] == held.evaluate(
            columns(shapes)
        ).latency_s.tolist()

    check()


def test_device_time_is_stretched_and_host_time_is_not(capped):
    plain, held = cost(capped), cost(capped, power_cap_w=50.0)
    decode, prefill = IterationShape(8, 4000), IterationShape(0, 0, 1, 300, 0, 45150.0)
    for shape, speed in ((decode, 0.95), (prefill, 0.4)):
        assert held.host_s(shape) == plain.host_s(shape)
        device = plain.latency_s(shape) - plain.host_s(shape)
        assert held.latency_s(shape) - held.host_s(shape) == pytest.approx(device / speed)


def test_power_above_idle_falls_as_measured(capped):
    shapes = columns([IterationShape(8, 4000), IterationShape(0, 0, 1, 300, 0, 45150.0)])
    before, after = (each.evaluate(shapes) for each in (cost(capped), cost(capped, power_cap_w=50.0)))
    watts = [each.energy_j / each.latency_s - 20.0 for each in (before, after)]
    np.testing.assert_allclose(watts[1], watts[0] * [30 / 40, 30 / 80])


def test_its_variants_are_held_too(capped):
    held = cost(capped, sm_clock_mhz=1000.0)
    assert "sm_clock_mhz 1000 MHz" in held.engine
    assert all(isinstance(each, Throttled) for pair in held.variants() for each in pair)


def test_a_search_trades_speed_for_energy_by_the_cap(capped):
    scenario = load_scenario(
        {
            "name": "caps",
            "model": MODEL,
            "device": DEVICE,
            "dtype": DTYPE,
            "cost": {"trace": str(capped.path)},
            "workload": {
                "num_requests": 40,
                "arrivals": {"process": "all-at-once"},
                "prompt_tokens": {"dist": "fixed", "value": 16},
                "output_tokens": {"dist": "fixed", "value": 64},
            },
            "deployment": {"engine": {"num_gpu_blocks": 400, "max_num_seqs": 16}},
            "search": {
                "space": {"cost.power_cap_w": [50, 75, 100]},
                "objectives": {"throughput.output_tokens_per_s": "max", "energy.j_per_output_token": "min"},
            },
        }
    )
    found = simslm.search(scenario)
    caps = {point["parameters"]["cost.power_cap_w"] for point in found.frontier["points"]}
    assert 50 in caps
    assert len(caps) >= 2


@pytest.mark.parametrize("value", [49.0, 101.0])
def test_nothing_is_said_beyond_what_was_measured(capped, value):
    with pytest.raises(TraceError, match="measured from 50 to 100 W"):
        cost(capped, power_cap_w=value)


def test_a_trace_without_settings_is_refused(synthetic):
    trace = read_trace(synthetic().trace().path)
    with pytest.raises(TraceError, match="no power and speed of decode against cap_w"):
        cost(trace, power_cap_w=60.0)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"trace": "here", "power_cap_w": 100, "sm_clock_mhz": 900}, "either power_cap_w or sm_clock_mhz"),
        ({"roofline": {}, "power_cap_w": 100}, "needs a trace"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, said):
    with pytest.raises(ValidationError, match=said):
        Cost.model_validate(wrong)

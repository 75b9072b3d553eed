"""Replacing host time, and building a cost model from what a scenario says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from simslm.catalog.devices import load_device
from simslm.catalog.models import load_model
from simslm.catalog.work import IterationShape, equal_prompts
from simslm.cost.interpolation import MeasuredCost
from simslm.cost.load import load_cost
from simslm.cost.retimed import Retimed
from simslm.cost.roofline import Roofline
from simslm.errors import TraceError
from simslm.scenario.cost import Cost, HostTime, RooflineOptions

OWN = HostTime(fixed_s=2e-3, per_seq_s=1e-4)

columns = st.lists(
    st.tuples(st.integers(1, 100), st.integers(1, 2000), st.integers(0, 1), st.integers(1, 3000)), min_size=1
)


def many(rows) -> IterationShape:
    seqs, context, prompts, tokens = np.array(rows).T
    return equal_prompts(seqs, seqs * context, prompts, prompts * tokens, 0 * seqs)


@given(columns)
def test_numbers_and_columns_are_bitwise_equal(noisy, rows):
    cost = Retimed(noisy, OWN)
    shapes = many(rows)
    each = [IterationShape(*(values[i].item() for values in shapes[:6])) for i in range(len(rows))]
    assert [cost.latency_s(shape) for shape in each] == cost.evaluate(shapes).latency_s.tolist()


@given(columns)
def test_device_time_stays_and_host_time_is_the_users(noisy, rows):
    shapes = many(rows)
    inner, outer = noisy.evaluate(shapes), Retimed(noisy, OWN).evaluate(shapes)
    expected = 2e-3 + 1e-4 * (shapes.decode_seqs + shapes.prefill_seqs)
    np.testing.assert_allclose(outer.host_s, expected)
    np.testing.assert_allclose(
        outer.latency_s - outer.host_s, inner.latency_s - inner.host_s, rtol=1e-9, atol=1e-12
    )
    gained = outer.latency_s - inner.latency_s
    np.testing.assert_allclose(outer.energy_j - inner.energy_j, 21.0 * gained, rtol=1e-6, atol=1e-9)


@given(st.integers(1, 99), st.integers(1, 3000), st.integers(0, 2000))
def test_latency_still_never_falls(noisy, seqs, context, tokens):
    """With any host time, even none: device time itself is monotone."""
    cost = Retimed(noisy, HostTime(fixed_s=0, per_seq_s=0))
    prompts = int(tokens > 0)
    less = equal_prompts(seqs, seqs * context, prompts, tokens, 0)
    more = equal_prompts(seqs + 1, (seqs + 1) * context, prompts, tokens, 0)
    assert cost.latency_s(more) >= cost.latency_s(less) * (1 - 1e-11) > 0


def test_device_time_rises_even_where_host_time_hides_it(synthetic):
    """Latency is flat and host time grows with the batch: what is left for the device must not shrink."""
    flat = synthetic(
        cost=lambda work: 5e-3 + 1e-9 * np.asarray(work.decode_seqs + work.prefill_tokens)
    ).model()
    cost = Retimed(flat, HostTime(fixed_s=0, per_seq_s=0))
    latencies = [cost.decode(seqs).latency_s(16 * seqs) for seqs in range(1, 33)]
    assert (np.diff(latencies) >= -1e-15).all()
    assert min(latencies) > 3e-3
    assert (
        5.4e-4 < flat.host_s(IterationShape(16, 160)) < 1.1e-3
    )  # between the least and the most, not the least


def test_two_transforms_apply_in_order(exact):
    twice = Retimed(Retimed(exact, OWN), HostTime(fixed_s=0, per_seq_s=0))
    once = Retimed(exact, HostTime(fixed_s=0, per_seq_s=0))
    assert twice.decode(8).latency_s(800) == pytest.approx(once.decode(8).latency_s(800), rel=1e-12)
    assert "host time" in twice.engine
    assert twice.provenance["host"] == {"fixed_s": 0, "per_seq_s": 0}


def test_a_scenario_names_a_trace_relative_to_itself(synthetic):
    builder = synthetic()
    builder.trace()
    spec = Cost(trace=builder.directory.name, transforms=({"host": OWN},))  # pyright: ignore
    cost = load_cost(spec, load_model("opt-125m"), load_device("cpu"), "fp32", builder.directory.parent)
    assert isinstance(cost, Retimed)
    assert cost.provenance["trace"] == builder.directory.name
    assert cost.source == "measured"


def test_a_scenario_asks_for_the_roofline():
    spec = Cost.model_validate({"roofline": {"efficiency": 0.5}})
    cost = load_cost(spec, load_model("opt-125m"), load_device("h200"), "bf16")
    assert isinstance(cost, Roofline)
    assert cost.provenance["options"]["efficiency"] == {"compute": 0.5, "bandwidth": 0.5}


def test_plain_trace(synthetic):
    builder = synthetic()
    builder.trace()
    spec = Cost(trace=str(builder.directory))
    cost = load_cost(spec, load_model("opt-125m"), load_device("cpu"), "fp32", Path("elsewhere"))
    assert isinstance(cost, MeasuredCost)


def test_a_missing_trace_is_a_trace_error(tmp_path):
    with pytest.raises(TraceError, match="no such trace directory"):
        load_cost(Cost(trace="nowhere"), load_model("opt-125m"), load_device("cpu"), "fp32", tmp_path)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"trace": "a", "roofline": {}},
        {"trace": ""},
        {"roofline": {"efficiency": 0}},
        {"roofline": {"efficiency": {"compute": 1.5}}},
        {"roofline": {"hots": {}}},
        {"roofline": {"host": {"fixed_s": -1, "per_seq_s": 0}}},
        {"roofline": {"host": {"fixed_s": float("nan"), "per_seq_s": 0}}},
        {"roofline": {}, "transforms": [{"hist": {}}]},
        {"roofline": {}, "transforms": [{"host": {"fixed_s": 1}}]},
    ],
)
def test_wrong_costs_are_refused(values):
    with pytest.raises(ValidationError):
        Cost.model_validate(values)


def test_defaults_cover_every_roofline_option():
    assert Cost.model_validate({"roofline": {}}).roofline == RooflineOptions()
    assert RooflineOptions().host.fixed_s == 5e-4

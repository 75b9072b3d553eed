"""The physical cost model: its parts by hand, scalars and columns to the bit, traces of terms and their faults."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simslm.api import prepare, simulate
from simslm.calibration.prior import medians
from simslm.catalog.devices import load_device
from simslm.catalog.models import load_model
from simslm.catalog.work import IterationShape
from simslm.cost.physical import LARGEST_GRAPH, PhysicalCost, captured, knee, physical_cost
from simslm.errors import TraceError
from simslm.scenario.load import load_scenario
from simslm.traces.files import read_trace, write_trace
from simslm.traces.terms import TERMS, terms_table

POWER = {
    "idle_power": 100.0,
    "active_power": 50.0,
    "byte_energy": 5e-11,
    "kv_byte_energy": 9e-11,
    "flop_energy": 1e-12,
}
PROVENANCE = {
    "source": "calibrated", "model": "opt-1.3b", "dtype": "fp16", "device": "h100-64gb", "engine": "vllm 0.6.3",
    "date": "2026-01-01", "command": "by hand",
    "domain": {"decode_seqs": [0, 64], "context": [1, 500], "prefill_tokens": [0, 512]},
    "covariance": {"terms": ["host", "launch"], "log": [[0.01, 0.0], [0.0, 0.04]]},
}  # fmt: skip


def cost(model: str = "opt-1.3b", **terms: float) -> PhysicalCost:
    return PhysicalCost(medians() | POWER | terms, load_model(model), load_device("h100-64gb"), "fp16")


def column(shape: IterationShape) -> IterationShape:
    return IterationShape(*(np.array([float(part)]) for part in shape))


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(["opt-1.3b", "opt-2.7b", "llama-2-7b", "gemma-2-2b"]),
    st.integers(0, 600),
    st.integers(0, 3000),
    st.integers(0, 8),
    st.integers(1, 700),
    st.integers(0, 900),
)
def test_scalars_and_columns_agree_to_the_bit(model, seqs, context, prompts, each, cached):
    if not seqs and not prompts:
        seqs = 1
    tokens = prompts * each
    pairs = tokens * (cached + (each + 1) / 2)
    shape = IterationShape(seqs, seqs * context, prompts, tokens, prompts * cached, pairs)
    at = cost(model)
    columns = at.evaluate(column(shape))
    assert at.latency_s(shape) == columns.latency_s[0]
    assert at.host_s(shape) == columns.host_s[0]
    assert 0 < columns.host_s[0] <= columns.latency_s[0]
    assert columns.energy_j is not None
    assert columns.energy_j[0] >= POWER["idle_power"] * columns.latency_s[0]


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["opt-1.3b", "gemma-2-2b"]),
    st.integers(1, 600),
    st.floats(0, 4000),
    st.sampled_from([1e-5, 4e-4, 4e-3]),
)
def test_a_line_is_the_cost_itself_at_every_context(model, seqs, context, launch):
    """Also where a window fills up, and where the device begins to outlast the launches."""
    at = cost(model, launch=launch)
    shape = column(IterationShape(seqs, seqs * context))
    assert at.decode(seqs).latency_s(seqs * context) == pytest.approx(
        at._latency(shape, np.maximum)[0], rel=1e-9
    )


def test_batches_are_padded_to_the_captured_sizes():
    sizes = np.array([1, 2, 3, 4, 5, 8, 9, 16, 17, 255, 256, 257, 300])
    assert captured(sizes).tolist() == [1, 2, 4, 4, 8, 8, 16, 16, 24, 256, 256, 257, 300]
    assert [captured(size) for size in sizes.tolist()] == captured(sizes).tolist()


def test_the_knee_is_the_roofline_away_from_its_ridge():
    assert knee(1.0, 100.0, max) == pytest.approx(100.0, rel=1e-5)
    assert knee(1.0, 1.0, max) == 1.25


def test_one_sequence_takes_what_the_terms_say():
    at = cost(key=0.0, host_per_seq=0.0)
    architecture, device = load_model("opt-1.3b"), load_device("h100-64gb")
    work = at._work(IterationShape(1, 0))
    weights = (work.linear_bytes + work.head_bytes) / device.memory_bandwidth_bytes_per_s / 0.9
    kv = work.decode_bytes / device.memory_bandwidth_bytes_per_s / 0.85
    expected = 5e-4 + weights + kv + architecture.num_layers * 5e-5
    assert at.latency_s(IterationShape(1, 0)) == pytest.approx(expected, rel=1e-6)


def test_a_prompt_takes_at_least_its_launches_and_a_graph_none():
    slow = cost(launch=3e-3)
    layers = load_model("opt-1.3b").num_layers
    assert slow.latency_s(IterationShape(0, 0, 1, 16, 0, 136.0)) == pytest.approx(5e-4 + 3e-5 + layers * 3e-3)
    assert slow.latency_s(IterationShape(8, 800)) == cost(launch=1e-3).latency_s(IterationShape(8, 800))
    largest = slow.latency_s(IterationShape(LARGEST_GRAPH, 0))
    assert slow.latency_s(IterationShape(LARGEST_GRAPH + 1, 0)) > largest + 0.9 * layers * 2e-3


def test_longer_contexts_larger_batches_and_more_prompt_tokens_never_take_less():
    at = cost("llama-2-7b")
    seqs, context = (grid.ravel().astype(float) for grid in np.meshgrid(np.arange(1, 400), [0, 100, 1000]))
    table = at.evaluate(IterationShape(seqs, seqs * context, 0, 0 * seqs, 0, 0.0)).latency_s.reshape(3, -1)
    assert (np.diff(table, axis=0) > 0).all()
    assert (np.diff(table, axis=1) > 0).all()
    tokens = np.arange(1.0, 2000)
    prompts = at.evaluate(IterationShape(0 * tokens, 0 * tokens, 1, tokens, 0, tokens * (tokens + 1) / 2))
    assert (np.diff(prompts.latency_s) >= 0).all()


def test_energy_is_idle_power_activity_bytes_and_operations_up_to_the_limit():
    at, shape = cost(), column(IterationShape(4, 400))
    found, work = at.evaluate(shape), at._work(shape)
    device = found.latency_s - found.host_s
    expected = 100 * found.latency_s + 50 * device + 1e-12 * work.flops
    expected = expected + 5e-11 * (work.bytes - work.decode_bytes) + 9e-11 * work.decode_bytes
    assert found.energy_j is not None
    assert found.energy_j == pytest.approx(expected)
    limited = cost(flop_energy=1e-10).evaluate(column(IterationShape(0, 0, 4, 2000, 0, 2000 * 250.5)))
    assert limited.energy_j is not None
    assert limited.energy_j == pytest.approx(700 * limited.latency_s)
    without = PhysicalCost(medians(), load_model("opt-1.3b"), load_device("h100-64gb"), "fp16")
    assert without.evaluate(shape).energy_j is None
    assert without.idle_w is None
    assert without.power_note


def write(path: Path, provenance: dict | None = None, **changed: object) -> Path:
    table = terms_table(medians() | POWER, {"host": 1e-5})
    for name, value in changed.items():
        table[name] = value  # type: ignore[assignment]
    write_trace(path, provenance=PROVENANCE | (provenance or {}), terms=table)
    return path


def load(path: Path) -> PhysicalCost:
    return physical_cost(read_trace(path), load_model("opt-1.3b"), load_device("h100-64gb"), "fp16")


def test_a_trace_of_terms_is_used_like_any_other(tmp_path, small):
    write(tmp_path / "trace")
    prepared = prepare(
        load_scenario(
            small | {"device": "h100-64gb", "dtype": "fp16", "cost": {"trace": str(tmp_path / "trace")}}
        )
    )
    found = prepared.groups[0].cost
    assert isinstance(found, PhysicalCost)
    assert (found.source, found.engine) == ("calibrated", "vllm 0.6.3")
    assert found.provenance["content_hash"]
    assert found.terms == medians() | POWER


def test_the_domain_is_what_was_calibrated_on(tmp_path):
    at = load(write(tmp_path / "trace"))
    shapes = IterationShape(
        np.array([8, 65, 8, 0, 0]), np.array([800, 650, 8000, 0, 0]), np.array([0, 0, 0, 1, 1]),
        np.array([0, 0, 0, 512, 513]), np.zeros(5), np.array([0, 0, 0, 512 * 256.5, 513 * 257]),
    )  # fmt: skip
    assert at.evaluate(shapes).in_domain.tolist() == [True, False, False, True, False]


def test_variants_follow_from_the_errors_of_the_terms(tmp_path):
    """Independent terms are directions of their own, each one standard error of its logarithm to either side."""
    at = load(write(tmp_path / "trace"))
    found = {
        name: (low.terms[name] / at.terms[name], high.terms[name] / at.terms[name])
        for low, high in at.variants()
        for name in ("host", "launch")
        if low.terms[name] != at.terms[name]
    }
    assert found.keys() == {"host", "launch"}
    for name, error in (("host", 0.1), ("launch", 0.2)):
        assert sorted(found[name]) == pytest.approx([np.exp(-error), np.exp(error)])
    assert not cost().variants()


def test_no_variant_is_beyond_physics(tmp_path):
    sure = {"terms": ["weight_bandwidth"], "log": [[4.0]]}
    at = load(write(tmp_path / "trace", {"covariance": sure}))
    assert max(each.terms["weight_bandwidth"] for pair in at.variants() for each in pair) == 1.0


NAMES = [name for name in TERMS if name in medians() | POWER]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"term": ["hots", *NAMES[1:]]}, "did you mean 'host'"),
        ({"term": ["host", "host", *NAMES[2:]]}, "twice"),
        ({"unit": ["ms", *(TERMS[name].unit for name in NAMES[1:])]}, "expected 's'"),
        ({"value": [*([0.5] * 4), 1.2, *([0.5] * (len(NAMES) - 5))]}, "expected"),
        ({"value": [-1e-3, *list((medians() | POWER).values())[1:]]}, "expected 0 to 1 s"),
    ],
)
def test_wrong_terms_are_refused(tmp_path, changed, said):
    path = write(tmp_path / "trace", **changed)
    with pytest.raises(TraceError, match=said):
        load(path)


@pytest.mark.parametrize("lost", ["compute", "idle_power"])
def test_lost_terms_are_named(tmp_path, lost):
    values = {name: value for name, value in (medians() | POWER).items() if name != lost}
    write_trace(tmp_path / "trace", provenance=PROVENANCE, terms=terms_table(values, {}))
    with pytest.raises(TraceError, match=f"lacks the terms {lost}"):
        load(tmp_path / "trace")


@pytest.mark.parametrize(
    "wrong",
    [
        {"domain": {"decode_seqs": [0, 1]}},
        {"domain": None},
        {"covariance": {"terms": ["host"], "log": [[1, 2]]}},
        {"covariance": {"terms": ["nothing"], "log": [[1.0]]}},
        {"covariance": 3},
    ],
)
def test_a_calibration_without_domain_or_covariance_is_refused(tmp_path, wrong):
    path = write(tmp_path / "trace", provenance=wrong)
    with pytest.raises(TraceError, match="domain or the covariance"):
        load(path)


def test_kernels_take_the_whole_device_and_gaps_between_launches_none_of_it():
    at = cost(launch=3e-3)
    decode, prompt = IterationShape(8, 800), IterationShape(0, 0, 1, 16, 0, 136.0)
    for shape, whole in ((decode, True), (prompt, False)):
        device_s = at.latency_s(shape) - at.host_s(shape)
        asked = at.demand(shape, device_s)
        assert asked.compute == asked.memory == pytest.approx(at.kernels_s(shape) / device_s)
        assert (asked.memory == pytest.approx(1.0)) == whole


@pytest.mark.slow
def test_two_replicas_win_back_what_one_leaves_idle(tmp_path, small):
    """One busy replica leaves its host time unused; two under MPS take the device time of both, and no less."""
    write(tmp_path / "trace")
    made = small | {
        "device": "h100-64gb", "dtype": "fp16", "cost": {"trace": str(tmp_path / "trace")},
        "workload": {"num_requests": 600, "arrivals": {"process": "all-at-once"},
                     "prompt_tokens": {"dist": "fixed", "value": 16}, "output_tokens": {"dist": "fixed", "value": 200}},
    }  # fmt: skip

    def rate(replicas: int) -> tuple[float, float]:
        deployment = {"replicas_per_device": replicas, "sharing": "mps" if replicas > 1 else "none",
                      "engine": {"max_num_seqs": 64}}  # fmt: skip
        summary = simulate(load_scenario(made | {"deployment": deployment})).summary
        return summary["throughput"]["output_tokens_per_s"], summary["utilization"]["host_gap"]

    (alone, gap), (both, _) = rate(1), rate(2)
    assert 1.05 < both / alone <= 1.02 / (1 - gap)


def test_unread_outputs_delay_an_iteration_that_waits_for_its_launches():
    """A graph hides them, and so does a device that is busy for longer."""
    few = IterationShape(0, 0, 1, 100, 0, 5050.0)
    bound, hidden = cost(launch=5e-3), cost(launch=1e-6)
    late = bound.terms["host_per_seq"] * 64
    assert bound.latency_s(few._replace(unread_seqs=64)) == pytest.approx(bound.latency_s(few) + late)
    assert hidden.latency_s(few._replace(unread_seqs=1)) == hidden.latency_s(few)
    decodes = IterationShape(64, 6400)
    assert bound.latency_s(decodes._replace(unread_seqs=64)) == bound.latency_s(decodes)

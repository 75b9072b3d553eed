"""The roofline: figures by hand, one function for numbers and columns, and honest labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simslm.catalog.devices import device_from_mapping, load_device
from simslm.catalog.models import load_model
from simslm.catalog.work import IterationShape, equal_prompts
from simslm.cost.roofline import Roofline
from simslm.scenario.cost import Efficiency, HostTime, RooflineOptions

MODELS = ("opt-1.3b", "llama-3.2-1b", "gemma-2-2b")
IDEAL = RooflineOptions(efficiency=Efficiency(compute=1, bandwidth=1), host=HostTime(fixed_s=0, per_seq_s=0))

decodes = st.tuples(st.integers(1, 5000), st.integers(0, 10_000_000)).map(lambda each: IterationShape(*each))
prefills = st.builds(
    lambda seqs, context, prompts, tokens, cached: IterationShape(
        seqs,
        context * (seqs > 0),
        prompts,
        tokens,
        cached,
        tokens * (cached / prompts + (tokens / prompts + 1) / 2),
    ),
    st.integers(0, 5000),
    st.integers(0, 1_000_000),
    st.integers(1, 8),
    st.integers(8, 100_000),
    st.integers(0, 100_000),
)


@pytest.fixture(scope="module", params=MODELS)
def roofline(request) -> Roofline:
    return Roofline(load_model(request.param), load_device("h200"), "bf16")


def test_one_token_reads_the_weights_once():
    """Batch 1 with an empty cache on ideal hardware: weights over bandwidth, and next to nothing else."""
    model, device = load_model("llama-3.2-1b"), load_device("h200")
    expected = model.weight_bytes("bf16") / device.memory_bandwidth_bytes_per_s
    assert Roofline(model, device, "bf16", IDEAL).decode(1).latency_s(0) == pytest.approx(expected, rel=1e-3)


def test_a_long_prompt_runs_at_the_arithmetic_peak():
    model, device = load_model("opt-1.3b"), load_device("a100-80gb")
    shape = equal_prompts(0, 0, 1, 2048, 0)
    layers = 2 * 2048 * model.num_layers * model.layer_matrix_parameters() / device.flops_per_s("bf16")
    latency = float(Roofline(model, device, "bf16", IDEAL).latency_s(shape))
    assert layers < latency < 1.2 * layers


def test_defaults_add_host_time_and_losses():
    model, device = load_model("opt-125m"), load_device("h200")
    ideal, usual = Roofline(model, device, "bf16", IDEAL), Roofline(model, device, "bf16")
    gain = usual.decode(16).latency_s(0) - ideal.decode(16).latency_s(0) / 0.8
    assert gain == pytest.approx(5e-4 + 16 * 3e-5, rel=1e-6)


@pytest.mark.slow
@given(st.lists(st.one_of(decodes, prefills), min_size=1, max_size=20))
def test_numbers_and_columns_are_bitwise_equal(roofline, shapes):
    arrays = IterationShape(*(np.array(values) for values in zip(*shapes, strict=True)))
    costs = roofline.evaluate(arrays)
    assert [roofline.latency_s(each) for each in shapes] == costs.latency_s.tolist()
    assert [roofline.host_s(each) for each in shapes] == costs.host_s.tolist()


@given(decodes)
def test_decode_only_is_the_decode_line(roofline, shape):
    latency = roofline.latency_s(shape)
    assert latency == roofline.decode(shape.decode_seqs).latency_s(shape.decode_ctx_tokens)
    one = IterationShape(*(np.array([value]) for value in shape))
    parts = roofline.parts(one)
    assert latency == pytest.approx(float((parts.device + parts.host)[0]), rel=1e-9)


def test_windows_bend_the_line_and_nothing_else_does():
    device = load_device("h200")
    assert len(Roofline(load_model("opt-1.3b"), device, "bf16").decode(8).starts) == 1
    bent = Roofline(load_model("gemma-2-2b"), device, "bf16").decode(8)
    assert bent.starts == (0.0, 8 * 4095.0)
    assert bent.slopes[1] == pytest.approx(bent.slopes[0] / 2, rel=1e-6)


def test_attention_that_turns_compute_bound_bends_the_line():
    """A device on which the cache write of the new token outweighs arithmetic up to 999 tokens of context."""
    model, h200 = load_model("llama-3.2-1b"), load_device("h200")
    per_key = 2 * model.query_size / (model.kv_size * 2) * h200.memory_bandwidth_bytes_per_s
    device = device_from_mapping({"like": "h200", "compute_flops": {"bf16": per_key / 1.001}})
    roofline = Roofline(model, device, "bf16", IDEAL)
    line = roofline.decode(8)
    assert line.starts == pytest.approx((0, 8 * 999), rel=1e-6)
    contexts = np.array([0, 1, 100, 8 * 999, 10_000, 1_000_000])
    parts = roofline.parts(IterationShape(np.full(6, 8), contexts, 0, 0, 0, 0.0))
    np.testing.assert_allclose(line.latencies_s(contexts), parts.device + parts.host, rtol=1e-12)


def test_energy_lies_between_idle_and_maximum_power(roofline):
    device = load_device("h200")
    shapes = equal_prompts(
        np.array([1, 256, 0, 8]), np.array([10, 256_000, 0, 4000]), np.array([0, 0, 1, 1]),
        np.array([0, 0, 4096, 512]), np.array([0, 0, 0, 128]),
    )  # fmt: skip
    costs = roofline.evaluate(shapes)
    power = costs.energy_j / costs.latency_s
    assert (power > device.idle_w).all()
    assert (power <= device.max_w).all()
    assert power[2] > power[0]


def test_it_says_that_nothing_was_measured(roofline):
    costs = roofline.evaluate(IterationShape(*(np.ones(3) for _ in range(6))))
    assert not costs.in_domain.any()
    assert roofline.source == roofline.provenance["source"] == "roofline"
    assert "assumed" in roofline.engine
    assert "assumed" in roofline.provenance["power"]

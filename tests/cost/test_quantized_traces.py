"""Traces of weights in eight bits: the memory they leave, and the roofline that carries them on."""

from __future__ import annotations

import pytest

from simslm.api import load_scenario, prepare
from simslm.catalog.devices import load_device
from simslm.catalog.models import load_model
from simslm.catalog.work import IterationShape
from simslm.cost.interpolation import MeasuredCost
from simslm.cost.roofline import Roofline
from simslm.errors import UsageError
from simslm.transforms.weights import Weights

MODEL, DEVICE, DTYPE = "opt-125m", "cpu", "fp32"
EIGHT_BITS = Weights(bits=8, group_size=None)


@pytest.fixture
def traces(synthetic):
    return [synthetic().trace(quantization=kind) for kind in (None, "int8")]


def scenario(small, trace, **cost):
    return load_scenario(
        small | {"model": MODEL, "device": DEVICE, "dtype": DTYPE, "cost": {"trace": str(trace.path), **cost}}
    )


def test_kv_blocks_are_those_that_eight_bit_weights_leave(small, traces):
    plain, quantized = (prepare(scenario(small, trace)).groups[0] for trace in traces)
    transforms = [{"weights": EIGHT_BITS.model_dump()}]
    transformed = prepare(scenario(small, traces[0], transforms=transforms)).groups[0]
    assert quantized.held == transformed.held
    assert quantized.memory.num_gpu_blocks == transformed.memory.num_gpu_blocks > plain.memory.num_gpu_blocks
    architecture = load_model(MODEL)
    matrices = architecture.num_layers * architecture.layer_matrix_parameters()
    assert plain.held.weight_bytes - quantized.held.weight_bytes == 3 * matrices
    assert quantized.transforms == ()
    assert quantized.changes == transformed.changes


def test_beyond_what_was_measured_the_roofline_reads_eight_bits(traces):
    """The last measured batch has 32 sequences; beyond it the base grows as the roofline does."""
    architecture, device = load_model(MODEL), load_device(DEVICE)
    plain, quantized = (MeasuredCost(trace, architecture, device, DTYPE) for trace in traces)
    inside = IterationShape(8, 16 * 8)
    assert quantized.latency_s(inside) == pytest.approx(plain.latency_s(inside))

    def growth(cost):
        return cost.decode(256).latency_s(0.0) / cost.decode(32).latency_s(0.0)

    rooflines = [Roofline(architecture, device, DTYPE, transforms=t) for t in ((), (EIGHT_BITS,))]
    expected = [
        roofline.device_s(IterationShape(256, 0), max) / roofline.device_s(IterationShape(32, 0), max)
        for roofline in rooflines
    ]
    assert expected[1] != pytest.approx(expected[0])
    assert growth(quantized) / growth(plain) == pytest.approx(expected[1] / expected[0], rel=0.02)


def test_such_weights_are_not_quantised_again(small, traces):
    asked = scenario(small, traces[1], transforms=[{"weights": {"bits": 4}}])
    with pytest.raises(UsageError, match="measured with int8 weights"):
        prepare(asked)

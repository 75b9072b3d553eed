"""Weights of eight bits: the engine computes what it would with the dequantised ones."""

import json
from importlib.util import find_spec
from weakref import ref

import numpy as np
import pytest
import torch
from tiny_campaigns import measured
from torch.nn import functional

from profiler import visits
from profiler.engine.batch import Chunk
from profiler.engine.engine import Engine
from profiler.engine.quantized import QUANTIZATIONS, multiply_in_place, quantize, quantized_linear
from profiler.engine.weights import random_weights
from profiler.engines.own import OwnEngine
from profiler.measure.meters import NoMeter
from profiler.provenance import setting
from simslm.errors import DeviceError, InfeasibleError, UsageError
from simslm.traces.files import read_trace

KINDS = list(QUANTIZATIONS)
MATRICES = ("q", "k", "v", "out", "gate", "up", "down", "experts_gate_up", "experts_down")
PROMPT = [5, 17, 3, 88, 41, 9, 60]


def matrix(rows, columns, dtype=torch.float32):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(3)).to(dtype)


def rounded(architecture, kind, dtype=torch.float32):
    """The engine's weights, those of the layers' matrices quantised and dequantised again."""

    def each(name, weight):
        layer, _, part = name.removesuffix(".weight").rpartition(".")
        return quantize(weight, kind).dequantized() if layer and part in MATRICES else weight

    return {name: each(name, weight) for name, weight in random_weights(architecture, dtype, seed=0).items()}


@pytest.mark.parametrize(("kind", "error"), [("int8", 0.5 / 127), ("fp8", 2**-4)])
def test_rounding_errs_by_half_a_step(kind, error):
    """Integers have 127 equal steps up to the largest; e4m3 has four significant bits."""
    weight = matrix(40, 64)
    found = quantize(weight, kind)
    assert found.matrix.element_size() == 1
    bound = weight.abs().amax(1, keepdim=True) if kind == "int8" else weight.abs() + 1e-3
    assert ((found.dequantized() - weight).abs() <= 1.01 * error * bound).all()
    assert not torch.equal(found.dequantized(), weight)


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "outputs", "depth"), [(1, 48, 80), (5, 40, 300), (17, 8200, 32)])
@pytest.mark.parametrize("biased", [False, True])
def test_the_kernel_multiplies_by_the_dequantised_matrix(kind, rows, outputs, depth, biased):
    weight, x = quantize(matrix(outputs, depth), kind), matrix(rows, depth) * 2
    bias = matrix(1, outputs)[0] if biased else None
    expected = functional.linear(x.double(), weight.dequantized().double(), bias.double() if biased else None)
    assert torch.allclose(multiply_in_place(x, weight, bias).double(), expected, atol=1e-4)


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_kernel_in_half_precision(kind, dtype):
    weight, x = quantize(matrix(48, 96, dtype), kind), matrix(3, 96, dtype)
    found = multiply_in_place(x, weight, None)
    assert found.dtype == dtype
    expected = x.double() @ (weight.matrix.double() * weight.scale.double()[:, None]).T
    assert torch.allclose(found.double(), expected, rtol=1e-2, atol=1e-1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float16])
@pytest.mark.parametrize("rows", [1, 8, 33])
def test_few_rows_and_many_are_alike(rows, dtype):
    weight, bias, x = matrix(48, 96, dtype), matrix(1, 48, dtype)[0], matrix(rows, 96, dtype)
    found = quantized_linear(weight, bias, "int8")(x)
    held = quantize(weight, "int8")
    expected = functional.linear(
        x.double(), held.matrix.double() * held.scale.double()[:, None], bias.double()
    )
    assert torch.allclose(found.double(), expected, rtol=2e-2, atol=1e-3 if dtype == torch.float32 else 0.1)


def test_logits_are_those_of_the_dequantised_weights(architecture, attention):
    options = {"dtype": "fp32", "num_blocks": 10, "block_size": 4}
    quantized = Engine(architecture, quantization="int8", attention=attention, **options)
    dequantized = Engine(architecture, weights=rounded(architecture, "int8"), **options)
    plain = Engine(architecture, **options)
    batch = [Chunk(PROMPT, 0, np.arange(2)), Chunk([7], 0, np.array([4]))]
    found, expected, other = (engine.logits(batch) for engine in (quantized, dequantized, plain))
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert not torch.allclose(found, other, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_greedy_tokens_equal_the_dense_pass_over_dequantised_weights(architecture, reference):
    engine = Engine(architecture, dtype="fp32", num_blocks=10, block_size=4, quantization="int8")
    sequence, cached = list(PROMPT), 0
    for _ in range(6):
        tokens = engine.iterate([Chunk(sequence[cached:], cached, np.arange(4))])
        cached = len(sequence)
        sequence += tokens
    weights = rounded(architecture, "int8")
    assert sequence[len(PROMPT) :] == reference.reference_greedy(architecture, weights, PROMPT, 6)


@pytest.mark.parametrize("name", ["llama-grouped-tied", "olmoe"])
def test_no_full_matrix_is_kept(make_tiny, name):
    """All matrices of the layers are let go while the engine is built; the embedding stays."""
    model = make_tiny(name)
    weights = random_weights(model, torch.float32)
    matrices = [
        ref(weight)
        for name, weight in weights.items()
        if weight.ndim > 1 and "layers" in name and "router" not in name
    ]
    embedding = ref(weights["embedding"])
    engine = OwnEngine(model, dtype="fp32", num_blocks=4, quantization="int8", weights=weights)
    del weights
    assert all(matrix() is None for matrix in matrices)
    assert embedding() is not None
    assert setting(engine, NoMeter("none"), 0)["quantization"] == "int8"


def test_what_is_not_there_is_refused(llama):
    with pytest.raises(UsageError, match="did you mean 'int8'"):
        Engine(llama, num_blocks=4, quantization="int9")
    with pytest.raises(DeviceError, match=r"compute capability 8\.9"):
        Engine(llama, num_blocks=4, quantization="fp8")


def test_a_campaign_says_so_in_its_place_its_trace_and_its_journal(tmp_path, monkeypatch, llama):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(visits, "warm_up", lambda call: call())
    options = {"model": llama, "quantization": "int8", "threads": 1, "repeats": 1, "meter": NoMeter("none")}
    with pytest.raises(InfeasibleError):
        measured(budget_s=1e-9, **options)
    journal = tmp_path / "traces" / "cpu" / f"{llama.name}-fp32-int8.journal.partial"
    assert json.loads(journal.read_text().splitlines()[0])["quantization"] == "int8"
    path = measured(**options)
    assert path.name == f"{llama.name}-fp32-int8"
    assert read_trace(path).provenance["quantization"] == "int8"
    with pytest.raises(UsageError, match="without quantization"):
        measured(replicas=(1, 2), **options)

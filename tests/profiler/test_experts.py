"""Experts by kernels, in Triton's interpreter, and one by one: against float64, and who goes where."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler import memory
from profiler.engine.batch import Chunk
from profiler.engine.engine import Engine
from profiler.engine.experts import GroupedExperts, Routes, SeparateExperts, check_experts
from profiler.engine.quantized import quantize
from profiler.engine.weights import linear
from profiler.measure.operators import dense_operators
from profiler.memory import affordable_blocks
from simslm.catalog.experts import Routing
from simslm.catalog.models import load_model
from simslm.errors import DeviceError

TRITON = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
BOTH = [
    pytest.param(GroupedExperts, marks=TRITON, id="grouped"),
    pytest.param(SeparateExperts, id="separate"),
]
SIZES = {"hidden_size": 72, "num_heads": 1, "num_kv_heads": 1, "intermediate_size": 88}


def drawn(*shape, dtype=torch.float32, seed=3):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def mixture(make_tiny, experts, per_token, **changes):
    sizes = SIZES | {"num_experts": experts, "num_experts_per_tok": per_token}
    return make_tiny("olmoe", **sizes | changes)


def matrices(a, dtype=torch.float32):
    """Router, gates and up-projections, and down-projections."""
    up = drawn(a.num_experts, 2 * a.intermediate_size, a.hidden_size, seed=5) * a.hidden_size**-0.5
    down = drawn(a.num_experts, a.hidden_size, a.intermediate_size, seed=6) * a.intermediate_size**-0.5
    return drawn(a.num_experts, a.hidden_size, seed=4).to(dtype), up.to(dtype), down.to(dtype)


def routed(a, rows, few=False):
    """Different experts for every row, with shares; with ``few`` the same two experts for nearly all."""
    weights = torch.rand(rows, a.num_experts, generator=torch.Generator().manual_seed(7))
    if few:
        weights[:-1, a.num_experts - a.num_experts_per_tok :] += 1
    found = weights.topk(a.num_experts_per_tok)
    return Routes(found.values, found.indices.int())


def passed(hidden, routes, up, down):
    """Row by row in float64."""
    out = torch.zeros(hidden.shape, dtype=torch.float64)
    up, down, rows = up.double(), down.double(), hidden.double()
    for row in range(len(rows)):
        for share, expert in zip(routes.shares[row].tolist(), routes.chosen[row].tolist(), strict=True):
            gate, inner = (up[expert] @ rows[row]).chunk(2)
            out[row] += share * (down[expert] @ (gate * torch.sigmoid(gate) * inner))
    return out


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    ("experts", "per_token", "rows", "few"),
    [(8, 2, 1, False), (5, 3, 9, False), (64, 8, 33, False), (4, 1, 300, True), (6, 6, 20, False)],
)
def test_equals_float64(make_tiny, kind, experts, per_token, rows, few):
    """Nearly all of 300 rows through one expert are many tiles of it, of several programs."""
    a = mixture(make_tiny, experts, per_token)
    router, up, down = matrices(a)
    hidden, routes = drawn(rows, a.hidden_size), routed(a, rows, few)
    found = kind(a, router, up, down).run(hidden, routes)
    assert torch.allclose(found.double(), passed(hidden, routes, up, down), atol=1e-5)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 4e-2), (torch.float16, 5e-3)])
def test_half_precision(make_tiny, kind, dtype, tolerance):
    a = mixture(make_tiny, 8, 3)
    router, up, down = matrices(a, dtype)
    hidden, routes = drawn(20, a.hidden_size, dtype=dtype), routed(a, 20)
    found = kind(a, router, up, down).run(hidden, routes)
    assert found.dtype == dtype
    assert torch.allclose(found.double(), passed(hidden, routes, up, down), atol=tolerance)


@TRITON
@pytest.mark.parametrize("quantization", ["int8", "fp8"])
def test_kernels_multiply_by_dequantised_matrices(make_tiny, quantization):
    a = mixture(make_tiny, 8, 3)
    router, up, down = matrices(a)
    hidden, routes = drawn(20, a.hidden_size), routed(a, 20)
    found = GroupedExperts(a, router, up, down, quantization).run(hidden, routes)
    rounded = [quantize(stack, quantization).dequantized() for stack in (up, down)]
    assert torch.allclose(found.double(), passed(hidden, routes, *rounded), atol=1e-5)
    assert not torch.allclose(found.double(), passed(hidden, routes, up, down), atol=1e-4)


def test_a_stack_is_quantised_matrix_by_matrix(make_tiny):
    _, up, _ = matrices(mixture(make_tiny, 3, 1))
    stack = quantize(up, "int8")
    for found, scale, matrix in zip(stack.matrix, stack.scale, up, strict=True):
        alone = quantize(matrix, "int8")
        assert torch.equal(found, alone.matrix)
        assert torch.equal(scale, alone.scale)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize(("experts", "per_token"), [(8, 2), (5, 3), (60, 6), (3, 3)])
def test_the_router_takes_the_largest_shares_of_all(make_tiny, kind, normalised, experts, per_token):
    a = mixture(make_tiny, experts, per_token, norm_topk_prob=normalised)
    router, up, down = matrices(a)
    hidden = drawn(40, a.hidden_size)
    found = kind(a, router, up, down).route(hidden)
    for row, shares, chosen in zip(hidden.double(), found.shares, found.chosen.tolist(), strict=True):
        scores = (router.double() @ row).exp()
        best = sorted(range(experts), key=lambda expert, of=scores: -of[expert])[:per_token]
        assert sorted(chosen) == sorted(best)
        total = scores[best].sum() if normalised else scores.sum()
        assert torch.allclose(shares.double(), scores[chosen] / total, rtol=1e-4)


@TRITON
@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=2500), st.integers(7, 9))
def test_assignments_are_grouped_in_their_order(chosen, experts):
    from profiler.engine.expert_kernels import group_by_expert

    order, bounds = (
        torch.full((len(chosen),), -1, dtype=torch.int32),
        torch.zeros(experts, 2, dtype=torch.int32),
    )
    group_by_expert[(experts,)](torch.tensor(chosen, dtype=torch.int32), order, bounds, len(chosen), BLOCK=64)
    assert order.tolist() == sorted(range(len(chosen)), key=lambda index: chosen[index])
    for expert, (first, stop) in enumerate(bounds.tolist()):
        assert {chosen[index] for index in order[first:stop].tolist()} <= {expert}
        assert stop - first == chosen.count(expert)


@pytest.mark.parametrize("kind", BOTH)
def test_experts_that_no_row_passes_have_no_say(make_tiny, kind):
    a = mixture(make_tiny, 8, 2)
    router, up, down = matrices(a)
    routes = routed(a, 3)
    idle = [expert for expert in range(8) if expert not in routes.chosen]
    assert idle
    up[idle] = down[idle] = float("nan")
    assert (
        kind(a, router, up, down, **nothing_packed(kind))
        .run(drawn(3, a.hidden_size), routes)
        .isfinite()
        .all()
    )


def nothing_packed(kind):
    """Packing probes a matrix, which no NaN passes."""
    if kind is GroupedExperts:
        return {}
    return {"layer": lambda matrix, bias: lambda x: torch.nn.functional.linear(x, matrix, bias)}


def test_only_matrices_that_are_passed_are_multiplied(make_tiny):
    """Each once, with the rows that chose it."""
    a = mixture(make_tiny, 8, 2)
    router, up, down = matrices(a)
    ran = []

    def layer(matrix, bias):
        multiply = linear(matrix, bias)
        return lambda x: ran.append(len(x)) or multiply(x)

    experts, routes = SeparateExperts(a, router, up, down, layer), routed(a, 5)
    ran.clear()
    experts.run(drawn(5, a.hidden_size), routes)
    assert sorted(ran) == sorted(2 * routes.chosen.unique(return_counts=True)[1].tolist())


@TRITON
def test_no_host_learns_who_went_where(make_tiny, monkeypatch):
    """What a recording holds for any routing: nothing is read, and no shape depends on it."""
    a = mixture(make_tiny, 8, 2)
    experts = GroupedExperts(a, *matrices(a))

    def read(*_, **__):
        raise AssertionError("a tensor was read on the host")

    for name in ("tolist", "item", "__bool__", "__int__", "__index__", "nonzero", "unique", "bincount"):
        monkeypatch.setattr(torch.Tensor, name, read)
    experts(drawn(5, a.hidden_size))
    with pytest.raises(AssertionError, match="read on the host"):
        SeparateExperts(a, *matrices(a))(drawn(5, a.hidden_size))


def test_a_gpu_without_triton_is_refused():
    with pytest.raises(DeviceError, match="with kernels in Triton only, not with fused attention"):
        check_experts("fused", torch.device("cuda:0"))
    check_experts("paged", torch.device("cuda:0"))
    check_experts("tiled", torch.device("cpu"))


@pytest.mark.parametrize("name", ["olmoe", "qwen3-moe"])
def test_operators_count_experts_that_are_passed(make_tiny, name):
    a = make_tiny(name, num_experts=16, num_experts_per_tok=4)
    engine = Engine(a, dtype="bf16", num_blocks=2)
    for tokens in (1, 2, 64):
        found = {each.op: each for each in dense_operators(engine, tokens)}
        expert = 3 * a.hidden_size * a.intermediate_size
        assert found["mlp"].flops == 2 * tokens * 4 * expert
        activations = tokens * 4 * 2 * (a.hidden_size + 2 * a.intermediate_size)
        experts = Routing(16, 4).share(tokens) * 16
        assert found["mlp"].bytes == pytest.approx(2 * (experts * expert + activations))
        assert found["router"].flops == 2 * tokens * a.hidden_size * 16
        for op in ("router", "mlp"):
            assert found[op].calls == a.num_layers == len(found[op].run())


def test_memory_counts_experts_once(monkeypatch):
    """The weights of Qwen3-30B-A3B fit once into 80 GiB, but not twice."""
    model = load_model("qwen3-30b-a3b")
    monkeypatch.setattr(memory, "memory_bytes", lambda key: 100 * 2**30)
    assert affordable_blocks(model, "cpu", "bf16") > 1000
    assert affordable_blocks(model, "cpu", "bf16", loads_twice=True) == 0
    dense = load_model("llama-2-13b")
    assert (
        affordable_blocks(dense, "cpu", "bf16")
        == affordable_blocks(dense, "cpu", "bf16", loads_twice=True)
        > 0
    )


def test_tokens_of_a_prompt_pass_different_experts(make_tiny):
    """In every layer, however deep; a router that all of them please alike would read a few experts only."""
    a = make_tiny("olmoe", num_layers=12, num_experts=16, hidden_size=64, max_position_embeddings=320)
    engine, routes = Engine(a, dtype="fp32", num_blocks=20), []
    for block in engine.model.blocks:
        block.mlp.route = noted(block.mlp.route, routes)
    engine.logits([Chunk([(37 * i) % 97 for i in range(300)], 0, np.arange(19))])
    assert len(routes) == 12
    for chosen in routes:
        shares = torch.bincount(chosen.flatten(), minlength=16) / chosen.numel()
        assert shares.min() > 0.1 / 16
        assert shares.max() < 3 / 16


def noted(route, routes):
    def noting(hidden):
        found = route(hidden)
        routes.append(found.chosen)
        return found

    return noting

"""Fused steps, by Triton's interpreter, against the same steps by torch; and how few operators a layer has."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from profiler.engine.batch import Chunk
from profiler.engine.cache import PagedCache
from profiler.engine.engine import Engine

pytest.importorskip("triton", reason="Triton is not installed")

from profiler.engine import between_kernels, kernels
from profiler.engine.between import FusedSteps, HeadNorms, TorchSteps, Where
from profiler.engine.transformer import _rotary_table

CPU = torch.device("cpu")
ROWS = 5


def steps(architecture, kind):
    cache = PagedCache(architecture, 8, block_size=4, dtype=torch.float32, device=CPU)
    like = torch.empty(0)
    rotary = _rotary_table(architecture, like) if architecture.positions == "rotary" else None
    return kind(architecture, cache, rotary), cache


def weights_of_heads(a):
    if not a.qk_norm:
        return None
    widths = (a.query_size, a.kv_size) if a.qk_norm_across_heads else (a.head_dim, a.head_dim)
    return HeadNorms(*(1 + 0.1 * torch.randn(width) for width in widths))


def test_heads_are_normed_rotated_and_written_as_by_torch(architecture):
    a, found = architecture, []
    torch.manual_seed(3)
    qkv, norms = torch.randn(ROWS, a.query_size + 2 * a.kv_size), weights_of_heads(a)
    slots, positions = torch.tensor([9, 0, 31, 17, 4]), torch.tensor([3, 0, 95, 40, 1])
    for kind in (TorchSteps, FusedSteps):
        made, cache = steps(a, kind)
        where = Where(slots, positions, made.rotation(positions))
        found.append(
            (made.place(1, qkv.clone(), norms, where), cache.keys[1], cache.values[1], cache.keys[0])
        )
    for expected, mine in zip(*found, strict=True):
        assert torch.allclose(mine, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["opt", "llama", "gemma2"])
def test_additions_and_norms_are_those_of_torch(make_tiny, name):
    a, found = make_tiny(name), []
    torch.manual_seed(4)
    x, residual, weight = torch.randn(ROWS, 32), torch.randn(ROWS, 32), 1 + 0.1 * torch.randn(32)
    bias = torch.randn(32) if a.norm == "layernorm" else None
    for kind in (TorchSteps, FusedSteps):
        norm = steps(a, kind)[0].norm(weight, bias)
        found.append((norm(x), *norm.add(residual.clone(), x)))
    for expected, mine in zip(*found, strict=True):
        assert torch.allclose(mine, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_gates_are_those_of_torch(make_tiny, name):
    rows = 3 * torch.randn(ROWS, 2 * 1500)
    expected, found = (steps(make_tiny(name), kind)[0].gate()(rows) for kind in (TorchSteps, FusedSteps))
    assert torch.allclose(found, expected, atol=2e-5)


class Counted(TorchDispatchMode):
    """Counts what a GPU would run: operators that compute, and kernels of ours."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.names = []
        for module, name in KERNELS:
            monkeypatch.setattr(module, name, Noted(getattr(module, name), self.names, name))

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().removeprefix("aten::").partition(".")[0]
        if not func.is_view and name not in ("empty", "new_empty", "_unsafe_view"):
            self.names.append(name)
        return func(*args, **(kwargs or {}))


class Noted:
    def __init__(self, kernel, names, name):
        self._kernel, self._names, self._name = kernel, names, name

    def __getitem__(self, grid):
        def launch(*args, **options):
            self._names.append(self._name)
            with torch.utils._python_dispatch._disable_current_modes():  # the interpreter's own copies
                return self._kernel[grid](*args, **options)

        return launch


KERNELS = [
    *((between_kernels, name) for name in ("place_heads", "add_and_norm", "activate_and_multiply")),
    *((kernels, name) for name in ("attend_tile", "combine_splits")),
]


@pytest.mark.parametrize(
    ("name", "most"),
    [("opt", 9), ("llama-grouped-tied", 9), ("qwen2", 9), ("qwen3", 9), ("phi", 9), ("gemma2", 11)],
)
def test_a_layer_is_few_operators(make_tiny, monkeypatch, name, most):
    """OPT had 12 and Llama 27: one more layer of a prompt, counted."""
    paged = pytest.importorskip("profiler.engine.paged")
    counts = []
    for layers in (3, 4):
        a = make_tiny(name, num_layers=layers)
        with monkeypatch.context() as patch:
            counted = Counted(patch)
            engine = Engine(a, dtype="fp32", num_blocks=8, block_size=4, attention="paged")
            patch.setattr(paged, "attend_tile", kernels.attend_tile)
            rows = engine.lay_out([Chunk([1] * 20, 0, torch.arange(5).numpy())])
            counted.names.clear()
            with counted:
                engine.model.forward(rows)
        counts.append(len(counted.names))
    assert counts[1] - counts[0] <= most, counted.names

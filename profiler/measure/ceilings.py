"""What the device can do at most, measured: the rate of a large matrix product, and of streaming memory.

The rows go to ``kernels.parquet`` beside the operators, which are judged by them.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from profiler.engine.engine import Engine, torch_dtype
from profiler.engine.weights import linear
from profiler.measure.operators import Operator

_SIDE = {"cpu": 2048, "cuda": 8192}
_STREAM_BYTES = {"cpu": 256 * 2**20, "cuda": 2 * 2**30}
_STREAM_SHARE = 8


def ceiling_operators(engine: Engine) -> Iterator[Operator]:
    """A square matrix product, a copy and a sum, each far larger than the caches."""
    device, kind = engine.device, torch_dtype(engine.dtype)
    side = _SIDE[device.type]
    rows = torch.randn(side, side, dtype=kind, device=device)
    product = linear(torch.randn(side, side, dtype=kind, device=device), None)
    size = 3 * side * side * kind.itemsize
    yield Operator("ceiling_matmul", side, 0, 0, 2.0 * side**3, size, 1, lambda: product(rows))
    room = _STREAM_BYTES[device.type]
    if device.type == "cuda":
        room = min(room, torch.cuda.mem_get_info(device)[0] // _STREAM_SHARE)
    stream = torch.randn(room // 4, device=device)
    target = torch.empty_like(stream)
    moved = stream.numel() * stream.itemsize
    yield Operator("ceiling_copy", 0, 0, 0, 0.0, 2.0 * moved, 1, lambda: target.copy_(stream))
    yield Operator("ceiling_read", 0, 0, 0, 0.0, float(moved), 1, lambda: torch.sum(stream))

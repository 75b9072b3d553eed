"""A trace as a GPU would give it: power, clocks, operators, and replicas beside each other."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from simslm.traces.files import Trace, write_trace

PROVENANCE = {
    "source": "measured",
    "model": "opt-1.3b",
    "dtype": "bf16",
    "device": "h100-80gb",
    "engine": "by hand <1>",
    "memory_bytes": 80 * 2**30,
    "driver": "550",
    "cuda": "12.4",
    "torch": "2.6",
    "clocks": {"sm_mhz": 1980},
    "warmup": 3,
    "repeats": 4,
    "date": "2025-01-01",
    "command": "simslm profile --model opt-1.3b",
    "power_note": "",
}
SHAPE = ("decode_seqs", "decode_ctx_tokens", "prefill_seqs", "prefill_tokens", "prefill_ctx_tokens")
SLOWDOWN = {("mps", 2): 1.3, ("mps", 4): 2.1, ("time-slice", 2): 1.9}
"""Latency of two or more replicas of one iteration over that of one alone, whatever the iteration."""


def latency_s(shape: tuple[int, ...]) -> float:
    seqs, context, _, tokens, cached = shape
    return 1e-3 + 2e-5 * seqs + 2e-8 * context + 8e-6 * tokens + 2e-8 * tokens * cached / 100


CLOCKS: dict[str, list[Any]] = {
    "state": ["idle", *["decode"] * 3, *["prefill"] * 3],
    "sm_clock_mhz": [None, *(1000.0, 1500.0, 1980.0) * 2],
    "cap_w": [None] * 7,
    "power_w": [70.0, 250.0, 360.0, 500.0, 300.0, 450.0, 640.0],
    "relative_speed": [None, 0.7, 0.82, 1.0, 0.55, 0.78, 1.0],
    "repeat": [0] * 7,
}
"""Power and speed of decoding and of prefilling at three clocks."""


def gpu_trace(directory: Path, power: dict[str, list[Any]] | None = None, **changes: Any) -> Trace:
    """Writes it.

    Args:
        directory: where to.
        power: against clocks and caps; None = of decoding only.
        changes: to the provenance.
    """
    decode = [(b, b * c, 0, 0, 0) for b in (1, 4, 16, 64, 256) for c in (32, 256, 1024)]
    prefill = [(0, 0, 1, n, m) for n in (64, 256, 1024) for m in (0, 256)]
    mixed = [(b, b * 32, 1, n, 0) for b in (4, 64) for n in (64, 256)]
    alone = [_row(shape, repeat) for shape in (*decode, *prefill, *mixed) for repeat in range(4)]
    beside = [
        _row((b, b * 256, 0, 0, 0), repeat, sharing, replicas, factor)
        for (sharing, replicas), factor in SLOWDOWN.items()
        for b, repeat in product((4, 64), range(3))
    ]
    heldout = [_row((b, b * 128, 0, 0, 0), repeat, error=1.05) for b in (8, 32) for repeat in range(3)]
    return write_trace(
        directory,
        provenance=PROVENANCE | changes,
        iterations=_columns(alone + beside),
        kernels=_kernels(),
        power=power or _power(),
        heldout=_columns(heldout),
    )


def _row(
    shape: tuple[int, ...],
    repeat: int,
    sharing: str = "none",
    replicas: int = 1,
    factor: float = 1.0,
    error: float = 1.0,
) -> dict[str, Any]:
    seconds = latency_s(shape) * factor * error * (1 + 0.01 * (repeat % 2))
    watts = min(700.0, 250 + 60 * np.log2(1 + shape[0]) + 0.2 * shape[3])
    other = shape if replicas > 1 else (None, None, None, None)
    return {
        **dict(zip(SHAPE, shape, strict=True)),
        "sharing": sharing,
        "replicas": replicas,
        "other_decode_seqs": other[0],
        "other_decode_ctx_tokens": other[1],
        "other_prefill_tokens": other[3],
        "repeat": repeat,
        "latency_s": seconds,
        "host_s": 4e-4,
        "energy_j": seconds * watts,
        "power_w": watts,
        "sm_clock_mhz": 1980.0,
    }


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def _kernels() -> dict[str, list[Any]]:
    """A matrix product at half of what the roofline of the device allows, attention, and a copy."""
    rows = []
    for tokens, repeat in product((1, 64, 1024, 8192), range(2)):
        flops, moved = 2.0 * tokens * 2048**2, 2.0 * (2048**2 + 2 * tokens * 2048)
        floor = max(flops / 989e12, moved / 3.35e12)
        rows.append(("mlp", tokens, tokens, 0, repeat, 2 * floor, flops, moved))
        rows.append(("attention", tokens, tokens, 256 * tokens, repeat, 1e-4, 1e6 * tokens, 1e6 * tokens))
        rows.append(("kv_write", tokens, tokens, 0, repeat, 1e-5, 0.0, 4096.0 * tokens))
    names = ("op", "tokens", "seqs", "ctx_tokens", "repeat", "latency_s", "flops", "bytes")
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def _power() -> dict[str, list[Any]]:
    return {
        "state": ["idle", "decode", "decode", "decode"],
        "sm_clock_mhz": [None, 1980.0, 1500.0, None],
        "cap_w": [None, None, None, 400.0],
        "power_w": [70.0, 500.0, 360.0, 400.0],
        "relative_speed": [None, 1.0, 0.82, 0.9],
        "repeat": [0, 0, 0, 0],
    }

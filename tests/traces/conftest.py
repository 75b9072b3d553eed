"""A small valid trace to write, read and damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from simslm.traces.files import Trace, write_trace


@pytest.fixture
def provenance() -> dict:
    return {
        "source": "measured",
        "model": "opt-125m",
        "dtype": "fp32",
        "device": "cpu",
        "engine": "by hand 1",
        "memory_bytes": 2**34,
        "driver": None,
        "cuda": None,
        "torch": "2.6",
        "clocks": {"sm_mhz": None},
        "warmup": 1,
        "repeats": 3,
        "date": "2025-01-01",
        "command": "by hand",
        "power_note": "no meter",
    }


@pytest.fixture
def columns() -> dict:
    """Three repeats of decode-only, prefill-only and mixed shapes that rise with the work."""
    rows = [(b, b * c, 0, 0, 0) for b in (1, 4) for c in (16, 64)]
    rows += [(0, 0, 1, n, m) for n in (16, 64) for m in (0, 64)]
    rows += [(4, 64, 1, 16, 0)]
    shape = np.repeat(np.array(rows), 3, axis=0)
    names = ("decode_seqs", "decode_ctx_tokens", "prefill_seqs", "prefill_tokens", "prefill_ctx_tokens")
    work = shape[:, 0] + shape[:, 3] + shape[:, 1] / 100 + shape[:, 4] / 100
    return {
        **dict(zip(names, shape.T, strict=True)),
        "replicas": np.ones(len(shape), dtype=int),
        "repeat": np.arange(len(shape)) % 3,
        "latency_s": 0.02 + 1e-3 * work,
        "host_s": np.full(len(shape), 1e-3),
    }


@pytest.fixture
def trace(tmp_path: Path, provenance: dict, columns: dict) -> Trace:
    power = {"state": ["idle"], "power_w": [20.0], "repeat": [0]}
    return write_trace(
        tmp_path / "cpu" / "opt-125m-fp32", provenance=provenance, iterations=columns, power=power
    )

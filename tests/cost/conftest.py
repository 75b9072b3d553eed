"""Traces made from a known cost, so that the interpolation can be judged exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from simslm.catalog.devices import load_device
from simslm.catalog.models import load_model
from simslm.catalog.work import IterationShape, equal_prompts
from simslm.cost.interpolation import MeasuredCost
from simslm.traces.files import Trace, write_trace

MODEL, DEVICE, DTYPE = "opt-125m", "cpu", "fp32"

PROVENANCE = {
    "source": "measured",
    "model": MODEL,
    "dtype": DTYPE,
    "device": DEVICE,
    "engine": "analytic 1",
    "memory_bytes": 2**34,
    "driver": None,
    "cuda": None,
    "torch": "none",
    "clocks": None,
    "warmup": 1,
    "repeats": 3,
    "date": "2025-01-01",
    "command": "by hand",
    "power_note": "",
}


def analytic_s(shape: IterationShape) -> np.ndarray:
    """A cost with everything a device shows: a weight-bound floor, a compute slope, attention, host time."""
    seqs, context, prompts, tokens, _, pairs, *_ = (np.asarray(part, dtype=float) for part in shape)
    linear = np.maximum(4e-3, 2e-4 * (seqs + tokens))
    head = np.maximum(1e-3, 5e-5 * (seqs + prompts))
    return host_s(shape) + linear + head + 4e-7 * context + 2e-8 * pairs


def host_s(shape: IterationShape) -> np.ndarray:
    """Its host time."""
    return 5e-4 + 2e-5 * (np.asarray(shape.decode_seqs) + np.asarray(shape.prefill_seqs))


Row = tuple[int, int, int, int, int]


def full_grid() -> list[Row]:
    """Rows of the five shape columns: decode-only, prefill-only and mixed."""
    batches, contexts, prompts = (1, 2, 4, 8, 16, 32), (16, 64, 256, 1024, 1536), (16, 64, 256, 512, 1024)
    decode = [(b, b * c, 0, 0, 0) for b in batches for c in contexts]
    prefill = [(0, 0, 1, n, m) for n in prompts for m in (0, 256, 1024) if n + m <= 2048]
    several = [(0, 0, k, k * n, 0) for k in (4, 8) for n in (16, 64)]
    mixed = [(b, b * 16, 1, n, 0) for b in (1, 4, 16, 32) for n in (16, 64, 256, 1024)]
    return decode + prefill + several + mixed


@dataclass(frozen=True)
class Synthetic:
    """Builds traces from an analytic cost.

    Attributes:
        directory: where traces go.
        cost: seconds of a shape.
        rows: what is measured.
        repeats: calls of each shape.
        noise: relative standard deviation of a call.
    """

    directory: Path
    cost: Callable[[IterationShape], np.ndarray] = analytic_s
    rows: list[Row] = field(default_factory=full_grid)
    repeats: int = 3
    noise: float = 0.0

    def columns(self, rows: Iterable[Row]) -> dict[str, np.ndarray]:
        shape = np.repeat(np.array(list(rows), dtype=np.int64), self.repeats, axis=0)
        work = equal_prompts(*shape.T)
        jitter = 1 + self.noise * np.random.default_rng(7).standard_normal(len(shape))
        latency = self.cost(work) * np.clip(jitter, 0.5, 1.5)
        names = ("decode_seqs", "decode_ctx_tokens", "prefill_seqs", "prefill_tokens", "prefill_ctx_tokens")
        return {
            **dict(zip(names, shape.T, strict=True)),
            "replicas": np.ones(len(shape), dtype=np.int64),
            "repeat": np.arange(len(shape)) % self.repeats,
            "latency_s": latency,
            "host_s": np.minimum(host_s(work), latency),
            "energy_j": 60.0 * latency,
            "power_w": np.full(len(shape), 60.0),
        }

    def trace(self, **provenance) -> Trace:
        power = {"state": ["idle", "idle"], "power_w": [20.0, 22.0], "repeat": [0, 1]}
        columns = self.columns(self.rows)
        return write_trace(
            self.directory, provenance=PROVENANCE | provenance, iterations=columns, power=power
        )

    def model(self) -> MeasuredCost:
        return MeasuredCost(self.trace(), load_model(MODEL), load_device(DEVICE), DTYPE)


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Synthetic]:
    """``synthetic(cost=…, rows=…, noise=…)`` gives a builder of traces in a fresh directory."""
    return lambda **options: Synthetic(tmp_path_factory.mktemp("trace") / "cpu" / "m", **options)


@pytest.fixture(scope="session")
def exact(synthetic) -> MeasuredCost:
    """Built from noiseless medians of :func:`analytic_s`."""
    return synthetic().model()


@pytest.fixture(scope="session")
def noisy(synthetic) -> MeasuredCost:
    """Built from medians with 10 % noise, so that the monotone projection has work to do."""
    return synthetic(noise=0.1).model()

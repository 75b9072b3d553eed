"""Measured runs of a model whose trace ships, on this page's own terms: what simulation says, off by known factors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from simslm.api import simulate
from simslm.fidelity.recorded import Source, read_sources
from simslm.runs.replay import scenario_of, simulated
from simslm.runs.table import MeasuredRun, make_run
from simslm.traces.files import read_trace

TRACE = Path(__file__).parents[2] / "traces" / "cpu" / "opt-125m-bf16"
BATCHES = (1, 4, 32)

CELLS = {
    "model": "opt-125m",
    "device": "cpu",
    "engine": read_trace(TRACE).provenance["engine"],
    "prompt_tokens": "60",
    "output_tokens": "10",
    "num_requests": "40",
    "arrivals": "all-at-once",
    "batching": "chunked-prefill",
    "max_num_batched_tokens": "512",
    "num_gpu_blocks": "2000",
}
COLUMNS = ("duration_s", "output_tokens_per_s", "total_tokens_per_s", "ttft_mean_s", "itl_mean_s", "kv_peak")


def unmeasured(batch: int, **cells: str) -> MeasuredRun:
    """What was run at a batch limit, without a figure."""
    return make_run(CELLS | {"run": f"batch {batch}", "max_num_seqs": str(batch)} | cells, "runs.csv", Path())


@pytest.fixture(scope="session")
def sources() -> tuple[Source, ...]:
    return read_sources([TRACE])


@pytest.fixture(scope="session")
def exact() -> list[MeasuredRun]:
    """Runs at several batch limits in which exactly what simulation says was measured."""
    runs = []
    for batch in BATCHES:
        run = unmeasured(batch)
        found = simulated(simulate(scenario_of(run, {"trace": str(TRACE)})), run)
        measured = {name: found[name] for name in COLUMNS} | {"preemptions": 0.0, "power_idle_w": 40.0}
        runs.append(replace(run, measured=measured))
    return runs

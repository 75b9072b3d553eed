"""Runs that were never measured: the simulator's own answers for a cost whose terms are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from simslm.calibration.prior import medians
from simslm.calibration.schedule import schedule
from simslm.catalog.devices import load_device
from simslm.catalog.models import load_model
from simslm.cost.physical import PhysicalCost
from simslm.runs.table import MeasuredRun

MODEL, DEVICE, DTYPE = "opt-1.3b", "h100-64gb", "fp16"
TRUE = medians() | {
    "host": 5.5e-4, "host_per_seq": 2.6e-5, "layer": 8e-5, "launch": 2.5e-4, "weight_bandwidth": 0.86,
    "kv_bandwidth": 0.8, "compute": 0.4, "startup": 0.8,
}  # fmt: skip


@pytest.fixture(scope="session")
def truth_cost() -> PhysicalCost:
    return PhysicalCost(TRUE, load_model(MODEL), load_device(DEVICE), DTYPE, engine="known 1")


@pytest.fixture(scope="session")
def runs(truth_cost) -> Callable[..., list[MeasuredRun]]:
    """Makes runs of some batch limits, each faster or slower by a noise common to its metrics."""

    def make(batches: Sequence[int], noise: float, seed: int = 0, **changed) -> list[MeasuredRun]:
        draws = np.random.default_rng(seed)
        found = []
        for batch in batches:
            run = MeasuredRun(
                run=f"batch {batch}", model=MODEL, device=DEVICE, engine="known 1", workload="fixed",
                prompt_tokens=200, output_tokens=100, lengths_file=None, num_requests=300, arrivals="all-at-once",
                max_num_seqs=batch, max_num_batched_tokens=512, batching="chunked-prefill", replicas=1,
                sharing="none", num_gpu_blocks=9000, sm_clock_mhz=1980.0, measured={}, where=f"runs.csv:{batch}",
            )  # fmt: skip
            run = replace(run, **changed)
            each = schedule(run, truth_cost, DTYPE)
            slower = float(np.exp(noise * draws.standard_normal()))
            exact = each.metrics(truth_cost.evaluate(each.shapes).latency_s * slower, TRUE["startup"])
            exact = {name: value for name, value in exact.items() if name != "duration_s"}
            found.append(replace(run, measured={**exact, "preemptions": float(each.preemptions)}))
        return found

    return make

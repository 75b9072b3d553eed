"""Runs that were never measured: the simulator's own answers for a cost whose terms are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from support.observed import observe

from simslm.api import prepare
from simslm.calibration.prior import medians
from simslm.calibration.schedule import slowed
from simslm.catalog.devices import load_device
from simslm.catalog.models import load_model
from simslm.cost.physical import PhysicalCost
from simslm.runs.replay import scenario_of, simulated
from simslm.runs.table import MeasuredRun

MODEL, DEVICE, DTYPE = "opt-1.3b", "h100-64gb", "fp16"
TRUE = medians() | {
    "host": 5.5e-4, "host_per_seq": 2.6e-5, "layer": 8e-5, "launch": 2.5e-4, "weight_bandwidth": 0.86,
    "kv_bandwidth": 0.8, "compute": 0.4, "startup": 0.8,
}  # fmt: skip

MEASURED = ("output_tokens_per_s", "itl_mean_s", "tpot_mean_s", "ttft_mean_s", "preemptions")
"""What is told of a run unless a test wants something else."""

CHANCE = 10_000
"""Seed of the first run: whatever draws a run's arrivals again draws others."""

Runs = Callable[..., list[MeasuredRun]]


@pytest.fixture(scope="session")
def truth_cost() -> PhysicalCost:
    return PhysicalCost(TRUE, load_model(MODEL), load_device(DEVICE), DTYPE, engine="known 1")


def answers(run: MeasuredRun, cost: PhysicalCost, seed: int = 0) -> dict[str, float]:
    """The figures of a run when it is simulated with some cost."""
    prepared = prepare(scenario_of(run, {"roofline": {}}, dtype=DTYPE, seed=seed))
    prepared = replace(prepared, groups=(replace(prepared.groups[0], cost=cost),))
    result = observe(prepared.requests, prepared.deployment(), prepared.priced, slo={})
    return simulated(result, run, cost.terms["startup"])


def unmeasured(**changed) -> MeasuredRun:
    run = MeasuredRun(
        run="run", model=MODEL, device=DEVICE, engine="known 1", workload="fixed", prompt_tokens=200,
        output_tokens=100, lengths_file=None, num_requests=300, arrivals="all-at-once", max_num_seqs=128,
        max_num_batched_tokens=512, batching="chunked-prefill", replicas=1, sharing="none", num_gpu_blocks=9000,
        sm_clock_mhz=1980.0, measured={}, where="runs.csv:2",
    )  # fmt: skip
    return replace(run, **changed)


@pytest.fixture(scope="session")
def served(truth_cost) -> Runs:
    """Makes runs of some arrivals, each faster or slower by a noise common to its metrics."""

    def make(
        arrivals: Sequence[str],
        noise: float = 0.0,
        told: Sequence[str] = MEASURED,
        seed: int = 0,
        **changed,
    ) -> list[MeasuredRun]:
        draws = np.random.default_rng(seed)
        found = []
        for number, text in enumerate(arrivals):
            run = unmeasured(run=f"{text} {number}", arrivals=text, where=f"runs.csv:{number + 2}", **changed)
            cost = slowed(truth_cost, float(np.exp(noise * draws.standard_normal())))
            figures = answers(run, cost, CHANCE + 100 * seed + number)
            found.append(replace(run, measured={name: figures[name] for name in told if name in figures}))
        return found

    return make


@pytest.fixture(scope="session")
def runs(served) -> Runs:
    """Makes bursts of some batch limits."""

    def make(batches: Sequence[int], noise: float, seed: int = 0, **changed) -> list[MeasuredRun]:
        arrivals = changed.pop("arrivals", "all-at-once")
        return [
            replace(
                served((arrivals,), noise, seed=seed + number, max_num_seqs=batch, **changed)[0],
                run=f"batch {batch}",
            )
            for number, batch in enumerate(batches)
        ]

    return make

"""How many measured figures lie inside the intervals that a simulation of their run states."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from simslm.api import simulate
from simslm.runs.replay import scenario_of
from simslm.runs.table import MeasuredRun

FIGURES = {
    "output_tokens_per_s": "throughput.output_tokens_per_s",
    "itl_mean_s": "itl_s.mean",
    "tpot_mean_s": "tpot_s.mean",
}
"""Columns of the table, and where the summary has them."""

Inside = dict[str, bool]


def covered(
    runs: Sequence[MeasuredRun], trace: Path, dtype: str, startup_s: float, jobs: int
) -> list[Inside]:
    """For each run and figure, whether the interval holds what was measured."""
    one = partial(_covered, trace=str(trace), dtype=dtype, startup_s=startup_s)
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        return list(pool.map(one, runs))


def _covered(run: MeasuredRun, *, trace: str, dtype: str, startup_s: float) -> Inside:
    summary = simulate(scenario_of(run, {"trace": trace}, dtype=dtype)).summary
    seconds = summary["makespan_s"]
    longer = {"output_tokens_per_s": seconds / (seconds + startup_s)}
    found = {}
    for column, path in FIGURES.items():
        low, high = (longer.get(column, 1.0) * end for end in summary["intervals"]["figures"][path])
        found[column] = low <= run.measured[column] <= high
    return found

"""A finished run: tables of requests and iterations, a summary, and what is needed to run it again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from simslm.cost.model import CostModel
from simslm.metrics import summary as figures
from simslm.metrics.classes import Classes, class_figures, fairness_figures, split_slo
from simslm.metrics.intervals import unknown
from simslm.metrics.iterations import IterationTable
from simslm.metrics.ledger import Ledger, Priced
from simslm.metrics.programs import ProgramColumns, program_figures
from simslm.metrics.quantiles import Distribution
from simslm.sim.log import FINISHED, SimulationLog
from simslm.sim.window import Window
from simslm.sim.world import Deployment, OnStart, Progress, Requests, run
from simslm.traces.schema import SOURCES

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Result:
    """What a simulation answers.

    Attributes:
        request_columns: arrays over arrived requests, in order of their numbers; NaN where nothing happened.
        summary: the contents of ``summary.json``.
        log: what the simulation left.
        token_gaps: between consecutive output tokens of the same request, all requests pooled, in seconds.
        windows: the iterations of each replica, priced; empty when they were written while the run went on.
        manifest: the contents of ``manifest.json``.
    """

    request_columns: dict[str, np.ndarray]
    summary: dict[str, Any]
    log: SimulationLog
    token_gaps: Distribution
    windows: list[tuple[int, Window, IterationTable]]
    manifest: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def requests(self) -> pd.DataFrame:
        """``requests.parquet`` as a frame: one row per arrived request."""
        from simslm.metrics.files import requests_arrow

        return requests_arrow(self.request_columns).to_pandas()

    @cached_property
    def iterations(self) -> pd.DataFrame:
        """``iterations.parquet`` as a frame: one row per iteration, replica by replica."""
        import pyarrow as pa

        from simslm.metrics.files import iterations_arrow

        return pa.concat_tables(
            [iterations_arrow(index, table) for index, _, table in self.windows]
        ).to_pandas()

    @property
    def tables(self) -> list[IterationTable]:
        """The iterations of each replica, in the order of the replicas."""
        return [table for _, _, table in self.windows]


Sink = Callable[[int, Window, IterationTable], None]
"""Takes a replica's number, a window of its log, and the window's iterations with their cost."""


def observe(
    name: str,
    requests: Requests,
    deployment: Deployment,
    replicas: list[Priced],
    *,
    slo: dict[str, float | None],
    classes: Classes | None = None,
    jump: bool = True,
    progress: Progress | None = None,
    sink: Sink | None = None,
    on_start: OnStart | None = None,
    unused_devices: int = 0,
) -> Result:
    """Simulates a workload and keeps the books.

    Args:
        name: of the scenario.
        requests: the workload.
        deployment: what serves it.
        replicas: how each replica is priced.
        slo: bounds by metric name, None where unbounded.
        classes: of the requests, with bounds of their own in place of those; None where there are none.
        jump, progress, on_start: see :func:`simslm.sim.world.run`.
        sink: takes the iterations as the run goes on, so that memory does not grow with them; None keeps them
            in the result.
        unused_devices: devices that idle all the time.
    """
    windows: list[tuple[int, Window, IterationTable]] = []
    keep = sink or (lambda index, window, table: windows.append((index, window, table)))
    ledger = Ledger(replicas, len(requests.prompt_tokens), keep)
    on_window = ledger.take if sink else None
    log = run(requests, deployment, jump=jump, progress=progress, on_window=on_window, on_start=on_start)
    for index, window in enumerate(log.windows):
        ledger.take(index, window)
    columns = _request_columns(log, requests, ledger)
    gaps = ledger.token_gaps()
    summary = _summary(name, columns, ledger, gaps, slo, unused_devices)
    _divide(columns, summary, classes, _programs(requests))
    return Result(columns, summary, log, gaps, windows)


def _programs(requests: Requests) -> ProgramColumns | None:
    """The programs that somebody described."""
    found = requests.programs
    if found is None or not found.described:
        return None
    return ProgramColumns(found.program_of, found.stage, found.parents, found.parent_ends)


def _divide(
    columns: dict[str, np.ndarray],
    summary: dict[str, Any],
    classes: Classes | None,
    programs: ProgramColumns | None,
) -> None:
    """Adds what there is to say by class and by program."""
    arrived = columns["request_id"]
    if programs is not None:
        summary["programs"] = program_figures(columns, programs)
        columns |= programs.columns(arrived)
    if classes is not None:
        seconds = summary["makespan_s"]
        summary["slo"] = split_slo(columns, classes, seconds)
        summary["classes"] = class_figures(columns, classes, programs, seconds)
        summary["fairness"] = fairness_figures(summary["classes"])
        columns["class"] = np.array(classes.names, dtype=object)[classes.of[arrived]]


def _summary(
    name: str,
    columns: dict[str, np.ndarray],
    ledger: Ledger,
    gaps: Distribution,
    slo: dict[str, float | None],
    unused_devices: int,
) -> dict[str, Any]:
    seconds = figures.makespan(columns, ledger.accounts)
    done = columns["status"] == FINISHED
    output = int(columns["output_tokens"][done].sum())
    latencies = figures.request_figures(columns)
    cost = _weakest([priced.cost for priced in ledger.replicas])
    return {
        "schema_version": figures.SCHEMA_VERSION,
        "name": name,
        "requests": figures.counts(columns),
        "makespan_s": seconds,
        "throughput": figures.throughput(columns, seconds),
        "ttft_s": latencies["ttft_s"],
        "tpot_s": latencies["tpot_s"],
        "itl_s": gaps.spread(),
        "e2e_s": latencies["e2e_s"],
        "queue_s": latencies["queue_s"],
        "slo": figures.slo_figures(columns, slo, seconds),
        "energy": figures.energy_figures(
            ledger, (output, output + int(columns["prompt_tokens"][done].sum())), seconds, unused_devices
        ),
        "kv": figures.kv_figures(columns, ledger),
        "utilization": figures.utilization(ledger.accounts, seconds),
        "coverage": figures.coverage(ledger.accounts),
        "intervals": unknown("the run was not repeated"),
        "cost": {"source": cost.source, "engine": cost.engine},
    }


def _weakest(costs: list[CostModel]) -> CostModel:
    """The cost model furthest from a measurement: what the whole answer can be called."""
    return max(costs, key=lambda cost: SOURCES.index(cost.source))


def _request_columns(log: SimulationLog, requests: Requests, ledger: Ledger) -> dict[str, np.ndarray]:
    """The columns of ``requests.parquet``, for the requests that arrived."""
    columns = log.requests.columns()
    count = len(columns["status"])
    columns |= {
        "request_id": np.arange(count),
        "arrival_s": log.arrival_s,
        "prompt_tokens": requests.prompt_tokens,
        "output_tokens": requests.output_tokens,
        "energy_j": ledger.request_j if ledger.energy_known else np.full(count, np.nan),
    }
    columns |= latencies(columns)
    arrived = ~np.isnan(log.arrival_s)
    return columns if arrived.all() else {name: column[arrived] for name, column in columns.items()}


def latencies(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What follows from the times of requests; NaN for those that never got that far."""
    arrival_s = columns["arrival_s"]
    return {
        "ttft_s": columns["first_token_s"] - arrival_s,
        "e2e_s": columns["finish_s"] - arrival_s,
        "queue_s": columns["first_scheduled_s"] - arrival_s,
        "tpot_s": _time_per_output_token(columns),
    }


def _time_per_output_token(columns: dict[str, np.ndarray]) -> np.ndarray:
    """NaN for requests with one output token."""
    decoded = columns["output_tokens"] - 1
    time = columns["finish_s"] - columns["first_token_s"]
    return np.divide(time, decoded, out=np.full(len(time), np.nan), where=decoded > 0)

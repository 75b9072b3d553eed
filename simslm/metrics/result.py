"""A finished run: tables of requests and iterations, a summary, and what is needed to run it again."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from simslm.cost.model import CostModel
from simslm.metrics import summary as figures
from simslm.metrics.iterations import IterationTable, iteration_table
from simslm.metrics.quantiles import spread
from simslm.metrics.tokens import request_energy, token_gaps
from simslm.sim.log import FINISHED, SimulationLog
from simslm.sim.world import Requests

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Result:
    """What a simulation answers.

    Attributes:
        request_columns: arrays over arrived requests, in order of arrival; NaN where nothing happened.
        tables: the iterations of each replica.
        summary: the contents of ``summary.json``.
        manifest: the contents of ``manifest.json``.
        log: the raw log.
    """

    request_columns: dict[str, np.ndarray]
    tables: list[IterationTable]
    summary: dict[str, Any]
    log: SimulationLog
    manifest: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def requests(self) -> pd.DataFrame:
        """``requests.parquet`` as a frame: one row per arrived request."""
        from simslm.metrics.files import requests_arrow

        return requests_arrow(self).to_pandas()

    @cached_property
    def iterations(self) -> pd.DataFrame:
        """``iterations.parquet`` as a frame: one row per iteration, replica by replica."""
        from simslm.metrics.files import iterations_arrow

        return iterations_arrow(self).to_pandas()


@dataclass(frozen=True, slots=True)
class Priced:
    """What is known of a replica beside its log.

    Attributes:
        cost: prices its iterations in joules and host time.
        sharers: replicas on its device.
        num_gpu_blocks: its KV blocks.
    """

    cost: CostModel
    sharers: int
    num_gpu_blocks: int


def summarize(
    name: str, log: SimulationLog, requests: Requests, replicas: list[Priced], *, slo: dict[str, float | None]
) -> Result:
    """Turns a log into tables and figures.

    Args:
        name: of the scenario.
        log: what the simulation left.
        requests: the workload it ran.
        replicas: one for each log of a replica.
        slo: bounds by metric name, None where unbounded.
    """
    tables = [
        iteration_table(entry, priced.cost, priced.sharers)
        for entry, priced in zip(log.replicas, replicas, strict=True)
    ]
    columns = _request_columns(log, requests, tables)
    seconds = figures.makespan(columns, tables)
    done = columns["status"] == FINISHED
    output = int(columns["output_tokens"][done].sum())
    tokens = (output, output + int(columns["prompt_tokens"][done].sum()))
    gaps = [token_gaps(replica, table) for replica, table in zip(log.replicas, tables, strict=True)]
    latencies = figures.request_figures(columns)
    itl = spread(np.concatenate([gap[0] for gap in gaps]), np.concatenate([gap[1] for gap in gaps]))
    cost = replicas[0].cost
    summary = {
        "schema_version": figures.SCHEMA_VERSION,
        "name": name,
        "requests": figures.counts(columns),
        "makespan_s": seconds,
        "throughput": figures.throughput(columns, seconds),
        "ttft_s": latencies["ttft_s"],
        "tpot_s": latencies["tpot_s"],
        "itl_s": itl,
        "e2e_s": latencies["e2e_s"],
        "queue_s": latencies["queue_s"],
        "slo": figures.slo_figures(columns, slo, seconds),
        "energy": figures.energy_figures(tables, tokens, seconds, cost.power_note),
        "kv": _kv_figures(columns, tables, replicas),
        "utilization": figures.utilization(tables, seconds),
        "coverage": figures.coverage(tables),
        "cost": {"source": cost.source, "engine": cost.engine},
    }
    return Result(columns, tables, summary, log)


def _kv_figures(
    requests: dict[str, np.ndarray], tables: list[IterationTable], replicas: list[Priced]
) -> dict[str, Any]:
    """Blocks per replica (of the first group), the fullest moment of any replica, and preemptions."""
    fullest = (
        float(table.columns["kv_blocks_used"].max()) / priced.num_gpu_blocks
        for table, priced in zip(tables, replicas, strict=True)
        if len(table)
    )
    served = requests["status"] == FINISHED
    prompts = int(requests["prompt_tokens"][served].sum())
    return {
        "num_gpu_blocks": replicas[0].num_gpu_blocks,
        "peak_utilization": max(fullest, default=0.0),
        "preemptions": int(requests["preemptions"].sum()),
        "cached_prompt_share": figures.rate(int(requests["cached_prompt_tokens"][served].sum()), prompts),
    }


def _request_columns(
    log: SimulationLog, requests: Requests, tables: list[IterationTable]
) -> dict[str, np.ndarray]:
    """The columns of ``requests.parquet``, for the requests that arrived."""
    columns = log.requests.columns()
    count = len(columns["status"])
    columns |= {
        "request_id": np.arange(count),
        "arrival_s": log.arrival_s,
        "prompt_tokens": requests.prompt_tokens,
        "output_tokens": requests.output_tokens,
        "ttft_s": columns["first_token_s"] - log.arrival_s,
        "e2e_s": columns["finish_s"] - log.arrival_s,
        "queue_s": columns["first_scheduled_s"] - log.arrival_s,
    }
    columns["tpot_s"] = _time_per_output_token(columns)
    if all(table.energy_j is not None for table in tables):
        each = (
            request_energy(replica, table, count) for replica, table in zip(log.replicas, tables, strict=True)
        )
        columns["energy_j"] = sum(each, np.zeros(count))
    else:
        columns["energy_j"] = np.full(count, np.nan)
    arrived = ~np.isnan(log.arrival_s)
    return {name: column[arrived] for name, column in columns.items()}


def _time_per_output_token(columns: dict[str, np.ndarray]) -> np.ndarray:
    """NaN for requests with one output token."""
    decoded = columns["output_tokens"] - 1
    time = columns["finish_s"] - columns["first_token_s"]
    return np.divide(time, decoded, out=np.full(len(time), np.nan), where=decoded > 0)

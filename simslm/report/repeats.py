"""Loads that were served several times: the error of their mean beside the noise of the repeats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simslm.report.wording import count
from simslm.units import number, seconds

SHOWN = (
    "requests_per_s",
    "output_tokens_per_s",
    *(f"{latency}_{statistic}_s" for latency in ("ttft", "tpot", "itl", "e2e") for statistic in ("mean", "p50", "p99")),
    "preemptions",
    "kv_peak",
    "power_mean_w",
)  # fmt: skip
"""Metrics in the table; the file has all."""

PER_SECOND = "_per_s"
WORSE_THAN_NOISE = 3.0
"""How many times the noise an error must be to stand out."""


@dataclass(frozen=True, slots=True)
class RepeatRow:
    """One metric of a load; ``beyond`` says that its error is more than the noise explains."""

    column: str
    measured: str
    simulated: str
    error: str
    noise: str
    beyond: bool


@dataclass(frozen=True, slots=True)
class RepeatTable:
    """One load."""

    name: str
    facts: list[str]
    rows: list[RepeatRow]


def repeat_tables(values: Mapping[str, Any]) -> list[RepeatTable]:
    """The loads of a ``fidelity.json``; none where nothing was repeated."""
    return [
        RepeatTable(
            load["name"],
            _facts(load),
            [_row(column, load["metrics"][column]) for column in SHOWN if column in load["metrics"]],
        )
        for load in values.get("repeats", [])
    ]


def figure(column: str, value: float) -> str:
    """A figure of ``RUNS.csv`` for a screen."""
    in_seconds = column.endswith("_s") and not column.endswith(PER_SECOND)
    return seconds(value) if in_seconds else number(value)


def _facts(load: Mapping[str, Any]) -> list[str]:
    running = load["mean_running_seqs"]
    times, cost, replicas = len(load["runs"]), load["iterations"], load.get("replicas", 1)
    return [
        f"{count(load['requests'])} requests",
        *([f"{number(load['rate_rps'])} requests/s"] if load["rate_rps"] is not None else []),
        f"served {'once' if times == 1 else f'{times} times'}",
        f"{number(running['measured'])} sequences ran on average, {number(running['simulated'])} simulated",
        f"{number(100 * load['in_domain_time'])} % of simulated time inside the measured domain",
        *([f"the iterations that ran cost {100 * cost['total_error']:+.2f} % by the trace"] if cost else []),
        *([f"{replicas} replicas, their interference {load['interference']}"] if replicas > 1 else []),
    ]


def _row(column: str, metric: Mapping[str, float | None]) -> RepeatRow:
    error, noise = metric["error"], metric["noise"]
    assert metric["measured"] is not None
    assert metric["simulated"] is not None
    return RepeatRow(
        column,
        figure(column, metric["measured"]),
        figure(column, metric["simulated"]),
        "–" if error is None else f"{100 * error:+.2f} %",
        "–" if noise is None else f"{number(100 * noise)} %",
        error is not None and noise is not None and abs(error) > WORSE_THAN_NOISE * noise,
    )

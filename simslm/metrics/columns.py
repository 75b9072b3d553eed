"""The columns of ``requests.parquet``, from what a simulation notes of its requests."""

from __future__ import annotations

import numpy as np

from simslm.metrics.ledger import Ledger
from simslm.sim.log import Settled


def request_columns(settled: Settled, ledger: Ledger) -> dict[str, np.ndarray]:
    """The columns of those of some consecutive requests that arrived, each of shape ``(arrived,)``.

    Args:
        settled: what became of the requests.
        ledger: that has booked their iterations; it forgets their energy.
    """
    columns = dict(settled.columns)
    count = len(columns["status"])
    energy_j = ledger.release(settled.first, count)
    columns |= {
        "request_id": settled.first + np.arange(count),
        "energy_j": energy_j if ledger.energy_known else np.full(count, np.nan),
    }
    columns |= latencies(columns)
    arrived = ~np.isnan(columns["arrival_s"])
    return columns if arrived.all() else {name: column[arrived] for name, column in columns.items()}


def latencies(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What follows from the times of requests, in seconds; NaN for those that never got that far."""
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

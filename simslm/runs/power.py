"""A device as its own meter sees it: samples of one second, like those of ``nvidia-smi dmon``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from simslm.metrics.iterations import IterationTable

SAMPLE_S = 1.0
ACTIVE = 0.2
"""Share of a sample with the SM busy from which the sample counts as active."""


def device_samples(replicas: Sequence[IterationTable], summary: Mapping[str, Any]) -> dict[str, float | None]:
    """Median power and busy time over the active samples of one device.

    A sample is busy in the device time of its iterations, which is their duration less host time, spread evenly over
    each. Replicas on one device are taken to be busy independently of one another. The last second of a run is no
    sample where it is not whole, unless there is no other.

    Args:
        replicas: the iterations of each replica on the device.
        summary: of the run.

    Returns:
        ``power_active_p50_w``, None where power is not known, and ``sm_busy_pct``; both None when no sample is
        active.
    """
    edges = _edges(float(summary["makespan_s"]))
    idle, power, known = np.ones(len(edges) - 1), np.zeros(len(edges) - 1), True
    rest_w = _rest_power(summary, len(replicas))
    for table in replicas:
        columns = table.columns
        duration = columns["duration_s"]
        # The SM is idle when all replicas are: a product, since they are busy independently of one another.
        idle *= 1 - _means(columns, duration - columns["host_s"], edges)
        known &= table.energy_j is not None
        if table.energy_j is not None:
            resting = 1 - _means(columns, duration, edges)
            power += _means(columns, table.energy_j, edges) + rest_w * resting
    active = 1 - idle >= ACTIVE
    if not active.any():
        return {"power_active_p50_w": None, "sm_busy_pct": None}
    return {
        "power_active_p50_w": float(np.median(power[active])) if known else None,
        "sm_busy_pct": 100 * float(np.median(1 - idle[active])),
    }


def _edges(makespan_s: float) -> np.ndarray:
    whole = int(makespan_s // SAMPLE_S)
    # A part of a second at the end would be a sample of its own weight, which a meter does not have.
    return np.arange(whole + 1) * SAMPLE_S if whole else np.array([0.0, makespan_s])


def _means(columns: Mapping[str, np.ndarray], amounts: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """What falls into each sample per second of it, of amounts spread evenly over their iterations."""
    if not len(amounts):
        return np.zeros(len(edges) - 1)
    times = np.column_stack([columns["start_s"], columns["end_s"]]).ravel()
    after = np.cumsum(amounts)
    sums = np.column_stack([after - amounts, after]).ravel()
    return np.diff(np.interp(edges, times, sums)) / np.diff(edges)


def _rest_power(summary: Mapping[str, Any], replicas: int) -> float:
    """Power that a replica's share of the device draws while the replica does not run an iteration."""
    idle_j = summary["energy"]["idle_j"]
    rest_s = summary["makespan_s"] * replicas * (1 - summary["utilization"]["busy"])
    return idle_j / rest_s if idle_j and rest_s > 0 else 0.0

"""Figures that follow from a table of runs; measured and simulated ones are computed alike.

A *curve* is what one setting gave at several batch limits: metrics under the columns of ``RUNS.csv``, by
``max_num_seqs``. The definitions are those of Recasens et al. 2025 (arXiv:2503.08311, the batching
configuration advisor).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from simslm.runs.table import MeasuredRun

Metrics = Mapping[str, float]
Curve = Mapping[int, Metrics]

REFERENCE_BATCH = 32
"""The batch whose latency an advice is relative to."""

NEAR_BEST = 0.9
"""Share of the best throughput that counts as having it."""

MEMORY_EPSILON = 0.1
"""Least efficiency of the batch that the freed memory is computed for."""


def setting(run: MeasuredRun) -> tuple[Hashable, ...]:
    """What was run but for the batch limit.

    The means of lengths that come from a file vary from run to run, and the file tells workloads apart.
    """
    tokens = () if run.lengths_file else (run.prompt_tokens, run.output_tokens)
    what = (run.model, run.device, run.engine, run.workload, run.lengths_file, *tokens, run.num_requests)
    return (*what, run.arrivals, run.batching, run.max_num_batched_tokens, run.replicas, run.sharing)


def curves(
    runs: Sequence[MeasuredRun], metrics: Callable[[MeasuredRun], Metrics] = lambda run: run.measured
) -> dict[tuple[Hashable, ...], dict[int, dict[str, float]]]:
    """The curve of each setting; runs of equal setting and batch limit are averaged.

    Args:
        runs: of any settings.
        metrics: a run's figures: those measured, or those simulated.
    """
    together: dict[Any, dict[int, list[Metrics]]] = {}
    for run in runs:
        together.setdefault(setting(run), {}).setdefault(run.max_num_seqs, []).append(metrics(run))
    return {key: {batch: _mean(curve[batch]) for batch in sorted(curve)} for key, curve in together.items()}


def throughput(curve: Curve) -> dict[int, float]:
    """T(B): total tokens per second at each batch limit B."""
    return _values(curve, "total_tokens_per_s")


def knee(curve: Curve) -> int | None:
    """The smallest batch with 0.9 of the best throughput; None without any."""
    found = throughput(curve)
    enough = NEAR_BEST * max(found.values(), default=0.0)
    return min((batch for batch, rate in found.items() if rate >= enough), default=None)


def best_batch(
    curve: Curve, epsilon: float, latency_factor: float, latency: str = "itl_mean_s"
) -> int | None:
    """B_opt: the largest batch that still pays off and is still fast enough.

    Pays off: ``T(B) / (B T(1)) > epsilon``. Fast enough: its mean latency is at most ``latency_factor`` times
    that at batch 32.

    Returns:
        None when no batch does both, or batch 1 or 32 was not run.
    """
    rates, times = throughput(curve), _values(curve, latency)
    if 1 not in rates or REFERENCE_BATCH not in times:
        return None
    allowed = latency_factor * times[REFERENCE_BATCH]
    good = (
        batch
        for batch, rate in rates.items()
        if rate / (batch * rates[1]) > epsilon and batch in times and times[batch] <= allowed
    )
    return max(good, default=None)


def memory_freed(curve: Curve, latency_factor: float, kv_bytes: float, device_bytes: float) -> float | None:
    """Share of the device's memory that the KV cache does not need at B_opt.

    ``(1 - KV peak at B_opt) * kv_bytes / device_bytes``, with B_opt by mean TPOT and epsilon 0.1.

    Args:
        curve: of one setting.
        latency_factor: see :func:`best_batch`.
        kv_bytes: of the KV cache: blocks x block size x bytes per token.
        device_bytes: the device's memory.
    """
    batch = best_batch(curve, MEMORY_EPSILON, latency_factor, "tpot_mean_s")
    if batch is None or "kv_peak" not in curve[batch]:
        return None
    return (1 - curve[batch]["kv_peak"]) * kv_bytes / device_bytes


def joules_per_output_token(metrics: Metrics) -> float | None:
    """Active power over output throughput, J; None where either is unknown."""
    power, rate = metrics.get("power_active_p50_w"), metrics.get("output_tokens_per_s")
    return power / rate if power is not None and rate else None


def _values(curve: Curve, column: str) -> dict[int, float]:
    return {batch: metrics[column] for batch, metrics in curve.items() if column in metrics}


def _mean(rows: Iterable[Metrics]) -> dict[str, float]:
    """The mean of each figure over the rows that have it."""
    figures: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            figures.setdefault(name, []).append(value)
    return {name: float(np.mean(values)) for name, values in figures.items()}

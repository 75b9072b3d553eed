"""Exact percentiles, of plain and of weighted values."""

from __future__ import annotations

import numpy as np

LEVELS = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


def spread(values: np.ndarray, weights: np.ndarray | None = None) -> dict[str, float | None]:
    """Mean, percentiles and maximum; all None when there is nothing.

    Args:
        values: shape ``(n,)``.
        weights: how often each value counts, non-negative whole numbers of shape ``(n,)``; None = once each.

    Returns:
        ``{mean, p50, p90, p95, p99, max}``; percentiles interpolate linearly between order statistics, as
        ``numpy.percentile`` does on the values written out as often as they count.
    """
    if weights is not None:
        values, weights = values[weights > 0], weights[weights > 0]
    if not len(values):
        return dict.fromkeys(("mean", *LEVELS, "max"))
    order = np.argsort(values, kind="stable")
    values = values[order]
    counts = np.ones(len(values)) if weights is None else weights[order]
    mean = float(np.dot(values, counts) / counts.sum())
    result: dict[str, float | None] = {"mean": min(max(mean, float(values[0])), float(values[-1]))}
    last = np.cumsum(counts) - 1
    for name, level in LEVELS.items():
        result[name] = _quantile(values, last, level)
    result["max"] = float(values[-1])
    return result


def _quantile(values: np.ndarray, last: np.ndarray, level: float) -> float:
    """The quantile of sorted values, where ``last`` is the index of each value's last copy."""
    position = level * last[-1]
    below = np.floor(position)
    low, high = values[np.searchsorted(last, [below, min(below + 1, last[-1])])]
    return float(low + (high - low) * (position - below))

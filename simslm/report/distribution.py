"""Empirical distributions thinned to what a screen can show, every kept point exact."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAX_POINTS = 500


@dataclass(frozen=True, slots=True)
class Cdf:
    """Points of an empirical cumulative distribution, both of shape ``(n,)``, ``n`` <= 500 (0 when empty).

    Attributes:
        metric: the key of what is distributed, e.g. ``ttft_s``.
        values: seconds, ascending; each one is an observed value.
        shares: the share of observations <= the value, in (0, 1]; the last is 1.
        limit_s: the SLO bound, or None.
        met: share of observations within the bound, computed from all of them, or None.
    """

    metric: str
    values: np.ndarray
    shares: np.ndarray
    limit_s: float | None = None
    met: float | None = None


def cdf(metric: str, observed: np.ndarray, limit_s: float | None = None, max_points: int = MAX_POINTS) -> Cdf:
    """The distribution of the finite values of ``observed`` (seconds, any order), thinned to ``max_points``.

    Four fifths of the kept points are spread evenly over the shares and the rest geometrically towards the
    largest value, so that the tail of a million requests keeps its shape.
    """
    values = np.sort(observed[np.isfinite(observed)])
    met = None if limit_s is None or not len(values) else float(np.mean(values <= limit_s))
    rank = kept_ranks(len(values), max_points)
    return Cdf(metric, values[rank], (rank + 1) / max(len(values), 1), limit_s, met)


def kept_ranks(count: int, max_points: int = MAX_POINTS) -> np.ndarray:
    """Ascending ranks in ``[0, count)`` to keep, the first and the last among them; all when they are few."""
    if count <= max_points:
        return np.arange(count)
    tail = max_points // 5
    even = np.linspace(0, count - 1, max_points - tail)
    last = count - np.geomspace(count / 20, 1, tail)
    return np.unique(np.concatenate([even, last]).round().astype(np.int64))

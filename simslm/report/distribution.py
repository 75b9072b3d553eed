"""Empirical distributions thinned to what a screen can show, every kept point exact."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simslm.metrics.quantiles import MAX_POINTS, distribution


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


def cdf(metric: str, observed: np.ndarray, limit_s: float | None = None, most: int = MAX_POINTS) -> Cdf:
    """The distribution of the finite values of ``observed`` (seconds, any order) at up to ``most`` points."""
    known = observed[np.isfinite(observed)]
    met = None if limit_s is None or not len(known) else float(np.mean(known <= limit_s))
    values, shares = distribution(known).thinned(most)
    return Cdf(metric, values, shares, limit_s, met)

"""Rates that follow a curve: points of a process of rate 1, mapped back through the integral of the rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

TimesAt = Callable[[np.ndarray], np.ndarray]
"""From the next points of a process of rate 1 to their times, seconds; neither ever falls."""


def curve(rate_rps: float, shape: Sequence[float], step_s: float) -> TimesAt:
    """The times at which the integral of a rate reaches given points.

    Args:
        rate_rps: its mean.
        shape: the rate in each step, in any unit; over and over.
        step_s: length of a step.
    """
    rates = np.asarray(shape, dtype=float)
    period_s = len(rates) * step_s
    edges_s = np.linspace(0.0, period_s, len(rates) + 1)
    once = rate_rps * period_s
    integral = np.concatenate(([0.0], np.cumsum(rates / rates.sum()))) * once
    integral[-1] = once
    last_s = 0.0

    def times_at(points: np.ndarray) -> np.ndarray:
        nonlocal last_s
        turns, rest = np.divmod(points, once)
        times_s = turns * period_s + np.interp(rest, integral, edges_s)
        # rounding may put the end of a turn a bit after the beginning of the next
        times_s = np.maximum.accumulate(np.concatenate(([last_s], times_s)))[1:]
        last_s = float(times_s[-1]) if len(times_s) else last_s
        return times_s

    return times_at

"""When generated requests arrive: one function per process, from a random stream to sorted seconds.

Gaps are drawn at unit rate and then scaled, so that the same seed at another rate gives the same pattern,
stretched; a longer run of the same process continues the shorter one bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from simslm.scenario.workload import (
    AllAtOnce,
    ClosedLoopArrivals,
    Deterministic,
    Diurnal,
    GammaGaps,
    Mmpp,
    Poisson,
)

Draw = Callable[[int], np.ndarray]
_BISECTIONS = 60


def arrival_times(
    arrivals: Deterministic | Poisson | GammaGaps | Mmpp | AllAtOnce | ClosedLoopArrivals | Diurnal,
    num_requests: int | None,
    duration_s: float | None,
    rng: np.random.Generator,
) -> np.ndarray:
    """The arrival times of a process that starts at 0, shape ``(n,)``, seconds, never decreasing.

    Random processes have their first arrival after the first gap; a deterministic one has it at 0.

    Args:
        arrivals: the process and its parameters.
        num_requests: at most so many; None for no limit.
        duration_s: only those before this time; None for no limit. One of the two is given.
        rng: the stream they are drawn from.
    """
    if isinstance(arrivals, AllAtOnce | ClosedLoopArrivals):
        return np.zeros(num_requests or 0)
    if isinstance(arrivals, Deterministic):
        return _deterministic(arrivals.rate_rps, num_requests, duration_s)
    if isinstance(arrivals, Mmpp):
        return _mmpp(arrivals, num_requests, duration_s, rng)
    if isinstance(arrivals, Diurnal):
        return _diurnal(arrivals, num_requests, duration_s, rng)
    rate = arrivals.rate_rps
    limit = None if duration_s is None else duration_s * rate
    draw = _gamma_gaps(arrivals.cv, rng) if isinstance(arrivals, GammaGaps) else rng.standard_exponential
    return _before(_points(draw, num_requests, limit) / rate, duration_s)


def _gamma_gaps(cv: float, rng: np.random.Generator) -> Draw:
    """Gamma gaps of mean 1: of shape ``1 / cv^2``, as a gamma's coefficient of variation is ``shape^-0.5``."""
    shape = 1 / cv**2
    return lambda count: rng.standard_gamma(shape, count) / shape


def _points(draw: Draw, count: int | None, limit: float | None) -> np.ndarray:
    """Running sums of gaps of mean 1: at most ``count`` of them, at least all that lie before ``limit``."""
    if count is not None and limit is None:
        return np.cumsum(draw(count))
    found: list[np.ndarray] = []
    last, total = 0.0, 0
    while (limit is None or last < limit) and (count is None or total < count):
        ahead = math.ceil((limit or 0.0) - last) + 64
        size = min(ahead, 1 << 20, *([] if count is None else [count - total]))
        points = np.cumsum(np.concatenate(([last], draw(size))))[1:]
        found.append(points)
        last, total = float(points[-1]), total + size
    return np.concatenate(found) if found else np.zeros(0)


def _before(times: np.ndarray, duration_s: float | None) -> np.ndarray:
    return times if duration_s is None else times[: np.searchsorted(times, duration_s, side="left")]


def _deterministic(rate_rps: float, count: int | None, duration_s: float | None) -> np.ndarray:
    enough = [] if count is None else [count]
    if duration_s is not None:
        enough.append(math.ceil(duration_s * rate_rps) + 1)
    return _before(np.arange(min(enough)) / rate_rps, duration_s)


def _mmpp(process: Mmpp, count: int | None, duration_s: float | None, rng: np.random.Generator) -> np.ndarray:
    """Unit-rate Poisson points, mapped back through the integral of the state's rate over time.

    States follow one another in order, each for an exponential time; the first is drawn from the stationary
    law, so that the mean rate is ``sum(rate * dwell) / sum(dwell)`` from the start.
    """
    rates, dwells = np.asarray(process.rates_rps), np.asarray(process.mean_dwell_s)
    states, times = rng.spawn(2)
    state = int(states.choice(len(rates), p=dwells / dwells.sum()))
    integral, clock = [0.0], [0.0]
    if duration_s is None:
        points = np.cumsum(times.standard_exponential(count))
        target, end = float(points[-1]), math.inf
    else:
        points, target, end = None, math.inf, duration_s
    while integral[-1] <= target and clock[-1] < end:
        stay = states.standard_exponential() * dwells[state]
        clock.append(clock[-1] + stay)
        integral.append(integral[-1] + stay * rates[state])
        state = (state + 1) % len(rates)
    if points is None:
        points = _points(times.standard_exponential, count, integral[-1])
        points = points[points <= integral[-1]]
    return _before(np.interp(points, integral, clock), duration_s)


def _diurnal(
    process: Diurnal, count: int | None, duration_s: float | None, rng: np.random.Generator
) -> np.ndarray:
    """Unit-rate Poisson points, mapped back through the integral of the rate by bisection.

    The integral is ``rate * (t + swing * (1 - cos(2 pi t / period)) / 2)`` with
    ``swing = amplitude * period / pi``, so the time of point ``s`` lies in ``[s / rate - swing, s / rate]``.
    """
    rate, swing = process.rate_rps, process.amplitude * process.period_s / math.pi
    limit = None if duration_s is None else rate * (duration_s + swing)
    points = _points(rng.standard_exponential, count, limit)
    turn = 2 * math.pi / process.period_s
    high = points / rate
    low = np.maximum(high - swing, 0.0)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        early = rate * (middle + swing * (1 - np.cos(turn * middle)) / 2) < points
        low, high = np.where(early, middle, low), np.where(early, high, middle)
    return _before(high, duration_s)

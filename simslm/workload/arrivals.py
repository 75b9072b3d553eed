"""When generated requests arrive: one function per process, from a random stream to sorted seconds.

Gaps are drawn at unit rate and then scaled, so that the same seed at another rate gives the same pattern,
stretched; a longer run of the same process continues the shorter one bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from simslm.errors import ScenarioError
from simslm.scenario.workload import (
    LONGEST_S,
    MOST_REQUESTS,
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
_MOST_AT_ONCE = 1 << 20
_MOST_CHANGES = 5_000_000


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

    Raises:
        ScenarioError: when there would be too many of them, or too many changes of state to follow.
    """
    if isinstance(arrivals, AllAtOnce | ClosedLoopArrivals):
        return np.zeros(num_requests or 0)
    _check_count(arrivals, num_requests, duration_s)
    with np.errstate(over="ignore", invalid="ignore"):
        return _arrival_times(arrivals, num_requests, duration_s, rng)


def _arrival_times(
    arrivals: Deterministic | Poisson | GammaGaps | Mmpp | Diurnal,
    num_requests: int | None,
    duration_s: float | None,
    rng: np.random.Generator,
) -> np.ndarray:
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


def _check_count(
    arrivals: Deterministic | Poisson | GammaGaps | Mmpp | Diurnal,
    num_requests: int | None,
    duration_s: float | None,
) -> None:
    """Refuses what would not end: more requests or changes of state than there is room for."""
    rate_rps = _mean_rate(arrivals)
    until_s = math.inf if duration_s is None else duration_s
    if num_requests is None and until_s * rate_rps > MOST_REQUESTS:
        raise ScenarioError(
            f"workload: about {until_s * rate_rps:.3g} requests arrive within duration_s ({until_s:g}); "
            f"at most {MOST_REQUESTS:,} can be simulated",
            remedy="shorten duration_s or give num_requests",
        )
    if isinstance(arrivals, Mmpp):
        if num_requests is not None:
            until_s = min(until_s, num_requests / rate_rps if rate_rps else math.inf)
        changes = until_s / float(np.mean(arrivals.mean_dwell_s))
        if changes > _MOST_CHANGES:
            raise ScenarioError(
                f"workload.arrivals: the state changes about {changes:.3g} times; at most {_MOST_CHANGES:,} can "
                "be followed",
                remedy=f"raise mean_dwell_s, or use poisson with rate_rps: {rate_rps:.6g}",
            )


def _mean_rate(arrivals: Deterministic | Poisson | GammaGaps | Mmpp | Diurnal) -> float:
    if isinstance(arrivals, Mmpp):
        return float(np.average(arrivals.rates_rps, weights=arrivals.mean_dwell_s))
    return arrivals.rate_rps


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
        ahead = math.ceil(min((limit or 0.0) - last, _MOST_AT_ONCE)) + 64
        size = ahead if count is None else min(ahead, count - total)
        points = np.cumsum(np.concatenate(([last], draw(size))))[1:]
        found.append(points)
        last, total = float(points[-1]), total + size
    return np.concatenate(found) if found else np.zeros(0)


def _before(times: np.ndarray, duration_s: float | None) -> np.ndarray:
    return times if duration_s is None else times[: np.searchsorted(times, duration_s, side="left")]


def _deterministic(rate_rps: float, count: int | None, duration_s: float | None) -> np.ndarray:
    enough = [] if count is None else [count]
    if duration_s is not None:
        enough.append(math.ceil(min(duration_s * rate_rps, 2 * MOST_REQUESTS)) + 1)
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
    points = None if count is None else np.cumsum(times.standard_exponential(count))
    target = math.inf if points is None else float(points[-1])
    end = math.inf if duration_s is None else duration_s
    while integral[-1] <= target and clock[-1] < end:
        stay = states.standard_exponential() * dwells[state]
        clock.append(clock[-1] + stay)
        integral.append(integral[-1] + stay * rates[state])
        state = (state + 1) % len(rates)
    if points is None:
        points = _points(times.standard_exponential, None, integral[-1])
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
    turn = 2 * math.pi / process.period_s
    limit = None
    if duration_s is not None:
        limit = 1 + rate * (duration_s + swing * (1 - math.cos(turn * min(duration_s, LONGEST_S))) / 2)
    points = _points(rng.standard_exponential, count, limit)
    high = points / rate
    low = np.maximum(high - swing, 0.0)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        early = rate * (middle + swing * (1 - np.cos(turn * middle)) / 2) < points
        low, high = np.where(early, middle, low), np.where(early, high, middle)
    return _before(high, duration_s)

"""When generated requests arrive: one function per process, from a random stream to sorted seconds.

Gaps are drawn at unit rate and then scaled, so that the same seed at another rate gives the same pattern,
stretched; a longer run of the same process continues the shorter one bit for bit, and arrivals drawn in pieces
are those drawn at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from simslm.errors import ScenarioError
from simslm.scenario.arrivals import (
    MOST_REQUESTS,
    AllAtOnce,
    ClientArrivals,
    ClosedLoopArrivals,
    Deterministic,
    Diurnal,
    GammaGaps,
    ListedArrivals,
    Mmpp,
    Poisson,
    RateCurve,
    WeibullGaps,
)
from simslm.workload.curves import curve
from simslm.workload.gaps import Draw, gamma_gaps, running_sums, unit_gaps, weibull_gaps
from simslm.workload.population import merged_clients
from simslm.workload.requests import ClosedLoop

PIECE = 1 << 18
"""Requests that are drawn at once."""

_BISECTIONS = 60
_MOST_CHANGES = 5_000_000


class Arrived(NamedTuple):
    """Consecutive arrivals.

    Attributes:
        times_s: never decreasing, shape ``(n,)``, seconds.
        client: index of the entry of ``clients`` that sent each; None for all other processes.
    """

    times_s: np.ndarray
    client: np.ndarray | None = None


Take = Callable[[int], Arrived]
"""The next arrivals of a process: as many as asked for, fewer when the process ends."""


def arrival_times(
    arrivals: Any, num_requests: int | None, duration_s: float | None, rng: np.random.Generator
) -> np.ndarray:
    """The arrival times of a process that starts at 0, shape ``(n,)``, seconds: see :func:`arrival_pieces`."""
    pieces = [piece.times_s for piece in arrival_pieces(arrivals, num_requests, duration_s, rng)]
    return np.concatenate(pieces) if pieces else np.zeros(0)


def clients_of(arrivals: ClosedLoopArrivals, until_s: float | None) -> ClosedLoop:
    """The clients of a closed loop, who send nothing from ``until_s`` on."""
    return ClosedLoop(
        arrivals.concurrency, arrivals.think_time_s, until_s, paced=arrivals.rate_rps is not None
    )


def arrival_pieces(
    arrivals: Any, num_requests: int | None, duration_s: float | None, rng: np.random.Generator
) -> Iterator[Arrived]:
    """The arrivals of a process that starts at 0, at most :data:`PIECE` at once.

    Random processes have their first arrival after the first gap; a deterministic one has it at 0.

    Args:
        arrivals: one of the processes of :mod:`simslm.scenario.arrivals`.
        num_requests: at most so many; None for no limit.
        duration_s: only those before this time; None for no limit. One of the two is given.
        rng: the stream they are drawn from.

    Raises:
        ScenarioError: when there would be too many of them, or too many changes of state to follow.
    """
    if isinstance(arrivals, ClosedLoopArrivals) and arrivals.rate_rps is not None:
        # When requests become due; duration_s ends their sending, which is for the clients to heed.
        due = Poisson(process="poisson", rate_rps=arrivals.rate_rps)
        yield from arrival_pieces(due, num_requests, None, rng)
        return
    if isinstance(arrivals, AllAtOnce | ClosedLoopArrivals):
        for begin in range(0, num_requests or 0, PIECE):
            yield Arrived(np.zeros(min(PIECE, (num_requests or 0) - begin)))
        return
    if isinstance(arrivals, ListedArrivals):
        yield from _listed(np.array(arrivals.times_s), num_requests, duration_s)
        return
    _check_count(arrivals, num_requests, duration_s)
    with np.errstate(over="ignore", invalid="ignore"):
        take = _process(arrivals, duration_s, rng)
    # Only how much is drawn at once: too few are followed by more, and what is beyond the duration is dropped.
    expected = math.inf if duration_s is None else 1.1 * duration_s * _mean_rate(arrivals) + 64
    left = math.inf if num_requests is None else num_requests
    while left > 0:
        count = int(min(PIECE, left, expected))
        with np.errstate(over="ignore", invalid="ignore"):
            found = take(count)
        kept = len(found.times_s)
        if duration_s is not None:
            kept = int(np.searchsorted(found.times_s, duration_s, side="left"))
        if kept:
            yield Arrived(found.times_s[:kept], None if found.client is None else found.client[:kept])
        if kept < count:
            return
        left -= count


def _listed(times_s: np.ndarray, num_requests: int | None, duration_s: float | None) -> Iterator[Arrived]:
    if num_requests is not None and num_requests > len(times_s):
        raise ScenarioError(
            f"workload: {num_requests:,} requests, but only {len(times_s):,} arrival times are listed",
            remedy="list a time for each, or lower num_requests",
        )
    kept = times_s[:num_requests]
    if duration_s is not None:
        kept = kept[kept < duration_s]
    for begin in range(0, len(kept), PIECE):
        yield Arrived(kept[begin : begin + PIECE])


def _process(arrivals: Any, duration_s: float | None, rng: np.random.Generator) -> Take:
    if isinstance(arrivals, ClientArrivals):
        take_merged = merged_clients(arrivals, rng)
        return lambda count: Arrived(*take_merged(count))
    take = _times(arrivals, duration_s, rng)
    return lambda count: Arrived(take(count))


def _times(arrivals: Any, duration_s: float | None, rng: np.random.Generator) -> Draw:
    """What gives the next arrival times of a process without clients."""
    if isinstance(arrivals, Deterministic):
        return _deterministic(arrivals.rate_rps)
    if isinstance(arrivals, Mmpp):
        return _mmpp(arrivals, math.inf if duration_s is None else duration_s, rng)
    if isinstance(arrivals, RateCurve):
        return _rate_curve(arrivals, rng)
    if isinstance(arrivals, Diurnal):
        points = running_sums(rng.standard_exponential)
        return lambda count: _diurnal(arrivals, points(count))
    assert isinstance(arrivals, Poisson | GammaGaps | WeibullGaps), arrivals
    draw = rng.standard_exponential
    if isinstance(arrivals, GammaGaps):
        draw = gamma_gaps(arrivals.cv, rng)
    elif isinstance(arrivals, WeibullGaps):
        draw = weibull_gaps(arrivals.cv, rng)
    points = running_sums(draw)
    return lambda count: points(count) / arrivals.rate_rps


def _check_count(arrivals: Any, num_requests: int | None, duration_s: float | None) -> None:
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


def _mean_rate(arrivals: Any) -> float:
    if isinstance(arrivals, Mmpp):
        return float(np.average(arrivals.rates_rps, weights=arrivals.mean_dwell_s))
    return arrivals.rate_rps


def _deterministic(rate_rps: float) -> Draw:
    done = 0

    def take(count: int) -> np.ndarray:
        nonlocal done
        done += count
        return np.arange(done - count, done) / rate_rps

    return take


def _mmpp(process: Mmpp, until_s: float, rng: np.random.Generator) -> Draw:
    """Unit-rate Poisson points, mapped back through the integral of the state's rate over time.

    States follow one another in order, each for an exponential time; the first is drawn from the stationary
    law, so that the mean rate is ``sum(rate * dwell) / sum(dwell)`` from the start. States are followed to the first
    that ends after ``until_s``; points beyond it are left out.
    """
    rates, dwells = np.asarray(process.rates_rps), np.asarray(process.mean_dwell_s)
    # Two streams, or a longer run would interleave draws of states and of points in another way and not continue the
    # shorter one.
    states, times = rng.spawn(2)
    state = int(states.choice(len(rates), p=dwells / dwells.sum()))
    integral, clock = [0.0], [0.0]
    points = running_sums(times.standard_exponential)

    def take(count: int) -> np.ndarray:
        nonlocal state
        wanted = points(count)
        while integral[-1] <= wanted[-1] and clock[-1] < until_s:
            stay = states.standard_exponential() * dwells[state]
            clock.append(clock[-1] + stay)
            integral.append(integral[-1] + stay * rates[state])
            state = (state + 1) % len(rates)
        found = np.interp(wanted[wanted <= integral[-1]], integral, clock)
        # The last two corners are enough for the points to come; memory does not grow with the changes of state.
        del integral[:-2], clock[:-2]
        return found

    return take


def _rate_curve(process: RateCurve, rng: np.random.Generator) -> Draw:
    """Unit-rate points, mapped back through the integral of the rate."""
    points = running_sums(unit_gaps(process.gaps, rng))
    times_at = curve(process.rate_rps, process.shape, process.step_s)
    tick_s = process.tick_s

    def take(count: int) -> np.ndarray:
        times_s = times_at(points(count))
        # A clock that ticks shows the last tick, never a later one.
        return times_s if tick_s is None else np.floor(times_s / tick_s) * tick_s

    return take


def _diurnal(process: Diurnal, points: np.ndarray) -> np.ndarray:
    """Unit-rate Poisson points, mapped back through the integral of the rate by bisection.

    The integral is ``rate * (t + swing * (1 - cos(2 pi t / period)) / 2)`` with
    ``swing = amplitude * period / pi``, so the time of point ``s`` lies in ``[s / rate - swing, s / rate]``.
    """
    rate, swing = process.rate_rps, process.amplitude * process.period_s / math.pi
    turn = 2 * math.pi / process.period_s
    high = points / rate
    low = np.maximum(high - swing, 0.0)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        early = rate * (middle + swing * (1 - np.cos(turn * middle)) / 2) < points
        low, high = np.where(early, middle, low), np.where(early, high, middle)
    return high

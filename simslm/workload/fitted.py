"""A generated workload fitted to recorded traffic, and how well it meets it.

Lengths are taken as quantiles, joined by their rank correlation. Arrivals are a rate curve over steps that hold enough
requests to tell a rate, and a law of the gaps in the time that the curve measures (Lewis and Shedler 1979; ServeGen,
arXiv:2505.09999, section 3): exponential where that is near enough, else gamma or Weibull of the same spread, else
their own quantiles. A clock that ticks is fitted as one that ticks. Where lengths change in the course of the traffic,
its requests are divided into kinds by length, each a client with a rate curve of its own: then long and short ones
come when they came.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simslm.errors import ScenarioError
from simslm.scenario.workload import Workload
from simslm.workload.gaps import weibull_shape
from simslm.workload.generate import generate
from simslm.workload.traffic import WINDOWS_S, Traffic

STEPS_S = (60, 300, 600, 1800, 3600, 7200, 14400, 43200, 86400, 604800)
"""Steps of a rate curve: the shortest of which a mean one holds :data:`ENOUGH` requests."""

ENOUGH = 10
MOST_STEPS = 2016

NEAR = 0.02
"""Kolmogorov-Smirnov distance at which a law of the gaps is near enough; with few gaps, one that chance makes."""

KINDS = 4
"""Kinds of requests, where lengths change in the course of the traffic."""

DRIFT = 2.0
"""Times the distance by which the lengths of two halves differ by chance (1 in 20) from which they have changed."""

EQUAL = 200
"""Equal steps of probability between the quantiles of a fit; the last hundredth is divided further."""

TOLERANCE, TAIL = 0.003, 0.05
"""How far in probability the lines between the kept quantiles may miss the others; in the tail, as a share of it."""

DRAWN = 20_000
"""At least so many requests are drawn to compare a fit with traffic."""


@dataclass(frozen=True)
class Goodness:
    """How two traffics compare.

    Attributes:
        prompt_ks, output_ks: Kolmogorov-Smirnov distances between the lengths.
        figures: by name, that of the first and that of the second traffic.
    """

    prompt_ks: float
    output_ks: float
    figures: dict[str, tuple[float | None, float | None]]

    def off(self, name: str) -> float | None:
        """How far the second figure is off, as a fraction of the first."""
        first, second = self.figures[name]
        return None if first is None or second is None or not first else second / first - 1


def fitted(traffic: Traffic) -> dict[str, Any]:
    """The keys of a workload like some traffic.

    Raises:
        ScenarioError: there are too few requests to fit anything to.
    """
    if len(traffic) < ENOUGH:
        raise ScenarioError(
            f"{len(traffic)} requests are too few to fit a workload to",
            remedy=f"at least {ENOUGH} are needed",
        )
    workload: dict[str, Any] = {"num_requests": len(traffic)}
    kinds = _kinds(traffic)
    if len(kinds) > 1:
        workload["arrivals"] = _clients(traffic, kinds)
    else:
        if traffic.rate_rps is not None:
            workload["arrivals"] = _arrivals(traffic)
        workload |= _lengths(traffic)
    correlations = [(traffic.part(kind).rank_correlation or 0.0, len(kind)) for kind in kinds]
    correlation = sum(each * count for each, count in correlations) / len(traffic)
    if abs(correlation) >= 0.01:
        workload["correlation"] = _short(correlation)
    return workload


def drawn(workload: dict[str, Any], least: int = DRAWN, seed: int = 0) -> Traffic:
    """Requests of a fitted workload: whole turns of its rate curve, at least so many requests."""
    turns = max(1, math.ceil(least / workload["num_requests"]))
    timed = "arrivals" in workload
    arrivals = workload.get("arrivals", {"process": "all-at-once"})
    whole = {**workload, "num_requests": turns * workload["num_requests"], "arrivals": arrivals}
    requests = generate(Workload.model_validate(whole), seed, 1 << 53, Path())
    first = requests.arrival_s[0]
    return Traffic(requests.arrival_s - first, requests.prompt_tokens, requests.output_tokens, timed)


def compared(traffic: Traffic, other: Traffic) -> Goodness:
    """Lengths and burstiness of two traffics, the second perhaps several times as long.

    Peaks of the second are means over stretches as long as the first, so that more draws have no higher peaks.
    """
    stretches = _stretches(other, traffic.span_s)
    figures: dict[str, tuple[float | None, float | None]] = {
        "rate_rps": (traffic.rate_rps, other.rate_rps),
        "gap_cv": (traffic.gap_cv, other.gap_cv),
    }
    for window in WINDOWS_S:
        peaks = [peak for each in stretches if (peak := each.peak_to_mean(window)) is not None]
        figures[f"peak_to_mean_{window:g}s"] = (
            traffic.peak_to_mean(window),
            float(np.mean(peaks)) if peaks else None,
        )
    return Goodness(
        distance(traffic.prompt_tokens, other.prompt_tokens),
        distance(traffic.output_tokens, other.output_tokens),
        figures,
    )


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """The Kolmogorov-Smirnov distance of two samples: the largest difference of their distribution functions."""
    one, other = np.sort(one), np.sort(other)
    values = np.concatenate((one, other))
    below = [np.searchsorted(each, values, side="right") / len(each) for each in (one, other)]
    return float(np.abs(below[0] - below[1]).max())


def _stretches(traffic: Traffic, span_s: float) -> list[Traffic]:
    if not traffic.timed or span_s <= 0:
        return []
    number = (traffic.arrival_s / span_s).astype(np.int64)
    whole = max(int(traffic.span_s / span_s), 1)
    return [traffic.part(number == index) for index in range(whole) if np.any(number == index)]


def _kinds(traffic: Traffic) -> list[np.ndarray]:
    """Rows of each kind of requests: one kind, unless the lengths of the first half are not those of the second."""
    rows, half = np.arange(len(traffic)), len(traffic) // 2
    # Lengths that change make a curve of lengths: kinds of requests with a rate curve each stand for it.
    drift = max(distance(each[:half], each[half:]) for each in (traffic.prompt_tokens, traffic.output_tokens))
    # The 5 % point of the two-sample Kolmogorov-Smirnov statistic.
    chance = 1.36 * math.sqrt(2 / half)
    if drift <= DRIFT * chance or traffic.rate_rps is None or traffic.tick_s is not None:
        return [rows]
    from scipy.cluster.vq import kmeans2

    lengths = np.column_stack((traffic.prompt_tokens, traffic.output_tokens))
    most = min(KINDS, len(np.unique(lengths, axis=0)))
    with warnings.catch_warnings(action="ignore"):  # a kind that comes out empty is left out
        # In logarithms: 100 and 200 tokens are as far apart as 1,000 and 2,000. A seed of its own, so that a fit
        # repeats.
        _, kind = kmeans2(np.log(lengths), most, minit="++", rng=np.random.default_rng(0))
    return [mine for index in range(KINDS) if len(mine := rows[kind == index])]


def _clients(traffic: Traffic, kinds: Sequence[np.ndarray]) -> dict[str, Any]:
    """Each kind as a client; all curves have the step that the whole traffic has."""
    step_s = _step(traffic)
    found = []
    for rows in sorted(kinds, key=len, reverse=True):
        arrival_s = traffic.arrival_s[rows]
        part = Traffic(arrival_s, traffic.prompt_tokens[rows], traffic.output_tokens[rows])
        counts = _counted(arrival_s, traffic.span_s, step_s)
        share = float(counts.sum())
        if share:
            found.append({"share": share, **_curve(arrival_s, counts, step_s), **_lengths(part)})
    total = sum(client["share"] for client in found)
    steps = len(found[0]["shape"])
    for client in found:
        client["share"] = _short(client["share"] / total)
    return {"process": "clients", "rate_rps": _short(total / (steps * step_s)), "clients": found}


def _lengths(traffic: Traffic) -> dict[str, Any]:
    names = ("prompt_tokens", "output_tokens")
    return {name: _quantiles(getattr(traffic, name)) for name in names}


def _quantiles(values: np.ndarray) -> dict[str, Any]:
    if not np.ptp(values):
        return {"dist": "fixed", "value": int(values[0])}
    at = _probabilities(len(values))
    # Observed values only: between two of them there may be a gap that no request has.
    found = np.quantile(values, at, method="inverted_cdf").astype(int)
    needed = _corners(at, found)
    return {"dist": "quantiles", "at": at[needed].tolist(), "values": found[needed].tolist()}


def _probabilities(count: int) -> np.ndarray:
    """Equal steps as far as ``count`` observations tell them apart, the last finer and finer to the largest but one."""
    steps = min(EQUAL, count - 1)
    last = (1 - 10.0 ** -np.arange(2.25, math.log10(max(count, 10)), 0.25)).round(6)
    return np.unique(
        np.concatenate((np.linspace(0.0, 1.0, steps + 1).round(6), last[last < 1 - 0.5 / count]))
    )


def _corners(at: np.ndarray, values: np.ndarray) -> list[int]:
    """The quantiles that are needed: lines between them miss no other by more than a tolerance in probability."""
    # An error of 0.005 in probability is nothing in the middle and everything at p99.
    tolerance = np.minimum(TOLERANCE, TAIL * (1 - at))
    needed = [0]
    while (begin := needed[-1]) < len(at) - 1:
        for end in range(begin + 2, len(at)):
            between = slice(begin + 1, end)
            rise = values[end] - values[begin]
            part = (values[between] - values[begin]) / rise if rise else np.zeros(end - begin - 1)
            line = at[begin] + part * (at[end] - at[begin])
            if rise and np.any(np.abs(line - at[between]) > tolerance[between]):
                needed.append(end - 1)
                break
        else:
            needed.append(len(at) - 1)
    return needed


def _arrivals(traffic: Traffic) -> dict[str, Any]:
    """One rate curve for all requests."""
    step_s, tick_s = _step(traffic), traffic.tick_s
    counts = _counted(traffic.arrival_s, traffic.span_s, step_s)
    found: dict[str, Any] = {"process": "rate-curve", "rate_rps": _short(counts.mean() / step_s)}
    found |= _curve(traffic.arrival_s, counts, step_s)
    if tick_s is not None:
        found |= {"gaps": _ticking(_tick_dispersion(traffic, tick_s, counts, step_s)), "tick_s": tick_s}
    return found


def _curve(arrival_s: np.ndarray, counts: np.ndarray, step_s: float) -> dict[str, Any]:
    """The rate in each step, and the law of the gaps that it does not explain."""
    return {
        "step_s": step_s,
        "shape": [_short(value) for value in counts / counts.mean()],
        "gaps": _law(_measured(arrival_s, counts, step_s)),
    }


def _step(traffic: Traffic) -> float:
    """The step of the rate curve: the whole span where nothing shorter holds enough requests."""
    rate = traffic.rate_rps or 0.0
    for step_s in STEPS_S:
        steps = traffic.span_s / step_s
        if rate * step_s >= ENOUGH and 2 <= steps <= MOST_STEPS:
            return float(step_s)
    return _short(len(traffic) / rate)


def _counted(arrival_s: np.ndarray, span_s: float, step_s: float) -> np.ndarray:
    """Requests in each step of the curve; a last one that is not whole counts as much as it would if it were, and not
    at all where it is less than half. In one step, all of them."""
    steps = max(int(span_s / step_s + 0.5), 1)
    number = (arrival_s / step_s).astype(np.int64)
    counts = np.bincount(number[number < steps], minlength=steps).astype(float)
    last_s = span_s - (steps - 1) * step_s
    if steps > 1 and 0 < last_s < step_s:
        counts[-1] *= step_s / last_s
    return counts


def _measured(arrival_s: np.ndarray, curve: np.ndarray, step_s: float) -> np.ndarray:
    """The gaps in the time that a rate curve measures, of mean about 1."""
    edges_s = np.arange(len(curve) + 1) * step_s
    integral = np.concatenate(([0.0], np.cumsum(curve)))
    inside = arrival_s[arrival_s <= edges_s[-1]]
    return np.diff(np.interp(inside, edges_s, integral))


def _cv(gaps: np.ndarray) -> float:
    return float(gaps.std() / gaps.mean())


def _tick_dispersion(traffic: Traffic, tick_s: float, counts: np.ndarray, step_s: float) -> float:
    """The index of dispersion of requests per tick, within steps."""
    per_tick = np.bincount(np.round(traffic.arrival_s / tick_s).astype(np.int64)).astype(float)
    expected = np.interp(
        (np.arange(len(per_tick)) + 0.5) * tick_s,
        (np.arange(len(counts)) + 0.5) * step_s,
        counts * tick_s / step_s,
    )
    return float(np.mean((per_tick - expected) ** 2) / per_tick.mean())


def _ticking(scatter: float) -> dict[str, Any]:
    """Gaps between the ticks of a clock: counts of a renewal process have the dispersion ``cv^2`` in the long run."""
    cv = math.sqrt(max(scatter, 0.01))
    return {"dist": "exponential"} if abs(cv - 1) < 0.05 else {"dist": "gamma", "cv": _short(cv)}


def _law(gaps: np.ndarray) -> dict[str, Any]:
    """The simplest law that is near enough, else the gaps' own quantiles."""
    if len(gaps) < ENOUGH or not gaps.any():
        return {"dist": "exponential"}
    unit = np.sort(gaps / gaps.mean())
    cv = _cv(gaps)
    laws = [{"dist": "exponential"}] if abs(cv - 1) < 0.05 else []
    if 0.05 <= cv <= 20:
        laws += [{"dist": kind, "cv": _short(cv)} for kind in ("gamma", "weibull")]
    near = max(NEAR, 1.36 / math.sqrt(len(unit)))
    if (found := next((law for law in laws if _misfit(law, unit) <= near), None)) is not None:
        return found
    at = _probabilities(len(unit))
    values = np.quantile(unit, at, method="inverted_cdf")
    needed = _corners(at, values)
    shown = [_short(value) for value in values[needed]]
    return {"dist": "quantiles", "at": at[needed].tolist(), "values": shown}


def _misfit(law: dict[str, Any], unit: np.ndarray) -> float:
    """The Kolmogorov-Smirnov distance of sorted gaps of mean 1 from a law."""
    from scipy.special import gammainc

    if law["dist"] == "weibull":
        shape = weibull_shape(law["cv"])
        below = -np.expm1(-((unit * math.gamma(1 + 1 / shape)) ** shape))
    else:
        shape = law.get("cv", 1.0) ** -2
        below = gammainc(shape, unit * shape)
    steps = np.arange(len(unit) + 1) / len(unit)
    return float(max(np.max(steps[1:] - below), np.max(below - steps[:-1])))


def _short(value: float) -> float:
    return float(f"{value:.5g}")


@dataclass(frozen=True)
class HeldOut:
    """A fit to one part of a traffic against another part.

    Attributes:
        parts: which to which.
        fit: the other part and what the fit draws.
        own: the two parts themselves; a fit that knew the first part exactly would be as far off.
    """

    parts: str
    fit: Goodness
    own: Goodness


def held_out(traffic: Traffic) -> list[HeldOut]:
    """Fits to a half of a traffic against the other half: the first and the second, and every other window.

    Raises:
        ScenarioError: there are too few requests to fit anything to.
    """
    half = len(traffic) // 2
    step_s = _step(traffic) if traffic.rate_rps is not None else None
    pairs = {
        "first half → second half": (traffic.part(slice(half)), traffic.part(slice(half, None))),
        f"every other {'request' if step_s is None else f'{step_s:g} s'}": _alternate(traffic, step_s),
    }
    return [
        HeldOut(parts, compared(other, drawn(fitted(one))), compared(other, one))
        for parts, (one, other) in pairs.items()
        if len(one) >= ENOUGH and len(other) >= ENOUGH
    ]


def _alternate(traffic: Traffic, step_s: float | None) -> tuple[Traffic, Traffic]:
    """The even and the odd windows of a traffic, each put together without what lay between."""
    if step_s is None:
        return traffic.part(slice(None, None, 2)), traffic.part(slice(1, None, 2))
    window = np.floor(traffic.arrival_s / step_s)
    # Each half is put together without gaps, or the missing windows would look like a rate of 0.
    together_s = traffic.arrival_s - (window - np.floor(window / 2)) * step_s
    parts = []
    for odd in (0, 1):
        mine = window % 2 == odd
        times_s = together_s[mine] - (together_s[mine][0] if mine.any() else 0.0)
        parts.append(Traffic(times_s, traffic.prompt_tokens[mine], traffic.output_tokens[mine]))
    return parts[0], parts[1]

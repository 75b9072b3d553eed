"""The difference of every figure between two configurations: from one run of each, or over several seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf, isfinite, isinf, isnan
from statistics import fmean, variance

import numpy as np

from simslm.comparison.delta import CONFIDENCE, Delta
from simslm.comparison.intervals import INFINITE_IN_BOTH, MISSES, Sure, difference, pair
from simslm.comparison.sampled import RATES, Sampled
from simslm.comparison.student import interval, welch
from simslm.metrics.figure_paths import FIGURES

NOT_OF_BOTH = "not known of both"
INFINITE_IN_SOME = "infinite under some seeds: more requests than that were not served"


def by_section(baseline: Sampled, other: Sampled, paired: bool) -> Iterator[Delta]:
    """One run of each.

    Args:
        baseline, other: the runs; when paired, of the same requests in the same order.
        paired: whether they served the same requests.
    """
    for path in FIGURES:
        before, after = pair(baseline, other, path, paired)
        if before is None or after is None:
            yield Delta(path, before, after, None, None, NOT_OF_BOTH)
            continue
        if isinf(before) and isinf(after):
            sure = Sure(None, INFINITE_IN_BOTH)
            delta = _of_infinite(baseline.missed_share, other.missed_share)
        else:
            sure, delta = difference(baseline, other, path, paired), after - before
        note = MISSES if path.endswith(".mean") and (isinf(before) or isinf(after)) else sure.note
        yield Delta(path, before, after, delta, sure.interval, note, sure.direction)


def by_seed(baseline: Sequence[Sampled], other: Sequence[Sampled]) -> Iterator[Delta]:
    """Runs under the same seeds, in the same order: Student's t over the differences."""
    for path in FIGURES:
        yield over(path, baseline, other, paired=True)


def by_run(baseline: Sequence[Sampled], other: Sequence[Sampled]) -> Iterator[Delta]:
    """Runs under different seeds, at least two of each: Welch's t."""
    for path in FIGURES:
        yield over(path, baseline, other, paired=False)


def over(path: str, baseline: Sequence[Sampled], other: Sequence[Sampled], *, paired: bool) -> Delta:
    """One figure over several runs of each, under the same seeds where they are paired."""
    first, second = _known(baseline, path), _known(other, path)
    if first is None or second is None:
        return Delta(path, _mean(first), _mean(second), None, None, NOT_OF_BOTH)
    before, after = fmean(first), fmean(second)
    if isinf(before) or isinf(after):
        lost, gone = (fmean(run.missed_share for run in runs) for runs in (baseline, other))
        delta = _of_infinite(lost, gone) if isinf(before) and isinf(after) else after - before
        note = MISSES if path.endswith(".mean") else INFINITE_IN_SOME
        return Delta(path, before, after, delta, None, note)
    bounds = _bounds(first, second, paired)
    if path in RATES and bounds is not None:
        one, two = ([_steady(run, path) for run in runs] for runs in (baseline, other))
        if not any(map(isnan, (*one, *two))):
            bounds = _hull(bounds, _bounds(one, two, paired))
    return Delta(path, before, after, after - before, bounds)


def _steady(run: Sampled, path: str) -> float:
    amount = run.amount(path)
    return float("nan") if amount is None else run.steady_rate(amount)


def _bounds(first: Sequence[float], second: Sequence[float], paired: bool) -> tuple[float, float] | None:
    if paired:
        return interval([b - a for a, b in zip(first, second, strict=True)], CONFIDENCE)
    one, two = ((variance(values) / len(values), len(values)) for values in (first, second))
    return welch(fmean(second) - fmean(first), one, two, CONFIDENCE)


def _hull(first: tuple[float, float], second: tuple[float, float] | None) -> tuple[float, float]:
    """The interval of a rate covers two estimates: over the whole run, which fills and drains, and over its middle."""
    return first if second is None else (min(first[0], second[0]), max(first[1], second[1]))


def _of_infinite(before: float, after: float) -> float:
    """The difference of two infinite figures, by the share of requests that was missed in each."""
    return 0.0 if before == after else inf if after > before else -inf


def _known(runs: Sequence[Sampled], path: str) -> list[float] | None:
    """A figure of every run; None where one lacks it."""
    values = [value for run in runs if (value := run.figures[path]) is not None]
    return values if len(values) == len(runs) else None


def _mean(values: list[float] | None) -> float | None:
    return float(np.mean(values)) if values is not None and all(map(isfinite, values)) else None

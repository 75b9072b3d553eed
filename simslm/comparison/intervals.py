"""How sure the figures of one run are, and the difference of a figure between two runs.

A figure of one run is one number; other requests of the same kind would give another. How far that may lie shows in the
run itself, cut into sections (:mod:`simslm.comparison.series`), where the run is long enough for what it remembers:

- a mean: the sections of the requests;
- a quantile: the share of requests beyond it varies between sections, and the quantiles at the ends of that share's
  interval are those of the quantile (Heidelberger and Lewis 1984, Operations Research 32(1), section 2). A section
  needs ten requests beyond the quantile on average, the run a hundred;
- a share (attainment, rejected): its mean, where a hundred requests lie on its rarer side;
- a rate (throughput, goodput): the ratio of what is served to the time it takes, request by request, in the order of
  arrival (ratio estimator: Law 2015, "Simulation Modeling and Analysis", section 9.5.3).

The difference of two runs of the same requests is taken request by request (common random numbers: Law 2015, section
11.2); quantiles by what each request does to both (Bahadur 1966). Different requests are independent, and the margins
of both runs add as squares (Zou and Donner 2008, Statistics in Medicine 27(10)).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import hypot, inf, isfinite

import numpy as np

from simslm.comparison import series
from simslm.comparison.sampled import COUNTED, OF_REQUESTS, RATES, Sampled, figure, figures, quantile
from simslm.comparison.series import FEWEST, LEAST, Margins
from simslm.metrics.definitions import ATTAINMENT, GOODPUT, TOKEN_GOODPUT
from simslm.metrics.figure_paths import OF_PATH
from simslm.metrics.quantiles import LEVELS

EVENTS = FEWEST * LEAST
"""Requests on the rarer side of a share or a quantile that a run needs."""

LEADING = 0.3
"""Correlation from which one of two quantiles is the one that moves with the requests beyond them."""

MORE = "run more requests or several seeds"
ONE_FIGURE = "a run has one such figure: run several seeds"
TOO_FEW = f"fewer than {EVENTS} requests: {MORE}"
TOO_FEW_BEYOND = f"fewer than {EVENTS} requests beyond it: {MORE}"
TOO_FEW_DIFFER = f"fewer than {EVENTS} requests differ in it: {MORE}"
TOO_FEW_RARER = f"fewer than {EVENTS} requests kept the SLO, or fewer than {EVENTS} missed it: {MORE}"
TOO_SHORT = f"the run is too short for how slowly its load changes: {MORE}"
TOO_WIDE = f"its margin is larger than the figure itself: {MORE}"
UNKNOWN = "not known"
MISSES = (
    "not comparable: some requests were not served and have no latency, so a mean over the others says little"
)
INFINITE_IN_BOTH = "infinite in both: more requests than that were not served"


@dataclass(frozen=True, slots=True)
class Sure:
    """An interval at 95 %, or why there is none.

    Attributes:
        interval: low and high; None where it cannot be told.
        note: why not; empty where there is one.
        direction: 1 or −1 where the size of a difference cannot be told but its sign can; else 0.
    """

    interval: tuple[float, float] | None
    note: str = ""
    direction: int = 0


def interval(run: Sampled, path: str) -> Sure:
    """The 95 % interval of a figure of a run's summary under other requests of the same kind."""
    value = figures(run.summary)[path]
    if value is None:
        return Sure(None, UNKNOWN)
    key, _, name = path.rpartition(".")
    if key in OF_REQUESTS and name != "max":
        values = run.column(key)
        values = values[np.isfinite(values)]
        found = (
            _of_quantile(values, LEVELS[name], run.memory) if name in LEVELS else _of_mean(values, run.memory)
        )
    elif path == ATTAINMENT.key and run.good is not None:
        found = _of_share(run.good.astype(float), run.memory)
    elif path in RATES and (amount := run.amount(path)) is not None:
        found = _of_rate(run, amount, path, value)
    else:
        return Sure(None, ONE_FIGURE)
    if isinstance(found, str):
        return Sure(None, found)
    if path == ATTAINMENT.key:
        return Sure((max(value - found.low, 0.0), min(value + found.high, 1.0)))
    # A lower end at 0 or below says nothing of a figure that is positive: the run is too short for its spread.
    if name not in LEVELS and 0 < value <= found.low:
        return Sure(None, TOO_WIDE)
    return Sure((max(value - found.low, 0.0), value + found.high))


def of_figures(run: Sampled, paths: Iterable[str]) -> dict[str, tuple[float, float]]:
    """The intervals of some figures, by path. Latencies have none where requests were missed: they are infinite then,
    and those of the summary are not."""
    known = (
        path
        for path in paths
        if path in OF_PATH and not (run.missed.any() and path.rpartition(".")[0] in OF_REQUESTS)
    )
    found = {path: interval(run, path).interval for path in known}
    return {path: each for path, each in found.items() if each is not None}


def sampling_of(run: Sampled) -> tuple[dict[str, tuple[float, float]], str]:
    """The interval of every figure that has one, by path, and why the mean TTFT has none; empty where it has one."""
    found = {path: interval(run, path) for path in OF_PATH}
    return {path: each.interval for path, each in found.items() if each.interval is not None}, found[
        "ttft_s.mean"
    ].note


def pair(baseline: Sampled, other: Sampled, path: str, paired: bool) -> tuple[float | None, float | None]:
    """A figure of two runs as they are compared: where both missed the same requests, a mean is over the others."""
    key, _, name = path.rpartition(".")
    before, after = baseline.figures[path], other.figures[path]
    if (
        key in OF_REQUESTS
        and name == "mean"
        and paired
        and baseline.missed.any()
        and _same_missed(baseline, other)
    ):
        before, after = (figure(run.column(key)[~run.missed], None, name) for run in (baseline, other))
    return before, after


def _same_missed(baseline: Sampled, other: Sampled) -> bool:
    return np.array_equal(baseline.missed, other.missed)


def difference(baseline: Sampled, other: Sampled, path: str, paired: bool) -> Sure:
    """The 95 % interval of the difference other − baseline of a figure under other requests of the same kind.

    Args:
        baseline, other: the runs; when paired, of the same requests in the same order.
        path: of the figure.
        paired: whether they served the same requests.
    """
    found = _difference(baseline, other, path, paired)
    if paired and found.interval is None and found.note == TOO_SHORT:
        return Sure(None, TOO_SHORT, _direction(baseline, other, path))
    if not paired and found.interval is None and path == ATTAINMENT.key:
        return Sure(None, found.note, _apart(baseline, other))
    return found


def _apart(baseline: Sampled, other: Sampled) -> int:
    """The sign of a difference in attainment of two independent runs whose tenths do not overlap; else 0.

    Of two runs alike, all ten shares of one lie beyond all ten of the other once in 92,378 times (Mann and Whitney
    1947) where tenths are independent; where a load lasts longer than that, both runs still have to differ all along.
    """
    kept = [run.good for run in (baseline, other) if run.good is not None and run.count >= EVENTS]
    if len(kept) < 2:
        return 0
    before, after = ([float(np.mean(part)) for part in np.array_split(good, FEWEST)] for good in kept)
    return 1 if min(after) > max(before) else -1 if max(after) < min(before) else 0


def _direction(baseline: Sampled, other: Sampled, path: str) -> int:
    """The sign of a difference over the same requests, where it is the same in every tenth of the run; else 0.

    Where load builds up all the time, a run says nothing of how large a difference is in the long run; that one of two
    configurations serves the same requests sooner from beginning to end it does say.
    """
    key, _, name = path.rpartition(".")
    if path == ATTAINMENT.key and baseline.good is not None and other.good is not None:
        pair, level = (baseline.good * 1.0, other.good * 1.0), None
    elif key in OF_REQUESTS and (name == "mean" or name in LEVELS):
        pair, level = (baseline.latency(key), other.latency(key)), LEVELS.get(name)
    else:
        return 0
    tenths = [[figure(part, level, name) for part in np.array_split(values, FEWEST)] for values in pair]
    signs = {
        0 if before is None or after is None or before == after else 1 if after > before else -1
        for before, after in zip(*tenths, strict=True)
    }
    return signs.pop() if len(signs) == 1 else 0


def _difference(baseline: Sampled, other: Sampled, path: str, paired: bool) -> Sure:
    before, after = baseline.figures[path], other.figures[path]
    if before is None or after is None:
        return Sure(None, UNKNOWN)
    key, _, name = path.rpartition(".")
    if key in OF_REQUESTS and name == "mean":
        return _of_means(baseline, other, key, paired)
    if key in OF_REQUESTS and name in LEVELS:
        return _of_quantiles(baseline, other, key, LEVELS[name], paired)
    if path == ATTAINMENT.key and baseline.good is not None and other.good is not None:
        return _of_shares(baseline, other, (baseline.good * 1.0, other.good * 1.0), after - before, paired)
    if key == "requests" and name in COUNTED and baseline.count == other.count > 0:
        first, second = baseline.mask(name), other.mask(name)
        if first is not None and second is not None:
            found = _of_shares(baseline, other, (first, second), (after - before) / other.count, paired)
            return _times(found, other.count)
    if path in RATES:
        return _of_rates(baseline, other, path, after - before, paired)
    return Sure(None, ONE_FIGURE)


MarginsOrReason = Margins | str
"""Margins of an estimate, or why there are none."""


def _of_mean(values: np.ndarray, memory: float) -> MarginsOrReason:
    if len(values) < EVENTS:
        return TOO_FEW
    return series.margins(values, least_memory=memory) or TOO_SHORT


def _of_share(indicator: np.ndarray, memory: float) -> MarginsOrReason:
    if len(indicator) < EVENTS:
        return TOO_FEW
    rarer = int(min(np.count_nonzero(indicator), np.count_nonzero(indicator == 0)))
    if rarer < EVENTS:
        return TOO_FEW_RARER
    return series.margins(indicator, rarer // LEAST, memory) or TOO_SHORT


def _of_quantile(values: np.ndarray, level: float, memory: float) -> MarginsOrReason:
    """Margins of a quantile; values may be infinite."""
    ascending = np.sort(values)
    # 1e-6 because 10,000 × (1 − 0.99) is 99.99999 in doubles, and is meant to be enough.
    if len(values) * min(level, 1 - level) < EVENTS - 1e-6:
        return TOO_FEW_BEYOND
    at = quantile(ascending, level)
    found = _beyond(values, at, level, memory)
    if found is None:
        return TOO_SHORT
    # The interval of the share reaches beyond all requests there are: no quantile stands at its end.
    if level + found.high >= 1 or level - found.low <= 0:
        return TOO_FEW_BEYOND
    low, high = quantile(ascending, level - found.low), quantile(ascending, level + found.high)
    if not isfinite(at):
        return Margins(inf if isfinite(low) else 0.0, inf)
    return Margins(at - low, high - at)


def _beyond(values: np.ndarray, at: float, level: float, memory: float) -> Margins | None:
    """Margins of the share of requests beyond a quantile."""
    most = int(len(values) * min(level, 1 - level) / LEAST + 1e-6)
    return series.margins(_exceeds(values, at), most, memory)


def _exceeds(values: np.ndarray, at: float) -> np.ndarray:
    return (values > at if isfinite(at) else values == inf).astype(float)


def _of_rate(run: Sampled, amount: np.ndarray, path: str, value: float) -> MarginsOrReason:
    """Margins of a rate, widened to the steady one: filling and draining the system are not what it does for long."""
    if run.count < EVENTS:
        return TOO_FEW
    found = series.margins(_residuals(run, amount), least_memory=_rate_memory(run, path))
    if found is None:
        return TOO_SHORT
    # A short run fills and drains, a long one does not: where both rates differ, the truth may be either.
    steady = run.steady_rate(amount)
    beyond = steady - value if isfinite(steady) else 0.0
    return Margins(found.low + max(-beyond, 0.0), found.high + max(beyond, 0.0))


def _residuals(run: Sampled, amount: np.ndarray) -> np.ndarray:
    """What each request does to a rate: their mean is 0, and its margins are those of the rate."""
    time = run.takes_s
    whole = float(time.sum()) or 1.0
    return (amount - float(amount.sum()) / whole * time) * (run.count / whole)


def _of_means(baseline: Sampled, other: Sampled, key: str, paired: bool) -> Sure:
    if (baseline.missed.any() or other.missed.any()) and not (paired and _same_missed(baseline, other)):
        return Sure(None, MISSES)
    first, second = baseline.column(key), other.column(key)
    if paired:
        difference = (second - first)[~baseline.missed]
        return _around(
            _mean_of(first, second, baseline.missed),
            _of_mean(difference[np.isfinite(difference)], max(baseline.memory, other.memory)),
        )
    found = [_of_mean(x[np.isfinite(x)], run.memory) for x, run in ((first, baseline), (second, other))]
    return _around(float(np.nanmean(second) - np.nanmean(first)), _added(*found))


def _mean_of(first: np.ndarray, second: np.ndarray, missed: np.ndarray) -> float:
    return float(np.nanmean(second[~missed]) - np.nanmean(first[~missed]))


def _of_quantiles(baseline: Sampled, other: Sampled, key: str, level: float, paired: bool) -> Sure:
    first, second = baseline.latency(key), other.latency(key)
    if paired:
        known = ~(np.isnan(first) | np.isnan(second))
        first, second = first[known], second[known]
    else:
        first, second = first[~np.isnan(first)], second[~np.isnan(second)]
    if min(len(first), len(second)) * min(level, 1 - level) < EVENTS - 1e-6:
        return Sure(None, TOO_FEW_BEYOND)
    before, after = (quantile(np.sort(values), level) for values in (first, second))
    if paired and isfinite(before) and isfinite(after):
        memory = max(baseline.memory, other.memory)
        found = _together(first, second, level, memory)
        if not isinstance(found, Margins) or isfinite(found.high):
            return _around(after - before, found)
    one, two = (
        _of_quantile(values, level, run.memory) for values, run in ((first, baseline), (second, other))
    )
    if isinstance(one, str) or isinstance(two, str):
        return Sure(None, one if isinstance(one, str) else str(two))
    if isfinite(before) and isfinite(after):
        return _around(after - before, _added(one, two))
    return _infinite((before, one), (after, two))


def _infinite(baseline: tuple[float, Margins], other: tuple[float, Margins]) -> Sure:
    """The interval of a difference of which one or both sides are infinite, from the ends of both intervals."""
    (before, one), (after, two) = baseline, other
    lowest = after if two.low == 0 else 0.0 if not isfinite(after) else after - two.low
    least = before if one.low == 0 else 0.0 if not isfinite(before) else before - one.low
    if not isfinite(before) and not isfinite(after):
        return Sure(None, INFINITE_IN_BOTH)
    if isfinite(before):
        return Sure((lowest - (before + one.high), inf))
    return Sure((-inf, after + two.high - least))


def _together(first: np.ndarray, second: np.ndarray, level: float, memory: float) -> MarginsOrReason:
    """Margins of the difference of a quantile over the same requests, by what each request does to both.

    A request beyond a quantile moves it by the slope of the quantile function there, which in a tail differs upwards
    and downwards. Where the second quantile is the one that moves, the difference falls along the slopes downwards and
    rises along those upwards; where it is the first, the other way round; else the wider margins count.
    """
    pairs = [(values, np.sort(values), quantile(np.sort(values), level)) for values in (first, second)]
    alone = [_beyond(values, at, level, 1.0) for values, _, at in pairs]
    reach = max((max(each.low, each.high) if each else 0.5 * (1 - level)) for each in alone)
    # Slopes are taken over as much of the tail as the quantile may move, but never to its very end, where one request
    # decides.
    reach = min(reach, 0.9 * (1 - level), 0.9 * level)
    if reach <= 0:
        return TOO_FEW_BEYOND
    most = int(len(first) * min(level, 1 - level) / LEAST + 1e-6)
    beyond = [_exceeds(values, at) for values, _, at in pairs]
    found: list[Margins] = []
    leads: list[float] = []
    for sign in (1, -1):
        slopes = [abs(quantile(ascending, level + sign * reach) - at) / reach for _, ascending, at in pairs]
        if not all(map(isfinite, slopes)):
            return Margins(inf, inf)
        moved = beyond[1] * slopes[1] - beyond[0] * slopes[0]
        each = series.margins(moved, most, memory)
        if each is None:
            return TOO_SHORT
        found.append(each)
        leads.append(_correlation(moved, beyond[0] + beyond[1]))
    up, down = found
    if min(leads) > LEADING:
        return Margins(down.low, up.high)
    if max(leads) < -LEADING:
        return Margins(up.low, down.high)
    return Margins(max(up.low, down.low), max(up.high, down.high))


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    spread = float(np.std(first) * np.std(second))
    products: np.ndarray = (first - first.mean()) * (second - second.mean())
    return float(np.mean(products)) / spread if spread else 0.0


def _of_shares(
    baseline: Sampled, other: Sampled, pair: tuple[np.ndarray, np.ndarray], delta: float, paired: bool
) -> Sure:
    first, second = pair
    if paired:
        changed = second - first
        if np.count_nonzero(changed) < EVENTS:
            return Sure(None, TOO_FEW_DIFFER)
        memory = max(baseline.memory, other.memory)
        most = int(np.count_nonzero(changed)) // LEAST
        return _around(delta, series.margins(changed, most, memory) or TOO_SHORT)
    found = [_of_share(values, run.memory) for values, run in ((first, baseline), (second, other))]
    return _around(delta, _added(*found))


def _of_rates(baseline: Sampled, other: Sampled, path: str, delta: float, paired: bool) -> Sure:
    first, second = baseline.amount(path), other.amount(path)
    if first is None or second is None:
        return Sure(None, ONE_FIGURE)
    if min(baseline.count, other.count) < EVENTS:
        return Sure(None, TOO_FEW)
    residuals = _residuals(baseline, first), _residuals(other, second)
    memories = [_rate_memory(run, path) for run in (baseline, other)]
    if paired:
        moved = residuals[1] - residuals[0]
        return _around(delta, series.margins(moved, least_memory=max(memories)) or TOO_SHORT)
    found = [
        series.margins(each, least_memory=memory) or TOO_SHORT
        for each, memory in zip(residuals, memories, strict=True)
    ]
    return _around(delta, _added(*found))


def _rate_memory(run: Sampled, path: str) -> float:
    """Throughput depends on arrivals, and where those are too many on service: neither lasts. Goodput depends on the
    load, unless all requests are good."""
    of_load = path in (GOODPUT.key, TOKEN_GOODPUT.key) and run.good is not None and not run.good.all()
    return run.memory if of_load else 1.0


def _added(baseline: MarginsOrReason, other: MarginsOrReason) -> MarginsOrReason:
    """Margins of the difference of two independent estimates."""
    if isinstance(baseline, str):
        return baseline
    if isinstance(other, str):
        return other
    # The difference is low where the other is low or the baseline high: the margins cross.
    return Margins(hypot(other.low, baseline.high), hypot(other.high, baseline.low))


def _around(delta: float, found: MarginsOrReason) -> Sure:
    if isinstance(found, str):
        return Sure(None, found)
    return Sure((delta - found.low, delta + found.high))


def _times(found: Sure, factor: float) -> Sure:
    if found.interval is None:
        return found
    low, high = found.interval
    return Sure((low * factor, high * factor))

"""The requests of one run, and what they say of its figures.

A request that was rejected, that failed or that did not finish is a miss: where runs are compared its latency is
infinite.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from math import inf
from typing import Any

import numpy as np

from simslm.comparison import series
from simslm.metrics.definitions import GOODPUT, LATENCIES, THROUGHPUT, TOKEN_GOODPUT
from simslm.metrics.figure_paths import OF_PATH
from simslm.metrics.quantiles import LEVELS
from simslm.plain import is_mapping, section_of

Columns = Mapping[str, np.ndarray]

OF_REQUESTS = tuple(metric.key for metric in LATENCIES if metric.key != "itl_s")
"""Latencies of which a request has one; gaps between tokens are pooled."""

RATES = (*(metric.key for metric in THROUGHPUT), GOODPUT.key, TOKEN_GOODPUT.key)
"""Figures per second of the makespan."""

COUNTED = ("finished", "rejected", "failed")

WARM = 0.1
"""Share of the time of arrivals after which a run is taken to be warm, for the steady rate."""


def figures(summary: Mapping[str, Any]) -> dict[str, float | None]:
    """Every figure of a summary by its path; None where it is null or the summary has none."""
    found: dict[str, float | None] = {}
    for path in OF_PATH:
        value: Any = summary
        for key in path.split("."):
            value = value.get(key) if is_mapping(value) else None
        found[path] = float(value) if isinstance(value, int | float) else None
    return found


def counted_rows(requests: Columns, summary: Mapping[str, Any]) -> np.ndarray:
    """The rows of the requests that a summary's figures are of, as they arrived: without warm-up and cool-down."""
    order = np.argsort(requests["arrival_s"], kind="stable")
    counted = section_of(summary, "counted")
    last = len(order) - int(counted.get("cooldown_requests", 0))
    return order[int(counted.get("warmup_requests", 0)) : last]


class Sampled:
    """The requests of one run, and what they say of its figures.

    Args:
        requests: columns over arrived requests, NaN where nothing happened; ``finished``, ``rejected`` and ``failed``
            are masks, of which the last two may be missing.
        summary: ``summary.json``.
        bounds: of the SLO, on latencies; None where there is none.
        order: the requests to take, by their rows, in order; None for those that the summary counts, as they arrived.
    """

    def __init__(
        self,
        requests: Columns,
        summary: Mapping[str, Any],
        bounds: Mapping[str, Any] | None = None,
        order: np.ndarray | None = None,
    ) -> None:
        self.order = counted_rows(requests, summary) if order is None else order
        self._requests, self._bounds = requests, bounds or {}
        self.summary = summary
        self.count = len(self.order)
        self.finished = requests["finished"][self.order].astype(bool)
        self.missed = ~self.finished

    @property
    def missed_share(self) -> float:
        """Which of the arrived requests did not finish."""
        return float(np.mean(self.missed)) if self.count else 0.0

    def column(self, name: str) -> np.ndarray:
        """A column in the order in which requests are taken."""
        return self._requests[name][self.order]

    def mask(self, name: str) -> np.ndarray | None:
        """Which requests have a status; None where the run does not say."""
        found = self._requests.get(name)
        return None if found is None else found[self.order].astype(float)

    @cached_property
    def figures(self) -> dict[str, float | None]:
        """Of the summary, by path; quantiles and maxima of latencies over all that arrived, with misses infinite, and
        means infinite where there are misses."""
        found = figures(self.summary)
        if self.missed.any():
            for key in OF_REQUESTS:
                values = self.latency(key)
                for name in ("mean", *LEVELS, "max"):
                    found[f"{key}.{name}"] = figure(values, LEVELS.get(name), name)
        return found

    def latency(self, key: str) -> np.ndarray:
        """A latency of each request; infinite where it did not finish, NaN where a request has none (TPOT of one
        token)."""
        values = self.column(key).astype(float).copy()
        values[self.missed & (self.column("output_tokens") > 1) if key == "tpot_s" else self.missed] = inf
        return values

    @cached_property
    def good(self) -> np.ndarray | None:
        """Which requests finished within every bound of the SLO; None without one, or where each class has its own."""
        stated = {key: self._bounds[key] for key in OF_REQUESTS if self._bounds.get(key) is not None}
        attained = section_of(self.summary, "slo").get("attainment")
        if not stated or attained is None or not self.count:
            return None
        good = self.finished.copy()
        for key, bound in stated.items():
            good &= ~(self.column(key) > bound)
        return good if abs(float(np.mean(good)) - attained) < 1e-9 else None

    @cached_property
    def memory(self) -> float:
        """The memory of the load, in requests: the autocorrelation time of the number in the system as each served
        request finds it."""
        if not self.finished.any():
            return 1.0
        arrival = self.column("arrival_s")
        left = np.sort((arrival + self.column("e2e_s"))[self.finished])
        sent = np.sort(arrival[self.finished])
        there = np.searchsorted(sent, arrival, side="right") - np.searchsorted(left, arrival)
        return series.memory(there.astype(float))

    @cached_property
    def takes_s(self) -> np.ndarray:
        """By how much each request moves the time at which all so far are over, seconds; their sum is the makespan."""
        arrival = self.column("arrival_s")
        over = np.where(self.finished, arrival + np.nan_to_num(self.column("e2e_s")), arrival)
        return np.diff(np.maximum.accumulate(over), prepend=np.min(arrival))

    def amount(self, path: str) -> np.ndarray | None:
        """What each request adds to a rate; None where the run has none."""
        output = np.nan_to_num(self.column("output_tokens"))
        total = output + np.nan_to_num(self.column("prompt_tokens"))
        one = np.ones(self.count)
        if path in (GOODPUT.key, TOKEN_GOODPUT.key):
            return None if self.good is None else self.good * (one if path == GOODPUT.key else output)
        weights = dict(zip((metric.key for metric in THROUGHPUT), (one, output, total), strict=True))
        return self.finished * weights[path]

    def steady_rate(self, amount: np.ndarray) -> float:
        """Of what is over between a tenth of the time of arrivals and the last arrival, per second: neither the first
        requests in an empty system nor the last ones that drain; NaN where all arrive at once."""
        arrival = self.column("arrival_s")
        begin, end = float(np.min(arrival)), float(np.max(arrival))
        begin += WARM * (end - begin)
        over = arrival + np.nan_to_num(self.column("e2e_s"), nan=inf)
        within = (over > begin) & (over <= end)
        return float(amount[within].sum()) / (end - begin) if end > begin else float("nan")


def figure(values: np.ndarray, level: float | None, name: str) -> float | None:
    """A statistic of some values, which may be infinite: the quantile at a level, the largest, else the mean."""
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    if level is not None:
        return quantile(np.sort(known), level)
    return float(np.max(known) if name == "max" else np.mean(known))


def quantile(ascending: np.ndarray, level: float) -> float:
    """A quantile by linear interpolation between order statistics, of values that may be infinite."""
    position = min(max(level, 0.0), 1.0) * (len(ascending) - 1)
    low, high = ascending[int(np.floor(position))], ascending[int(np.ceil(position))]
    part = position - np.floor(position)
    return float(low) if part == 0 or low == high else float(low + (high - low) * part)

"""How sure the difference of two runs is: each run is cut into ten consecutive sections, and they vary.

One figure of a run is one number; what it would have been under other requests shows in how it varies between
sections of the run. Requests of a run are no independent draws (they queue for the same device), so the sections,
each far longer than what one request does to the next, are the draws. Sectioning for figures of requests: the
interval is ``delta ± t · S / √m`` with ``S² = Σ (d_j − delta)² / (m − 1)`` over the differences ``d_j`` of the
figure in section ``j`` (Asmussen and Glynn 2007, "Stochastic Simulation", section III.5; for quantiles Nakayama
2014, ACM TOMACS 24(4), 19). Batch means for rates, the same over equal parts of the makespan (Law 2015,
"Simulation Modeling and Analysis", section 9.5.3). Pairing section by section is common random numbers (Law 2015,
section 11.2). Different requests are independent samples, with Welch's degrees of freedom.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, sqrt

import numpy as np

from simslm.comparison.delta import CONFIDENCE
from simslm.comparison.pairs import OF_REQUESTS, Run
from simslm.comparison.student import quantile, spread
from simslm.metrics.definitions import ATTAINMENT, GOODPUT, OF_PATH, THROUGHPUT, TOKEN_GOODPUT
from simslm.metrics.quantiles import LEVELS

SECTIONS = 10
LEAST = 10
"""Observations that each section needs for a mean; a quantile needs one beyond it on average as well."""

PAIRED = (
    "intervals: 95 %, paired; t over the differences in 10 consecutive sections of the requests (sectioning: Asmussen "
    "and Glynn 2007, III.5; for quantiles Nakayama 2014), for rates over 10 parts of the makespan (batch means: Law "
    "2015, 9.5.3)"
)
UNPAIRED = (
    "intervals: 95 %, unpaired; Welch's t over 10 consecutive sections of each run's requests (sectioning: Asmussen "
    "and Glynn 2007, III.5; for quantiles Nakayama 2014), for rates over 10 parts of each makespan (batch means: Law "
    "2015, 9.5.3)"
)
ONE_FIGURE = "one figure of a run: several seeds give an interval"
TOO_FEW = "too few requests for ten sections"


class Sectioned:
    """A run, cut into sections.

    Args:
        run: tables of it.

    Attributes:
        values: by path of a figure, its value in each section, shape ``(SECTIONS,)``.
        missing: by path, why there are none.
    """

    def __init__(self, run: Run) -> None:
        self.values: dict[str, np.ndarray] = {}
        self.missing: dict[str, str] = dict.fromkeys(OF_PATH, ONE_FIGURE)
        self._latencies(run)
        self._rates(run)

    def _put(self, path: str, values: np.ndarray) -> None:
        self.values[path] = values
        del self.missing[path]

    def _latencies(self, run: Run) -> None:
        for key in OF_REQUESTS:
            column = run.requests[key]
            parts = [part[np.isfinite(part)] for part in np.array_split(column, SECTIONS)]
            fewest = min(map(len, parts))
            for name, level in {"mean": None, **LEVELS}.items():
                path = f"{key}.{name}"
                if fewest < needed(level):
                    self.missing[path] = TOO_FEW
                elif level is None:
                    self._put(path, np.array([np.mean(part) for part in parts]))
                else:
                    self._put(path, np.array([np.quantile(part, level) for part in parts]))

    def _rates(self, run: Run) -> None:
        """Attainment over sections of the requests; throughput and goodput over parts of the makespan."""
        requests = run.requests
        if len(requests["arrival_s"]) < SECTIONS * LEAST:
            self.missing |= dict.fromkeys((*_RATES, ATTAINMENT.key), TOO_FEW)
            return
        everybody, output = requests["finished"], np.nan_to_num(requests["output_tokens"])
        total = output + np.nan_to_num(requests["prompt_tokens"])
        for metric, weight in zip(THROUGHPUT, (np.ones(len(output)), output, total), strict=True):
            self._put(metric.key, _windows(run, everybody, weight))
        attained = (run.summary.get("slo") or {}).get("attainment")
        good = met(run)
        if attained is None or good is None or abs(float(np.mean(good)) - attained) > 1e-9:
            return
        self._put(ATTAINMENT.key, np.array([np.mean(part) for part in np.array_split(good, SECTIONS)]))
        self._put(GOODPUT.key, _windows(run, good, np.ones(len(good))))
        self._put(TOKEN_GOODPUT.key, _windows(run, good, output))


_RATES = (*(metric.key for metric in THROUGHPUT), GOODPUT.key, TOKEN_GOODPUT.key)


def needed(level: float | None) -> int:
    """Observations that a section must hold for a quantile, or, without a level, for a mean."""
    return LEAST if level is None else max(LEAST, ceil(round(1 / (1 - level), 6)))


def met(run: Run) -> np.ndarray | None:
    """Which requests finished within every bound of the scenario's SLO; None where it states none."""
    bounds = run.manifest["scenario"].get("slo") or {}
    stated = {key: bounds[key] for key in OF_REQUESTS if bounds.get(key) is not None}
    if not stated:
        return None
    good = run.requests["finished"].copy()
    for key, bound in stated.items():
        good &= ~(run.requests[key] > bound)
    return good


def _windows(run: Run, mask: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """What finishes per second in each of equal parts of the makespan."""
    arrival, makespan = run.requests["arrival_s"], float(run.summary["makespan_s"])
    begin = float(np.min(arrival))
    done = (arrival + run.requests["e2e_s"])[mask]
    part = np.clip((done - begin) / (makespan or 1.0) * SECTIONS, 0, SECTIONS - 1).astype(int)
    return np.bincount(part, weight[mask], SECTIONS) / ((makespan or 1.0) / SECTIONS)


def paired_interval(delta: float, baseline: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Of a difference, from the figure in each section of both runs."""
    variance = spread((other - baseline).tolist(), delta)
    half = quantile(CONFIDENCE, SECTIONS - 1) * sqrt(variance / SECTIONS)
    return delta - half, delta + half


def unpaired_interval(
    delta: float, baseline: tuple[float, np.ndarray], other: tuple[float, np.ndarray]
) -> tuple[float, float]:
    """Of a difference of independent runs, each given as its figure and that of its sections."""
    first, second = (spread(values.tolist(), figure) / SECTIONS for figure, values in (baseline, other))
    return welch(delta, (first, SECTIONS), (second, SECTIONS))


def welch(delta: float, baseline: tuple[float, int], other: tuple[float, int]) -> tuple[float, float]:
    """The interval of a difference of two means (Welch 1947), each given as its variance and its sample size."""
    (first, n), (second, m) = baseline, other
    if not first + second:
        return delta, delta
    degrees = (first + second) ** 2 / (first**2 / (n - 1) + second**2 / (m - 1))
    half = quantile(CONFIDENCE, degrees) * sqrt(first + second)
    return delta - half, delta + half


def figures(summary: Mapping) -> dict[str, float | None]:
    """Every figure of a summary by its path; None where it is null or the summary has none."""
    found: dict[str, float | None] = {}
    for path in OF_PATH:
        value = summary
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        found[path] = float(value) if isinstance(value, int | float) else None
    return found

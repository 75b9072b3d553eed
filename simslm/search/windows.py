"""How sure the figures of one run are, where other seeds change nothing: it is cut into consecutive windows.

Batch means (Law 2015, "Simulation Modeling and Analysis", section 9.5.3): requests are no independent draws, for they
queue for the same device, but windows far longer than what one request does to the next nearly are. The interval is
``figure ± t · S / √m`` with ``S² = Σ (w_j − figure)² / (m − 1)`` over the figure ``w_j`` in window ``j`` of ``m``: how
it varies along the recorded traffic. A quantile needs ten requests beyond it in each window.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, sqrt
from typing import Any

import numpy as np

from simslm.comparison.student import quantile, spread
from simslm.metrics.definitions import ATTAINMENT, GOODPUT, LATENCIES, THROUGHPUT, TOKEN_GOODPUT
from simslm.metrics.quantiles import LEVELS
from simslm.metrics.result import Result
from simslm.sim.log import FINISHED

WINDOWS = 10
FEWEST = 10
"""Requests of a window beyond what is said of it."""

Columns = Mapping[str, np.ndarray]
Bounds = Mapping[str, float | None]


def half_widths(
    result: Result, paths: Sequence[str], bounds: Bounds, confidence: float = 0.95
) -> dict[str, float]:
    """Half the width of the interval of each figure that has one, by path.

    Args:
        result: of the run; its requests are held.
        paths: of figures.
        bounds: of the SLO, on latencies; empty without one.
        confidence: two-sided.
    """
    columns, found = result.request_columns, {}
    if len(columns["arrival_s"]) < WINDOWS * FEWEST:
        return {}
    for path in paths:
        values, figure = _values(columns, path, bounds), _figure(result, path)
        if values is None or figure is None or not isfinite(figure):
            continue
        variance = spread(values.tolist(), figure)
        found[path] = quantile(confidence, WINDOWS - 1) * sqrt(variance / WINDOWS)
    return found


def _figure(result: Result, path: str) -> float | None:
    value: Any = result.summary
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return None if value is None else float(value)


def _values(columns: Columns, path: str, bounds: Bounds) -> np.ndarray | None:
    """The figure in each window; None where windows do not tell it."""
    order = np.argsort(columns["arrival_s"], kind="stable")
    done = (columns["status"] == FINISHED)[order]
    key, _, statistic = path.rpartition(".")
    if key in OF_REQUESTS and done.all() and statistic != "max":
        return _of_latency(columns[key][order], LEVELS.get(statistic))
    good = _good(columns, bounds)[order]
    if path == ATTAINMENT.key and any(bound is not None for bound in bounds.values()):
        rarer = min(np.count_nonzero(good), np.count_nonzero(~good))
        return None if rarer < WINDOWS * FEWEST else _means(good.astype(float))
    weights = {
        **dict(zip((metric.key for metric in THROUGHPUT), _amounts(columns), strict=True)),
        GOODPUT.key: _good(columns, bounds) * 1.0,
        TOKEN_GOODPUT.key: _good(columns, bounds) * columns["output_tokens"],
    }
    return _per_second(columns, weights[path]) if path in weights else None


OF_REQUESTS = tuple(metric.key for metric in LATENCIES if metric.key != "itl_s")


def _of_latency(values: np.ndarray, level: float | None) -> np.ndarray | None:
    parts = [part[np.isfinite(part)] for part in np.array_split(values, WINDOWS)]
    fewest = min(map(len, parts))
    if level is None:
        return None if fewest < FEWEST else np.array([part.mean() for part in parts])
    if fewest * min(level, 1 - level) < FEWEST - 1e-9:
        return None
    return np.array([np.quantile(part, level) for part in parts])


def _means(values: np.ndarray) -> np.ndarray:
    return np.array([part.mean() for part in np.array_split(values, WINDOWS)])


def _good(columns: Columns, bounds: Bounds) -> np.ndarray:
    """Which requests finished within every bound."""
    good = columns["status"] == FINISHED
    for key, bound in bounds.items():
        if bound is not None:
            good = good & ~(columns[key] > bound)
    return good


def _amounts(columns: Columns) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What each finished request adds to the throughputs: itself, its output tokens, all its tokens."""
    done = (columns["status"] == FINISHED) * 1.0
    output = done * columns["output_tokens"]
    return done, output, output + done * columns["prompt_tokens"]


def _per_second(columns: Columns, amount: np.ndarray) -> np.ndarray:
    """What finishes per second in equal parts of the time from the first arrival to the last end."""
    done = columns["status"] == FINISHED
    end_s, begin = columns["finish_s"][done], float(columns["arrival_s"].min())
    length = (float(end_s.max()) - begin) / WINDOWS
    part = np.clip((end_s - begin) / length, 0, WINDOWS - 1).astype(int)
    return np.bincount(part, amount[done], WINDOWS) / length

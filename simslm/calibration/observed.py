"""The metrics of one simulation, and how much a second of each of its iterations adds to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from simslm.catalog.work import IterationShape
from simslm.runs.steady import counted_span, steady_span
from simslm.runs.table import MeasuredRun
from simslm.sim.log import SimulationLog

PER_TOKEN = {"output_tokens_per_s": "token_s", "steady_output_tokens_per_s": "steady_token_s"}
"""Rates, and the seconds a token that they are one over."""

BAND = 0.1
"""Share of the values on each side of a median whose iterations stand for it."""


@dataclass(frozen=True)
class Observed:
    """One simulation of a measured run.

    Attributes:
        table: the iterations, columns of :class:`IterationShape`, shape ``(iterations, fields)``.
        start_s, end_s: of each iteration.
        metrics: in seconds.
        weights: by metric, seconds that a second more of each iteration adds, shape ``(iterations,)``.
        output_tokens: of all requests.
        preemptions: how many there were.
    """

    table: np.ndarray
    start_s: np.ndarray
    end_s: np.ndarray
    metrics: Mapping[str, float]
    weights: Mapping[str, np.ndarray]
    output_tokens: int
    preemptions: int


@dataclass(frozen=True)
class _Requests:
    """The requests that count: when they arrived, and the iterations of their first and last token."""

    arrival_s: np.ndarray
    first: np.ndarray
    last: np.ndarray
    tokens: np.ndarray


def observed(run: MeasuredRun, log: SimulationLog, tokens: np.ndarray) -> Observed:
    """What a simulation of a run did.

    Args:
        run: its window says which requests count.
        log: all requests finished, on one replica.
        tokens: that each request puts out.
    """
    columns, requests = log.windows[0].columns, log.requests.columns()
    start, end = columns["start_s"], columns["end_s"]
    arrival, finish = np.asarray(log.arrival_s), requests["finish_s"]
    span = None if run.window is None else counted_span(run.window, arrival, finish)
    counts = np.ones(len(tokens), bool) if span is None else (finish > span[0]) & (arrival < span[1])
    of = _Requests(
        arrival[counts],
        np.searchsorted(end, requests["first_token_s"][counts]),
        np.searchsorted(end, finish[counts]),
        tokens[counts],
    )
    metrics, weights = _latencies(of, columns)
    last = int(np.searchsorted(end, finish.max()))
    metrics["duration_s"] = float(finish.max() - arrival.min())
    weights["duration_s"] = (np.arange(len(end)) <= last).astype(float)
    firsts = np.bincount(np.searchsorted(end, requests["first_token_s"]), minlength=len(end))
    emitted = columns["decoding"] + firsts
    spans = {"token_s": span, "steady_token_s": steady_span(run, requests["first_token_s"], finish)}
    for name, asked in spans.items():
        if asked is not None and (found := _per_token(emitted, end, asked)) is not None:
            metrics[name], weights[name] = found
    table = np.column_stack([columns[name] for name in IterationShape._fields])
    return Observed(
        table, start, end, metrics, weights, int(tokens.sum()), int(requests["preemptions"].sum())
    )


def _latencies(
    of: _Requests, columns: Mapping[str, np.ndarray]
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Mean and median TTFT, TPOT and ITL of some requests, and their weights."""
    start, end = columns["start_s"], columns["end_s"]
    count = len(end)
    ttft = end[of.first] - of.arrival_s
    alike = np.ones(len(ttft))
    metrics = {"ttft_mean_s": float(ttft.mean()), "ttft_p50_s": float(np.median(ttft))}
    weights = {
        "ttft_mean_s": _waited(of, start, end, alike),
        "ttft_p50_s": _waited(of, start, end, _middle(ttft, alike)),
    }
    several = of.tokens > 1
    if not several.any():
        return metrics, weights
    first, last, gaps = of.first[several], of.last[several], of.tokens[several] - 1
    tpot = (end[last] - end[first]) / gaps
    middle = _middle(tpot, np.ones(len(tpot)))
    metrics |= {
        "tpot_mean_s": float(tpot.mean()),
        "tpot_p50_s": float(np.median(tpot)),
        "itl_mean_s": float((end[last] - end[first]).sum() / gaps.sum()),
    }
    weights |= {
        "tpot_mean_s": _covered(first, last, 1.0 / gaps / len(gaps), count),
        "tpot_p50_s": _covered(first, last, middle / gaps / middle.sum(), count),
        "itl_mean_s": _covered(first, last, np.full(len(gaps), 1.0 / gaps.sum()), count),
    }
    if (median := _median_gap(of, columns)) is not None:
        metrics["itl_p50_s"], weights["itl_p50_s"] = median
    return metrics, weights


def _waited(of: _Requests, start: np.ndarray, end: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Iterations between arrivals and first tokens: of one under way at an arrival, the part that is left."""
    weight = weight / weight.sum()
    begun = np.minimum(np.searchsorted(end, of.arrival_s, side="right"), of.first)
    found = _covered(begun, of.first, weight, len(end))
    took = np.maximum(end[begun] - start[begun], 1e-12)
    left = np.clip((end[begun] - of.arrival_s) / took, 0.0, 1.0)
    np.add.at(found, begun, weight * left)
    return found


def _median_gap(of: _Requests, columns: Mapping[str, np.ndarray]) -> tuple[float, np.ndarray] | None:
    """The median gap between two tokens, and the iterations of the gaps around it.

    A gap ends with an iteration that decodes, and holds those since the one before that gave a token.
    """
    end, decoding = columns["end_s"], columns["decoding"]
    inside = (np.arange(len(end)) > of.first.min()) & (np.arange(len(end)) <= of.last.max())
    giving = np.flatnonzero((decoding > 0) & inside)
    if len(giving) < 2:
        return None
    before = np.concatenate([[giving[0] - 1], giving[:-1]])
    gaps, many = end[giving] - end[before], decoding[giving]
    weight = _middle(gaps, many)
    ranked = np.argsort(gaps)
    half = np.searchsorted(np.cumsum(many[ranked]), many.sum() / 2)
    return float(gaps[ranked][half]), _covered(before, giving, weight / weight.sum(), len(end))


def _middle(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The counts of the values around the median, 0 for the others."""
    ranked = np.argsort(values, kind="stable")
    share = (np.cumsum(counts[ranked]) - counts[ranked] / 2) / counts.sum()
    found = np.zeros(len(values))
    found[ranked] = np.where(np.abs(share - 0.5) <= BAND, counts[ranked], 0.0)
    if not found.any():
        found[ranked[np.argmin(np.abs(share - 0.5))]] = 1.0
    return found


def _per_token(
    emitted: np.ndarray, end: np.ndarray, span: tuple[float, float]
) -> tuple[float, np.ndarray] | None:
    """Seconds for each token put out in a stretch of time."""
    inside = (end > span[0]) & (end <= span[1])
    tokens = float(emitted[inside].sum())
    if tokens == 0:
        return None
    return (span[1] - span[0]) / tokens, inside / tokens


def _covered(after: np.ndarray, until: np.ndarray, weight: np.ndarray, count: int) -> np.ndarray:
    """Sum of the weights of those for whom an iteration comes after ``after`` and not after ``until``."""
    steps = np.zeros(count + 1)
    np.add.at(steps, after + 1, weight)
    np.add.at(steps, until + 1, -weight)
    return np.cumsum(steps)[:-1]

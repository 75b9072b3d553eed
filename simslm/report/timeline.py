"""What happened over simulated time, as step functions averaged into intervals.

Every average is the exact integral of the step function over its interval, and every peak the exact maximum
in it, so that thinning moves nothing and hides no spike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simslm.report.tables import Columns, RunTables, dig, figure_of

MAX_INTERVALS = 600
MAX_RATE_INTERVALS = 120


@dataclass(frozen=True, slots=True)
class Band:
    """One quantity over time: its time-weighted mean and its maximum in each interval, shape ``(n,)``."""

    mean: np.ndarray
    peak: np.ndarray


@dataclass(frozen=True, slots=True)
class Steps:
    """A step function: ``values[i]`` from ``times[i]`` up to ``times[i + 1]``, 0 before the first."""

    times: np.ndarray
    values: np.ndarray


@dataclass(frozen=True, slots=True)
class Timeline:
    """Quantities over simulated time, summed over replicas; idle time counts as 0.

    Attributes:
        edges_s: interval bounds, shape ``(n + 1,)``.
        running, waiting: requests in the system.
        decode_seqs: sequences decoding in the current iteration.
        kv_share: KV blocks used over KV blocks there are, 0 to 1; None when their number is unknown.
        power_w: watts with idle time at the mean idle power; None when the power is unknown.
        rate_edges_s: the coarser bounds of the rates, shape ``(m + 1,)``.
        output_rate: output tokens per second produced, shape ``(m,)``.
        offered_rate: output tokens per second that the arriving requests ask for, shape ``(m,)``; None when
            they arrive (nearly) at once.
        max_num_seqs: the batch limit of all replicas together, or None.
    """

    edges_s: np.ndarray
    running: Band
    waiting: Band
    decode_seqs: Band
    kv_share: Band | None
    power_w: Band | None
    rate_edges_s: np.ndarray
    output_rate: np.ndarray
    offered_rate: np.ndarray | None
    max_num_seqs: float | None


def timeline(run: RunTables) -> Timeline | None:
    """The timeline of a run, or None when no iteration ran."""
    iterations = run.iterations
    if not len(iterations["start_s"]):
        return None
    spans = Spans.of(iterations)
    begin, end = float(np.min(run.requests["arrival_s"])), float(np.max(spans.end))
    edges = np.linspace(begin, end, min(MAX_INTERVALS, len(spans.start)) + 1)
    rate_edges = np.linspace(
        begin, end, min(MAX_RATE_INTERVALS, max(20, len(run.requests["arrival_s"]) // 20)) + 1
    )

    def band(column: str, scale: float = 1.0) -> Band:
        return bands(spans.total(iterations[column] * scale), edges)

    replicas = replica_count(run)
    blocks = figure_of(run.summary, "kv.num_gpu_blocks")
    seqs = figure_of(run.scenario, "deployment.engine.max_num_seqs")
    return Timeline(
        edges_s=edges,
        running=band("running"),
        waiting=band("waiting"),
        decode_seqs=band("decode_seqs"),
        kv_share=band("kv_blocks_used", 1 / (blocks * replicas)) if blocks else None,
        power_w=_power(run, spans, edges),
        rate_edges_s=rate_edges,
        output_rate=_output_rate(run, spans, rate_edges),
        offered_rate=_offered_rate(run.requests, rate_edges),
        max_num_seqs=seqs * replicas if seqs else None,
    )


def replica_count(run: RunTables) -> int:
    """Replicas deployed, as far as the scenario says; never fewer than were seen to run."""
    seen = len(np.unique(run.iterations["replica"]))
    devices = figure_of(run.scenario, "deployment.num_devices") or 1
    per_device = figure_of(run.scenario, "deployment.replicas_per_device") or 1
    parallel = figure_of(run.scenario, "deployment.tensor_parallel_size") or 1
    deployed = int(devices * per_device / parallel) if dig(run.scenario, "deployment.groups") is None else 1
    return max(seen, deployed, 1)


@dataclass(frozen=True, slots=True)
class Spans:
    """The intervals of time in which something was true, their ends sorted once for many quantities.

    Attributes:
        start, end: seconds, shape ``(spans,)``.
        order: the order in time of all ends followed by all starts, ends first where both coincide.
        times: those times, ascending, without repetition.
        last: where the last event of each of ``times`` stands in the order.
    """

    start: np.ndarray
    end: np.ndarray
    order: np.ndarray
    times: np.ndarray
    last: np.ndarray

    @classmethod
    def between(cls, start: np.ndarray, end: np.ndarray) -> Spans:
        events = np.concatenate([end, start])
        order = np.argsort(events, kind="stable")
        events = events[order]
        last = np.append(events[1:] != events[:-1], True)
        return cls(start, end, order, events[last], last)

    @classmethod
    def of(cls, iterations: Columns) -> Spans:
        """The iterations of all replicas, none ending past the start of the same replica's next one.

        ``start + duration`` may exceed the next start by a rounding error; left so, a sum over replicas would
        show twice the truth at that instant.
        """
        start, replica = iterations["start_s"], iterations["replica"]
        order = np.lexsort((start, replica))
        same = replica[order][1:] == replica[order][:-1]
        follower = np.full(len(start), np.inf)
        follower[order[:-1][same]] = start[order[1:][same]]
        return cls.between(start, np.minimum(start + iterations["duration_s"], follower))

    def total(self, value: np.ndarray) -> Steps:
        """The sum over spans of ``value`` while each lasts, NaN as 0."""
        value = np.nan_to_num(value)
        total = np.cumsum(np.concatenate([-value, value])[self.order])
        return Steps(self.times, total[self.last])


def bands(steps: Steps, edges: np.ndarray) -> Band:
    """Mean and maximum of a step function in the intervals between ``edges`` (ascending, n + 1 of them)."""
    area = np.concatenate([[0.0], np.cumsum(steps.values[:-1] * np.diff(steps.times))])
    mean = np.diff(np.interp(edges, steps.times, area)) / np.diff(edges)
    at_edge = np.searchsorted(steps.times, edges[:-1], side="right") - 1
    entering = np.where(at_edge >= 0, steps.values[at_edge], 0.0)
    return Band(mean, np.maximum(entering, _peaks(steps, edges)))


def _peaks(steps: Steps, edges: np.ndarray) -> np.ndarray:
    """The maximum of the values that begin inside each interval, 0 where none does."""
    first = np.searchsorted(steps.times, edges[:-1], side="left")
    stop = np.searchsorted(steps.times, edges[1:], side="left")
    peaks = np.zeros(len(edges) - 1)
    some = stop > first
    if some.any():
        peaks[some] = np.maximum.reduceat(steps.values[: stop[-1]], first[some])
    return peaks


def _power(run: RunTables, spans: Spans, edges: np.ndarray) -> Band | None:
    """Watts over time; the mean idle power fills the gaps, so that the area is the run's energy."""
    watts = run.iterations["power_w"]
    if not np.isfinite(watts).any():
        return None
    idle_s = replica_count(run) * (edges[-1] - edges[0]) - float(np.sum(spans.end - spans.start))
    idle_w = (figure_of(run.summary, "energy.idle_j") or 0.0) / idle_s if idle_s > 0 else 0.0
    busy = bands(spans.total(watts - idle_w), edges)
    floor = idle_w * replica_count(run)
    return Band(busy.mean + floor, busy.peak + floor)


def _output_rate(run: RunTables, spans: Spans, edges: np.ndarray) -> np.ndarray:
    """Tokens per second: one per decoding sequence and iteration, plus the first token of every request."""
    length = spans.end - spans.start
    rate = np.divide(run.iterations["decode_seqs"], length, out=np.zeros_like(length), where=length > 0)
    decoded = bands(spans.total(rate), edges).mean
    first = run.requests["first_token_s"]
    return decoded + np.histogram(first[np.isfinite(first)], edges)[0] / np.diff(edges)


def _offered_rate(requests: Columns, edges: np.ndarray) -> np.ndarray | None:
    arrival = requests["arrival_s"]
    if np.ptp(arrival) < 0.2 * np.ptp(edges):
        return None
    tokens = np.nan_to_num(requests["output_tokens"])
    return np.histogram(arrival, edges, weights=tokens)[0] / np.diff(edges)

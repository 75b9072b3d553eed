"""What happened over simulated time, as step functions averaged into intervals.

Every average is the exact integral of the step function over its interval, and every peak the exact maximum
in it, so that thinning moves nothing and hides no spike.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from simslm.report.limits import replicas_of
from simslm.report.objective import good
from simslm.report.tables import Columns, RunTables, dig, figure_of

MAX_INTERVALS = 1000
MAX_RATE_INTERVALS = 120
MAX_REPLICAS = 64
"""Replicas that have a timeline of their own; of more, those with the most iterations."""

ALL_POINTS = 30_000
"""Intervals of all timelines together, unless that left each with fewer than :data:`MIN_INTERVALS`."""

MIN_INTERVALS = 200


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
    """Quantities over simulated time, of one replica or summed over all; idle time counts as 0.

    Attributes:
        edges_s: interval bounds, evenly apart, shape ``(n + 1,)``.
        running, waiting: requests in the system.
        decode_seqs: sequences decoding in the current iteration.
        kv_share: KV blocks used over KV blocks there are, 0 to 1; None when their number is unknown.
        power_w: watts with idle time at the mean idle power; None when the power is unknown.
        rate_edges_s: the coarser bounds of the rates, shape ``(m + 1,)``.
        output_rate: output tokens per second produced, shape ``(m,)``.
        offered_rate: output tokens per second that the arriving requests ask for, shape ``(m,)``; None when
            they arrive (nearly) at once.
        finished_rate: requests per second that finish, shape ``(m,)``.
        good_rate: those of them that met the SLO, shape ``(m,)``; None when no SLO is stated.
        max_num_seqs: the batch limit of the replicas together, or None.
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
    finished_rate: np.ndarray
    good_rate: np.ndarray | None
    max_num_seqs: float | None


def timelines(run: RunTables) -> tuple[Timeline, dict[int, Timeline]] | None:
    """The timeline of all replicas together and, where there are several, of each; None when no iteration ran."""
    if not len(run.iterations["start_s"]):
        return None
    numbers, counts = np.unique(run.iterations["replica"], return_counts=True)
    shown = np.sort(numbers[np.argsort(-counts, kind="stable")[:MAX_REPLICAS]]).astype(int).tolist()
    share = ALL_POINTS // (1 + len(shown))
    most = min(MAX_INTERVALS, max(MIN_INTERVALS, share), len(run.iterations["start_s"]))
    begin = float(np.min(run.requests["arrival_s"]))
    end = float(np.max(run.iterations["start_s"] + run.iterations["duration_s"]))
    edges = np.linspace(begin, end, most + 1)
    rates = min(MAX_RATE_INTERVALS, max(20, len(run.requests["arrival_s"]) // 20))
    view = _View(edges, np.linspace(begin, end, rates + 1), idle_power_w(run, end - begin), good(run))
    whole = view.of(run, replica_count(run))
    if len(numbers) == 1:
        return whole, {}
    return whole, {number: view.of(_only(run, number), 1, _at(run, number)) for number in shown}


def _at(run: RunTables, replica: int) -> np.ndarray:
    return run.requests["replica"] == replica


def _only(run: RunTables, replica: int) -> RunTables:
    """The iterations and the requests of one replica."""
    mine, served = run.iterations["replica"] == replica, _at(run, replica)
    return replace(
        run,
        iterations={name: column[mine] for name, column in run.iterations.items()},
        requests={name: column[served] for name, column in run.requests.items()},
    )


def idle_power_w(run: RunTables, span_s: float) -> float:
    """Mean power of a replica while it does not iterate; 0 where unknown or where none ever idles."""
    if run.excerpt is None:
        idle_s = replica_count(run) * span_s - float(np.sum(run.iterations["duration_s"]))
    else:
        span_s = figure_of(run.summary, "makespan_s") or 0.0
        idle_s = replica_count(run) * span_s * (1 - (figure_of(run.summary, "utilization.busy") or 0.0))
    idle_j = figure_of(run.summary, "energy.idle_j") or 0.0
    return idle_j / idle_s if idle_s > 1e-9 * span_s else 0.0


@dataclass(frozen=True, slots=True)
class _View:
    """What the timelines of a run share: the bounds of their intervals, idle power, and which requests were good."""

    edges_s: np.ndarray
    rate_edges_s: np.ndarray
    idle_w: float
    good: np.ndarray | None

    def of(self, run: RunTables, replicas: int, served: np.ndarray | None = None) -> Timeline:
        """The timeline of so many replicas; ``served`` says which of all requests are theirs."""
        spans = Spans.of(run.iterations)
        blocks = figure_of(run.summary, "kv.num_gpu_blocks")
        seqs = figure_of(run.scenario, "deployment.engine.max_num_seqs")
        met = self.good if self.good is None or served is None else self.good[served]

        def band(column: str, scale: float = 1.0) -> Band:
            return bands(spans.total(run.iterations[column] * scale), self.edges_s)

        return Timeline(
            edges_s=self.edges_s,
            running=band("running"),
            waiting=band("waiting"),
            decode_seqs=band("decode_seqs"),
            kv_share=band("kv_blocks_used", 1 / (blocks * replicas)) if blocks else None,
            power_w=self._power(run, spans, replicas),
            rate_edges_s=self.rate_edges_s,
            output_rate=self._output_rate(run, spans),
            offered_rate=self._offered_rate(run.requests),
            finished_rate=self._rate(run.requests["finish_s"]),
            good_rate=None if met is None else self._rate(run.requests["finish_s"][met]),
            max_num_seqs=seqs * replicas if seqs else None,
        )

    def _power(self, run: RunTables, spans: Spans, replicas: int) -> Band | None:
        """Watts over time; the mean idle power fills the gaps, so that the area is the run's energy."""
        watts = run.iterations["power_w"]
        if not np.isfinite(watts).any():
            return None
        # What each iteration draws beyond idling: gaps then need no spans of their own.
        busy, floor = bands(spans.total(watts - self.idle_w), self.edges_s), self.idle_w * replicas
        return Band(busy.mean + floor, busy.peak + floor)

    def _output_rate(self, run: RunTables, spans: Spans) -> np.ndarray:
        """Tokens per second: one per decoding sequence and iteration, the drafted ones that were accepted, and the
        first of every request."""
        length = spans.end - spans.start
        emitted = run.iterations["decode_seqs"] + run.iterations["accepted_tokens"]
        rate = np.divide(emitted, length, out=np.zeros_like(length), where=length > 0)
        return bands(spans.total(rate), self.rate_edges_s).mean + self._rate(run.requests["first_token_s"])

    def _offered_rate(self, requests: Columns) -> np.ndarray | None:
        arrival = requests["arrival_s"]
        # A burst would be one spike that flattens everything else.
        if not len(arrival) or np.ptp(arrival) < 0.2 * np.ptp(self.edges_s):
            return None
        return self._rate(arrival, np.nan_to_num(requests["output_tokens"]))

    def _rate(self, times: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        """Events per second in each of the coarser intervals."""
        known = np.isfinite(times)
        counted = np.histogram(
            times[known], self.rate_edges_s, weights=None if weights is None else weights[known]
        )
        return counted[0] / np.diff(self.rate_edges_s)


def replica_count(run: RunTables) -> int:
    """Replicas deployed, as far as the manifest says; never fewer than were seen to run."""
    seen = len(np.unique(run.iterations["replica"]))
    devices = figure_of(run.scenario, "deployment.num_devices") or 1
    per_device = figure_of(run.scenario, "deployment.replicas_per_device") or 1
    parallel = figure_of(run.scenario, "deployment.tensor_parallel_size") or 1
    deployed = int(devices * per_device / parallel) if dig(run.scenario, "deployment.groups") is None else 1
    deployed = sum(replicas_of(run)) or deployed
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
        # Ends before starts: with a stable sort a span that ends where the next begins is gone before that one
        # counts, and no instant shows both.
        events = np.concatenate([end, start])
        order = np.argsort(events, kind="stable")
        events = events[order]
        # Of several events at one instant only the sum after the last is a value of the function.
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
    # The integral is a line between the steps, so interpolating it gives every average exactly.
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

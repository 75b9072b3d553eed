"""A stretch of a replica's log as arrays: one row per iteration, expanded from the spans the loop noted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

Columns = dict[str, np.ndarray]

_TIMING = ("iterations", "start_s", "end_s", "origin_s", "first_s", "growth_s", "done")


@dataclass(frozen=True)
class Window:
    """The iterations of one replica since its last window, expanded to one row each when they are asked for.

    Attributes:
        spans: one row per run of iterations, see :class:`~simslm.sim.log.ReplicaLog`.
        chunks: pieces of prompts; ``iteration`` counts from the window's first.
        stays: decodings of requests that ended in the window; decode iterations count from the run's first.
        open_stays: those that go on.
        gaps: times between two tokens of one request that are not two decode iterations in a row, in seconds.
        gap_ends_s: when the second of the two was out.
        late: iterations, counted from the window's first, that began with one more waiting than their span noted.
        decoded_before: decode iterations of the replica before the window.
        emitted: tokens that prefills emitted.
        block_size: tokens in a KV block.
        held: sequences that did not grow, like stays, those included that do not grow at the window's end.
        lingered: rows computed for sequences that had their last token already, like chunks of one token.
        whole: whether answers go out whole; else tokens do, as they are computed.
        levels: the level of the clock, and the iteration from which on, counted from the window's first; level 0 before
            the first of them.
    """

    spans: Columns
    chunks: Columns
    stays: Columns
    open_stays: Columns
    gaps: np.ndarray
    gap_ends_s: np.ndarray
    late: np.ndarray
    decoded_before: int
    emitted: int
    block_size: int
    held: Columns
    lingered: Columns
    whole: bool
    levels: tuple[tuple[int, int], ...] = ()

    def __len__(self) -> int:
        return int(self.spans["iterations"].sum())

    @property
    def decode_iterations(self) -> int:
        """How many of the iterations decode."""
        return int(self.spans["iterations"][self.spans["decoding"] > 0].sum())

    @cached_property
    def columns(self) -> Columns:
        """One array per column of ``iterations.parquet`` that the loop knows, plus ``prefill_pairs``, ``unread_seqs``,
        ``decoding``
        (sequences that emit a token), ``starting`` (those of them that decode for the first time since their
        prefill) and ``end_s``; each of shape ``(n,)``."""
        spans = self.spans
        count = spans["iterations"].astype(np.int64)
        first = np.cumsum(count) - count
        columns = {name: np.repeat(column, count) for name, column in spans.items() if name not in _TIMING}
        offset = np.arange(len(columns["waiting"])) - np.repeat(first, count)
        columns["start_s"], columns["end_s"] = _times(spans, count, first, offset)
        columns["decode_ctx_tokens"] += offset * columns["decode_seqs"]
        columns["starting"] *= offset == 0
        columns["waiting"] += _late(self.late, first, count)
        decoding = columns["decoding"] > 0
        both = {name: np.concatenate([self.stays[name], self.open_stays[name]]) for name in self.stays}
        taken = np.zeros(len(decoding))
        iterations = int(decoding.sum())
        taken[decoding] = _growth(both, self.decoded_before, iterations, self.block_size)
        if len(self.held["phase"]):
            taken[decoding] -= _growth(self.held, self.decoded_before, iterations, self.block_size)
            columns["decode_ctx_tokens"][decoding] -= offset[decoding] * self._not_growing(iterations)
        columns["kv_blocks_used"] += _since(taken, first, count)
        return columns

    def _not_growing(self, iterations: int) -> np.ndarray:
        """How many sequences keep their place but do not grow in each decode iteration of the window."""
        steps = np.zeros(iterations + 1)
        for name, change in (("decode_from", 1.0), ("decode_to", -1.0)):
            at = np.maximum(self.held[name].astype(np.int64) - self.decoded_before, 0)
            np.add.at(steps, np.minimum(at, iterations), change)
        return np.cumsum(steps)[:-1]


def _times(
    spans: Columns, count: np.ndarray, first: np.ndarray, offset: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends of all iterations, by the formula of :meth:`~simslm.sim.span.Span.end` in the same order."""
    origin, latency, growth = (np.repeat(spans[name], count) for name in ("origin_s", "first_s", "growth_s"))
    number = np.repeat(spans["done"].astype(np.int64), count) + offset + 1
    ends = origin + (number * latency + (number * (number - 1) // 2) * growth)
    ends[first + count - 1] = spans["end_s"]
    starts = np.empty_like(ends)
    starts[1:] = ends[:-1]
    starts[first] = spans["start_s"]
    return starts, ends


def _late(late: np.ndarray, first: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Arrivals that joined a queue which was blocked, from the iteration after theirs to the span's end."""
    steps = np.zeros(int(count.sum()) + 1)
    if len(late):
        span_end = (first + count)[np.searchsorted(first, late, side="right") - 1]
        np.add.at(steps, late, 1.0)
        np.add.at(steps, span_end, -1.0)
    return np.cumsum(steps)[:-1]


def _since(taken: np.ndarray, first: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Sum of ``taken`` from the beginning of each iteration's span up to the iteration."""
    total = np.cumsum(taken)
    return total - np.repeat(total[first] - taken[first], count)


def _growth(stays: Columns, before: int, iterations: int, size: int) -> np.ndarray:
    """Blocks taken in each of the decode iterations from ``before`` on: one for every stay whose phase it is.

    A stay takes a block every ``size`` decode iterations: in a table with so many columns it is a run down one
    column, counted by its two ends.
    """
    grows = stays["phase"] >= 0
    start, stop, phase = (
        stays[name][grows].astype(np.int64) for name in ("decode_from", "decode_to", "phase")
    )
    start = np.maximum(start, before) - before
    stop, phase = np.maximum(stop - before, 0), (phase - before) % size
    rows = -(-iterations // size) + 1
    table = np.zeros((rows, size), dtype=np.int64)
    np.add.at(table, (-(-(start - phase) // size), phase), 1)
    np.add.at(table, (-(-(stop - phase) // size), phase), -1)
    return np.cumsum(table, axis=0).ravel()[:iterations]

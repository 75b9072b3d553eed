"""What a simulation leaves behind: columns, appended to in the loop and read as arrays afterwards.

Per-token times are not stored. A request decodes in consecutive decode iterations of its replica, so a *stay*
(first decode iteration, and the one after the last) says when its tokens came. Between two decode iterations the
gap is the same for everybody in both; the gaps that are a request's own, before its first decode iteration and
across a preemption, are stored one by one.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from struct import Struct

import numpy as np

SPAN_FIELDS = (
    "iterations",
    "start_s",
    "end_s",
    "origin_s",
    "first_s",
    "growth_s",
    "done",
    "decode_seqs",
    "decode_ctx_tokens",
    "prefill_seqs",
    "prefill_tokens",
    "prefill_ctx_tokens",
    "prefill_pairs",
    "waiting",
    "running",
    "decoding",
    "starting",
    "kv_blocks_used",
)
CHUNK_FIELDS = ("iteration", "request_id", "tokens")
STAY_FIELDS = ("request_id", "decode_from", "decode_to", "phase")

PACK_SPAN = Struct(f"{len(SPAN_FIELDS)}d").pack
PACK_CHUNK = Struct(f"{len(CHUNK_FIELDS)}d").pack
PACK_STAY = Struct(f"{len(STAY_FIELDS)}d").pack
"""Rows as bytes: appending them is several times faster than appending numbers one by one."""

FINISHED, REJECTED, FAILED, UNFINISHED = range(4)
STATUS = ("finished", "rejected", "failed", "unfinished")
"""Names of the status codes, in ``requests.parquet``."""


class ReplicaLog:
    """The iterations of one replica, its prompt chunks, and when its requests decoded.

    Attributes:
        spans: packed, ``len(SPAN_FIELDS)`` numbers for each run of iterations of one batch; the shape is what the
            device runs, padding included, ``decoding`` counts the sequences that emit a token, ``starting``
            those of them that do so for the first time since their prefill, in the span's first iteration, and
            ``kv_blocks_used`` the blocks held before anybody takes more to decode. For the times between
            ``start_s`` and ``end_s`` see :class:`~simslm.sim.span.Span`.
        count: iterations so far.
        chunks: packed, ``len(CHUNK_FIELDS)`` numbers for each piece of a prompt.
        stays: packed, ``len(STAY_FIELDS)`` numbers for each uninterrupted decoding of a request, when it ends;
            ``phase`` is when it took new blocks, see :class:`~simslm.sim.blocks.BlockPool`, -1 for never.
        block_size: tokens in a KV block.
        gaps: times between two tokens of one request that are not two decode iterations in a row, in seconds.
        late: iterations that began with one more request waiting than their span noted.
        emitted: tokens that prefills emitted.
    """

    __slots__ = ("block_size", "chunks", "count", "emitted", "gaps", "late", "spans", "stays")

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self.spans = bytearray()
        self.count = 0
        self.chunks = bytearray()
        self.stays = bytearray()
        self.gaps = array("d")
        self.late = array("q")
        self.emitted = 0

    def iterations(self) -> dict[str, np.ndarray]:
        """One array per column of ``iterations.parquet`` that the loop knows, plus ``prefill_pairs``; ``(n,)``."""
        spans = table(self.spans, SPAN_FIELDS)
        count = spans["iterations"].astype(np.int64)
        first = np.cumsum(count) - count
        columns = {name: np.repeat(spans[name], count) for name in SPAN_FIELDS[7:]}
        offset = np.arange(len(columns["waiting"])) - np.repeat(first, count)
        ends = _ends(spans, count, offset)
        ends[first + count - 1] = spans["end_s"]
        starts = np.empty_like(ends)
        starts[1:] = ends[:-1]
        starts[first] = spans["start_s"]
        columns["decode_ctx_tokens"] += offset * columns["decode_seqs"]
        columns["starting"] *= offset == 0
        columns["waiting"] += self._late(first, count)
        columns["kv_blocks_used"] += self._grown(columns["decoding"] > 0, first, count)
        return columns | {"start_s": starts, "end_s": ends}

    def _grown(self, decoding: np.ndarray, first: np.ndarray, count: np.ndarray) -> np.ndarray:
        """Blocks taken to decode since each iteration's span began, its own included."""
        taken = np.zeros(len(decoding))
        taken[decoding] = self._growth(int(decoding.sum()))
        total = np.cumsum(taken)
        before = total[first] - taken[first]
        return total - np.repeat(before, count)

    def _growth(self, iterations: int) -> np.ndarray:
        """Blocks taken in each decode iteration: one for every stay whose phase it is.

        A stay takes a block every ``block_size`` decode iterations: in a table with so many columns it is a run
        down one column, counted by its two ends.
        """
        size = self.block_size
        stays = {name: column.astype(np.int64) for name, column in self.stay_table().items()}
        grows = stays["phase"] >= 0
        start, stop, phase = (stays[name][grows] for name in ("decode_from", "decode_to", "phase"))
        rows = -(-iterations // size) + 1
        table = np.zeros((rows, size), dtype=np.int64)
        np.add.at(table, (-(-(start - phase) // size), phase), 1)
        np.add.at(table, (-(-(stop - phase) // size), phase), -1)
        return np.cumsum(table, axis=0).ravel()[:iterations]

    def _late(self, first: np.ndarray, count: np.ndarray) -> np.ndarray:
        """Arrivals that joined a queue which was blocked, from the iteration after theirs to the span's end."""
        late = np.frombuffer(self.late, dtype=np.int64)
        steps = np.zeros(int(count.sum()) + 1)
        if len(late):
            span_end = (first + count)[np.searchsorted(first, late, side="right") - 1]
            np.add.at(steps, late, 1.0)
            np.add.at(steps, span_end, -1.0)
        return np.cumsum(steps)[:-1]

    def chunk_table(self) -> dict[str, np.ndarray]:
        return table(self.chunks, CHUNK_FIELDS)

    def stay_table(self) -> dict[str, np.ndarray]:
        return table(self.stays, STAY_FIELDS)


class RequestLog:
    """What became of every request; one entry per row of the workload, NaN or -1 where nothing happened."""

    __slots__ = (
        "cached_prompt_tokens",
        "finish_s",
        "first_scheduled_s",
        "first_token_s",
        "preemptions",
        "replica",
        "status",
    )

    def __init__(self, count: int) -> None:
        nothing = float("nan")
        self.replica = array("q", [-1]) * count
        self.first_scheduled_s = array("d", [nothing]) * count
        self.first_token_s = array("d", [nothing]) * count
        self.finish_s = array("d", [nothing]) * count
        self.preemptions = array("q", [0]) * count
        self.cached_prompt_tokens = array("q", [0]) * count
        self.status = array("b", [UNFINISHED]) * count

    def columns(self) -> dict[str, np.ndarray]:
        return {name: np.array(getattr(self, name)) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class SimulationLog:
    """A finished (or interrupted) simulation.

    Attributes:
        arrival_s: when each request arrived, shape ``(requests,)``; NaN for those that never did.
        requests: what became of each.
        replicas: one log per replica.
        events: events that SimPy processed.
        interrupted: whether it was stopped before the last request was done.
    """

    arrival_s: np.ndarray
    requests: RequestLog
    replicas: tuple[ReplicaLog, ...]
    events: int
    interrupted: bool


def _ends(spans: dict[str, np.ndarray], count: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Ends of all iterations, by the formula of :meth:`~simslm.sim.span.Span.end`, in the same order of operations."""
    origin, first, growth = (np.repeat(spans[name], count) for name in ("origin_s", "first_s", "growth_s"))
    number = np.repeat(spans["done"].astype(np.int64), count) + offset + 1
    return origin + (number * first + (number * (number - 1) // 2) * growth)


def table(packed: bytearray, fields: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The columns of packed rows."""
    rows = np.frombuffer(packed, dtype=np.float64).reshape(-1, len(fields))
    return {name: rows[:, i].copy() for i, name in enumerate(fields)}

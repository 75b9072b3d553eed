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

from simslm.sim.window import Window, make_window

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

    __slots__ = (
        "_taken",
        "_taken_decodes",
        "block_size",
        "chunks",
        "count",
        "emitted",
        "gaps",
        "late",
        "spans",
        "stays",
    )

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self.spans = bytearray()
        self.count = 0
        self.chunks = bytearray()
        self.stays = bytearray()
        self.gaps = array("d")
        self.late = array("q")
        self.emitted = 0
        self._taken = 0
        self._taken_decodes = 0

    def take(self, open_stays: bytes) -> Window:
        """Everything since the last call, as arrays; the log goes on from here.

        Args:
            open_stays: packed like ``stays``, for the sequences that decode now.
        """
        window = make_window(
            self.block_size,
            table(self.spans, SPAN_FIELDS),
            table(self.chunks, CHUNK_FIELDS),
            table(self.stays, STAY_FIELDS),
            table(open_stays, STAY_FIELDS),
            np.array(self.gaps),
            np.array(self.late, dtype=np.int64),
            self._taken,
            self._taken_decodes,
            self.emitted,
        )
        self._taken = self.count
        self._taken_decodes += int(np.count_nonzero(window.columns["decoding"]))
        self.spans, self.chunks, self.stays = bytearray(), bytearray(), bytearray()
        self.gaps, self.late = array("d"), array("q")
        self.emitted = 0
        return window


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
        windows: the iterations of each replica, in the order of the replicas; those already handed out during
            the run are not among them.
        events: events that SimPy processed.
        interrupted: whether it was stopped before the last request was done.
    """

    arrival_s: np.ndarray
    requests: RequestLog
    windows: tuple[Window, ...]
    events: int
    interrupted: bool


def table(packed: bytes | bytearray, fields: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The columns of packed rows."""
    rows = np.frombuffer(bytes(packed), dtype=np.float64).reshape(-1, len(fields))
    return {name: rows[:, i].copy() for i, name in enumerate(fields)}

"""What a simulation leaves behind: columns, appended to in the loop and read as arrays afterwards.

Per-token times are not stored. A request decodes in consecutive decode iterations of its replica, so a *stay*
(first decode iteration, and the one after the last) says when its tokens came. Between two decode iterations the
gap is the same for everybody in both; the gaps that are a request's own, before its first decode iteration and
across a preemption, are stored one by one.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np

SPAN_FIELDS = (
    "iterations",
    "start_s",
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
)
CHUNK_FIELDS = ("iteration", "request_id", "tokens")
STAY_FIELDS = ("request_id", "decode_from", "decode_to")

FINISHED, REJECTED, FAILED, UNFINISHED = range(4)
STATUS = ("finished", "rejected", "failed", "unfinished")
"""Names of the status codes, in ``requests.parquet``."""


class ReplicaLog:
    """The iterations of one replica, its prompt chunks, and when its requests decoded.

    Attributes:
        spans: flat, ``len(SPAN_FIELDS)`` numbers for each run of iterations of one batch; the shape is what the
            device runs, padding included, ``decoding`` counts the sequences that emit a token, ``starting``
            those of them that do so for the first time since their prefill, in the span's first iteration.
        ends: end of every iteration, in seconds.
        used_blocks: KV blocks held during every iteration.
        chunks: flat, ``len(CHUNK_FIELDS)`` numbers for each piece of a prompt.
        stays: flat, ``len(STAY_FIELDS)`` numbers for each uninterrupted decoding of a request, when it ends.
        gaps: times between two tokens of one request that are not two decode iterations in a row, in seconds.
        late: iterations that began with one more request waiting than their span noted.
        emitted: tokens that prefills emitted.
    """

    __slots__ = ("chunks", "emitted", "ends", "gaps", "late", "spans", "stays", "used_blocks")

    def __init__(self) -> None:
        self.spans = array("d")
        self.ends = array("d")
        self.used_blocks = array("q")
        self.chunks = array("d")
        self.stays = array("d")
        self.gaps = array("d")
        self.late = array("q")
        self.emitted = 0

    def iterations(self) -> dict[str, np.ndarray]:
        """One array per column of ``iterations.parquet`` that the loop knows, plus ``prefill_pairs``; ``(n,)``."""
        spans = table(self.spans, SPAN_FIELDS)
        count = spans["iterations"].astype(np.int64)
        first = np.cumsum(count) - count
        ends = np.frombuffer(self.ends, dtype=np.float64)
        columns = {name: np.repeat(spans[name], count) for name in SPAN_FIELDS[2:]}
        starts = np.empty_like(ends)
        starts[1:] = ends[:-1]
        starts[first] = spans["start_s"]
        offset = np.arange(len(ends)) - np.repeat(first, count)
        columns["decode_ctx_tokens"] += offset * columns["decode_seqs"]
        columns["starting"] *= offset == 0
        columns["waiting"] += self._late(first, count)
        columns |= {"start_s": starts, "end_s": ends}
        columns["kv_blocks_used"] = np.frombuffer(self.used_blocks, dtype=np.int64)
        return columns

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


def table(flat: array, fields: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The columns of a flat array of rows."""
    rows = (
        np.frombuffer(flat, dtype=np.float64).reshape(-1, len(fields)) if flat else np.empty((0, len(fields)))
    )
    return {name: rows[:, i].copy() for i, name in enumerate(fields)}

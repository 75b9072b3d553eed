"""What a simulation leaves behind: columns, appended to in the loop and read as arrays afterwards.

Per-token times are not stored. A request decodes in consecutive decode iterations of its replica, so a *stay*
(first decode iteration, and the one after the last) says when its tokens came. Between two decode iterations the
gap is the same for every sequence in both; the gaps that are a request's own, before its first decode iteration and
across a preemption, are stored one by one.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from struct import Struct

import numpy as np

from simslm.sim.log.window import Window

SPAN = np.dtype(
    [
        ("iterations", "<i8"),
        ("start_s", "<f8"),
        ("end_s", "<f8"),
        ("origin_s", "<f8"),
        ("first_s", "<f8"),
        ("growth_s", "<f8"),
        ("done", "<i8"),
        ("decode_seqs", "<i8"),
        ("decode_ctx_tokens", "<i8"),
        ("prefill_seqs", "<i8"),
        ("prefill_tokens", "<i8"),
        ("prefill_ctx_tokens", "<i8"),
        ("prefill_pairs", "<f8"),
        ("unread_seqs", "<i8"),
        ("draft_tokens", "<i8"),
        ("prefill_layers", "<f8"),
        ("waiting", "<i8"),
        ("running", "<i8"),
        ("decoding", "<i8"),
        ("accepted_tokens", "<i8"),
        ("starting", "<i8"),
        ("kv_blocks_used", "<i8"),
    ]
)
CHUNK = np.dtype([("iteration", "<i8"), ("request_id", "<i8"), ("tokens", "<i8")])
STAY = np.dtype([("request_id", "<i8"), ("decode_from", "<i8"), ("decode_to", "<i8"), ("phase", "<i8")])


def packer(row: np.dtype) -> Callable[..., bytes]:
    """Packs the numbers of one row to bytes: appending those is several times faster than number by number."""
    fields = (row[name] for name in row.names or ())
    return Struct("<" + "".join("q" if field.kind == "i" else "d" for field in fields)).pack


PACK_SPAN, PACK_CHUNK, PACK_STAY = packer(SPAN), packer(CHUNK), packer(STAY)

WINDOW_BYTES = 1 << 22
"""Size of the packed spans at which a log is full: about 29,000 spans."""


class ReplicaLog:
    """The iterations of one replica, its prompt chunks, and when its requests decoded.

    Attributes:
        spans: packed :data:`SPAN` rows, one for each run of iterations of one batch; the shape is what the
            device runs, padding included, ``decoding`` counts the sequences that emit a token,
            ``accepted_tokens`` the drafted ones that they emit beside it, ``starting``
            those of them that do so for the first time since their prefill, in the span's first iteration, and
            ``kv_blocks_used`` the blocks held before more are taken to decode. For the times between
            ``start_s`` and ``end_s`` see :class:`~simslm.sim.span.Span`.
        count: iterations so far.
        chunks: packed :data:`CHUNK` rows, one for each piece of a prompt.
        stays: packed :data:`STAY` rows, one for each uninterrupted decoding of a request, when it ends;
            ``phase`` is when it took new blocks, see :class:`~simslm.sim.state.blocks.BlockPool`, -1 for never.
        block_size: tokens in a KV block.
        gaps: times between two tokens of one request that are not two decode iterations in a row, in seconds, each
            followed by when the second token was out.
        late: iterations that began with one more request waiting than their span noted.
        emitted: tokens that prefills emitted.
        whole: answers go out whole: what lies between two iterations is no gap between two tokens.
        held: packed like ``stays``: from which decode iteration to which a sequence kept its place in the batch but did
            not grow, and the phase in which it would have taken blocks; empty where all sequences keep all tokens.
        open_held: those that do not grow now, when the log is taken.
        levels: when the cost of iterations changed: the first iteration of each, and the level of the clock from there.
        lingered: packed :data:`CHUNK` rows of one token each: the rows that iterations computed for sequences that had
            their last token already, see ``late_output`` of :class:`~simslm.sim.engine.EngineConfig`.
    """

    __slots__ = (
        "_taken",
        "_taken_decodes",
        "block_size",
        "chunks",
        "count",
        "emitted",
        "gaps",
        "held",
        "late",
        "levels",
        "lingered",
        "open_held",
        "spans",
        "stays",
        "whole",
    )

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self.spans = bytearray()
        self.count = 0
        self.chunks = bytearray()
        self.stays = bytearray()
        self.held = bytearray()
        self.open_held = b""
        self.lingered = bytearray()
        self.levels: list[tuple[int, int]] = []
        self.gaps = array("d")
        self.late = array("q")
        self.emitted = 0
        self.whole = False
        self._taken = 0
        self._taken_decodes = 0

    def set_level(self, level: int) -> None:
        """The iterations from here on cost what this level of the clock says."""
        if self.levels and self.levels[-1][0] == self.count:
            self.levels.pop()
        self.levels.append((self.count, level))

    @property
    def full(self) -> bool:
        return len(self.spans) > WINDOW_BYTES

    def take(self, open_stays: bytes) -> Window:
        """Everything since the last call; the log goes on from here.

        Args:
            open_stays: packed like ``stays``, for the sequences that decode now.
        """
        chunks, lingered = table(self.chunks, CHUNK), table(self.lingered, CHUNK)
        for rows in (chunks, lingered):
            rows["iteration"] -= self._taken
        late = np.array(self.late, dtype=np.int64)
        begun = late < self.count
        window = Window(
            table(self.spans, SPAN),
            chunks,
            table(self.stays, STAY),
            table(open_stays, STAY),
            np.array(self.gaps[::2]),
            np.array(self.gaps[1::2]),
            late[begun] - self._taken,
            self._taken_decodes,
            self.emitted,
            self.block_size,
            table(self.held + self.open_held, STAY),
            lingered,
            self.whole,
            tuple((max(first - self._taken, 0), level) for first, level in self.levels),
        )
        self._taken = self.count
        self._taken_decodes += window.decode_iterations
        self.spans, self.chunks, self.stays = bytearray(), bytearray(), bytearray()
        self.held, self.open_held, self.lingered = bytearray(), b"", bytearray()
        self.gaps, self.late = array("d"), array("q", late[~begun].tobytes())
        self.levels = self.levels[-1:]
        self.emitted = 0
        return window


def table(packed: bytes | bytearray, row: np.dtype) -> dict[str, np.ndarray]:
    """The columns of packed rows, as numbers of one kind: a window computes with them."""
    rows = np.frombuffer(packed, dtype=row)
    return {name: rows[name].astype(np.float64) for name in row.names or ()}

"""What became of each request between its arrival and its end: every piece of its prompt, every stretch of decoding.

Where a request was neither being prefilled nor decoding, it waited: for its turn, after a preemption, on its way
from one replica to another, or for the rest of a static batch.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from simslm.sim.log import Window

PREFILL, DECODE = range(2)
KINDS = ("prefill", "decode")
"""Names of the kinds, in ``stages.parquet``."""

Columns = dict[str, np.ndarray]


@dataclass(slots=True)
class _Open:
    """The state of a replica when its last window ended.

    Attributes:
        begun: of each sequence that decoded, when it began to and its first decode iteration.
        decoded: decode iterations so far.
        end_s: of the last of them.
    """

    begun: dict[int, tuple[float, int]] = field(default_factory=dict)
    decoded: int = 0
    end_s: float = float("nan")


class Stages:
    """Turns the windows of all replicas into stages; a decoding that spans several windows is one stage.

    Memory is that of the sequences that decode when a window ends.
    """

    def __init__(self) -> None:
        self._open: dict[int, _Open] = defaultdict(_Open)

    def take(self, replica: int, window: Window) -> Columns:
        """The stages that ended in a window; windows of a replica come in order.

        Returns:
            columns of one length: ``request_id``, ``replica``, ``kind``, ``start_s``, ``end_s``, ``tokens`` (of the
            prompt that were processed, 0 when decoding) and ``iterations``.
        """
        state = self._open[replica]
        decoding = window.columns["decoding"] > 0
        starts = window.columns["start_s"][decoding]
        # A stay may have ended with the last decode iteration of the window before: that is entry 0.
        ends = np.concatenate([[state.end_s], window.columns["end_s"][decoding]])

        def begin(request: int, first: int) -> tuple[float, int]:
            number = first - window.decoded_before
            return (float(starts[number]), first) if number >= 0 else state.begun[request]

        ended = [
            (request, *begin(request, first), after)
            for request, first, after in _whole(window.stays, "request_id", "decode_from", "decode_to")
            if after > first
        ]
        going_on = _whole(window.open_stays, "request_id", "decode_from")
        decoded = window.decoded_before + len(starts)
        begun = {request: begin(request, first) for request, first in going_on if first < decoded}
        self._open[replica] = _Open(begun, decoded, float(ends[-1]))
        numbers = np.array([after for *_, after in ended], dtype=np.int64) - window.decoded_before
        decodes = _decodes(replica, [row[:3] for row in ended], ends[numbers], [row[3] for row in ended])
        prefills = _prefills(replica, window)
        return {name: np.concatenate([prefills[name], decodes[name]]) for name in prefills}

    def rest(self) -> Columns:
        """The decodings that go on after the last window, each until its replica's last decode iteration."""
        rows = [
            _decodes(
                replica,
                [(request, *begun) for request, begun in state.begun.items()],
                np.full(len(state.begun), state.end_s),
                [state.decoded] * len(state.begun),
            )
            for replica, state in sorted(self._open.items())
        ]
        nothing = _decodes(0, [], np.array([]), [])
        return {name: np.concatenate([each[name] for each in (nothing, *rows)]) for name in nothing}


def _whole(columns: Columns, *names: str) -> list[tuple[int, ...]]:
    """Some columns as rows of whole numbers."""
    return list(zip(*(columns[name].astype(np.int64).tolist() for name in names), strict=True))


def _prefills(replica: int, window: Window) -> Columns:
    chunks = window.chunks
    at = chunks["iteration"].astype(np.int64)
    return {
        "request_id": chunks["request_id"],
        "replica": np.full(len(at), replica),
        "kind": np.full(len(at), PREFILL),
        "start_s": window.columns["start_s"][at],
        "end_s": window.columns["end_s"][at],
        "tokens": chunks["tokens"],
        "iterations": np.ones(len(at)),
    }


def _decodes(
    replica: int, begun: list[tuple[int, float, int]], end_s: np.ndarray, after: list[int]
) -> Columns:
    """Decodings of requests that began at some time with some decode iteration, up to the one ``after`` the last."""
    count = len(begun)
    return {
        "request_id": np.array([request for request, _, _ in begun], dtype=np.int64),
        "replica": np.full(count, replica),
        "kind": np.full(count, DECODE),
        "start_s": np.array([start for _, start, _ in begun], dtype=float),
        "end_s": end_s,
        "tokens": np.zeros(count),
        "iterations": np.array(after, dtype=np.int64)
        - np.array([first for *_, first in begun], dtype=np.int64),
    }

"""What became of every request: one entry per row of each column."""

from __future__ import annotations

from array import array
from typing import NamedTuple

import numpy as np

FINISHED, REJECTED, FAILED, UNFINISHED = range(4)
STATUS = ("finished", "rejected", "failed", "unfinished")
"""Names of the status codes, in ``requests.parquet``."""

_NOTHING: dict[str, tuple[str, float]] = {
    "replica": ("q", -1),
    "first_scheduled_s": ("d", float("nan")),
    "first_token_s": ("d", float("nan")),
    "finish_s": ("d", float("nan")),
    "preemptions": ("q", 0),
    "cached_prompt_tokens": ("q", 0),
    "recomputed_tokens": ("q", 0),
    "escalations": ("q", 0),
    "status": ("b", UNFINISHED),
}
"""The columns of a request log: the type code of each, and what it says before anything happens."""


class RequestLog:
    """What became of every request; one entry per row, NaN or -1 where nothing happened.

    A request that is escalated is served again from its beginning: ``first_scheduled_s`` is of the first time, the
    other times and ``replica`` of the last, and what is counted (``preemptions``, tokens) of all of them. One that the
    gateway answered has no replica.
    """

    __slots__ = (
        "cached_prompt_tokens",
        "escalations",
        "finish_s",
        "first_scheduled_s",
        "first_token_s",
        "preemptions",
        "recomputed_tokens",
        "replica",
        "status",
    )

    replica: array[int]
    first_scheduled_s: array[float]
    first_token_s: array[float]
    finish_s: array[float]
    preemptions: array[int]
    cached_prompt_tokens: array[int]
    recomputed_tokens: array[int]
    escalations: array[int]
    status: array[int]

    def __init__(self) -> None:
        for name in self.__slots__:
            setattr(self, name, array(_NOTHING[name][0]))

    def extend(self, count: int) -> None:
        """So many more rows."""
        for name in self.__slots__:
            column = getattr(self, name)
            column.frombytes(bytes(count * column.itemsize))

    def clear(self, rows: slice) -> None:
        """Nothing has happened to these rows."""
        for name in self.__slots__:
            np.asarray(getattr(self, name))[rows] = _NOTHING[name][1]

    def columns(self) -> dict[str, np.ndarray]:
        """The columns as arrays that share their memory."""
        return {name: np.asarray(getattr(self, name)) for name in self.__slots__}


class Move(NamedTuple):
    """A request goes from one replica to another.

    Attributes:
        request_id: its number.
        source, target: the numbers of the replicas; -1 where it waits because none serves.
        at_s: when, in seconds.
        kind: ``hand-over`` of a prefilled sequence to a decode replica, ``return`` of one that was preempted there
            and has to be prefilled again, ``migration`` as a policy says, ``failure`` of the source, ``held``, to a
            replica that serves again, or ``escalation`` of a request whose answer was not accepted.
    """

    request_id: int
    source: int
    target: int
    at_s: float
    kind: str


class Settled(NamedTuple):
    """What became of consecutive requests.

    Attributes:
        first: the number of the first.
        columns: those of :class:`RequestLog`, ``arrival_s`` (NaN for those that never arrived), ``prompt_tokens`` and
            ``output_tokens``, each of shape ``(requests,)``.
    """

    first: int
    columns: dict[str, np.ndarray]

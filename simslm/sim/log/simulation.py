"""The log of a whole simulation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from simslm.policies.partition import Split
from simslm.sim.log.requests import RequestLog, Settled
from simslm.sim.log.window import Window


class Move(NamedTuple):
    """A request went from one replica to another.

    Attributes:
        request_id: its number.
        source, target: the replicas by number; -1 = it waited, as none served.
        at_s: when, seconds.
        why: ``handoff`` (to be decoded), ``return`` (to be prefilled again), ``migration``, ``failure`` (of its
            replica) or ``held`` (a replica serves again).
    """

    request_id: int
    source: int
    target: int
    at_s: float
    why: str = "handoff"


class Life(NamedTuple):
    """What a replica was, from when to when, seconds; the state is one of :data:`~simslm.policies.fleet.STATES`."""

    replica: int
    state: str
    from_s: float
    to_s: float


@dataclass(frozen=True, slots=True)
class SimulationLog:
    """A finished (or interrupted) simulation.

    Attributes:
        arrival_s: when the request of each row arrived, shape ``(rows,)``; NaN for those that never did. Rows are
            requests in order of their numbers, unless some have been let go.
        requests: what became of each.
        windows: the iterations of each replica, in the order of the replicas; those already handed out during
            the run are not among them.
        events: events that SimPy processed.
        interrupted: whether it was stopped before the last request was done.
        moves: every time a request went from one replica to another, see :class:`Move`; of a stream, the last of those
            between phases, and all others.
        splits: by device, every split between its phases and since when, see
            :class:`~simslm.sim.partition.Partitioner`.
        held: the requests, in order, but for those that were handed out during the run.
        lives: what each replica was from when to when, in order of the replicas and of time; the last of each has no
            end. Empty where all of them served all the time.
        clocks: when all devices changed their clock, and to which level, in order.
    """

    arrival_s: np.ndarray
    requests: RequestLog
    windows: tuple[Window, ...]
    events: int
    interrupted: bool
    moves: tuple[Move, ...] = ()
    splits: Mapping[int, tuple[tuple[float, Split], ...]] = field(default_factory=dict)
    held: tuple[Settled, ...] = ()
    lives: tuple[Life, ...] = ()
    clocks: tuple[tuple[float, int], ...] = ()

"""The log of a whole simulation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from simslm.policies.partition import Split
from simslm.sim.log.requests import Move, RequestLog, Settled
from simslm.sim.log.window import Window


class GroupCounts(NamedTuple):
    """What became of the requests that came to a group.

    Attributes:
        name: the group's.
        requests: that it let in, those among them that other groups had answered before.
        answered: whose answer of this group went out.
        escalated: whose answer did not, but went on to another group.
    """

    name: str
    requests: int
    answered: int
    escalated: int


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
        moves: every time a request went from one replica to another, in order, but for those that were handed out
            during the run with the requests of a stream.
        splits: by device, every split between its phases and since when, see
            :class:`~simslm.sim.partition.Partitioner`.
        held: the requests, in order, but for those that were handed out during the run.
        lives: what each replica was from when to when, in order of the replicas and of time; the last of each has no
            end. Empty without a control plane: then all of them serve all the time.
        clocks: the clock of all devices, MHz, and since when, s, in order; empty where clocks do not change.
        moved: how many moves there were of each kind, also of those that were handed out.
        faulted: how often a fault took what a request had computed (``lost_work``), and the request (``killed``).
        answered: requests that the gateway answered.
        groups: what became of the requests of each group; empty where no group is chosen.
    """

    arrival_s: np.ndarray
    requests: RequestLog
    windows: tuple[Window, ...]
    events: int
    interrupted: bool
    moves: tuple[Move, ...] = ()
    splits: Mapping[int, tuple[tuple[float, Split], ...]] = field(
        default_factory=dict[int, tuple[tuple[float, Split], ...]]
    )
    held: tuple[Settled, ...] = ()
    lives: tuple[Life, ...] = ()
    clocks: tuple[tuple[float, float], ...] = ()
    moved: Mapping[str, int] = field(default_factory=dict[str, int])
    faulted: Mapping[str, int] = field(default_factory=dict[str, int])
    answered: int = 0
    groups: tuple[GroupCounts, ...] = ()

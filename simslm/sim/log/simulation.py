"""The log of a whole simulation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from simslm.policies.partition import Split
from simslm.sim.log.requests import Move, RequestLog, Settled
from simslm.sim.log.window import Window


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

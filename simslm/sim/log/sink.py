"""Takes what a simulation leaves while it goes on, so that memory does not grow with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from simslm.sim.log.requests import Move, Settled
from simslm.sim.log.window import Window


class LogSink(Protocol):
    """Takes the log piece by piece; what it has taken is not in the :class:`SimulationLog` at the end."""

    def take_window(self, replica: int, window: Window) -> None:
        """A window of the log of a replica, by number; the windows of a replica come in order."""
        ...

    def take_requests(self, settled: Settled) -> None:
        """Requests of a stream that are over, in order of their numbers; every window up to now has been taken."""
        ...

    def take_moves(self, moves: Sequence[Move]) -> None:
        """Moves of requests between replicas since the last that were taken, in order."""
        ...

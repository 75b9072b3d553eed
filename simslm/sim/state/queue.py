"""The waiting queue of a replica, in the order its policy states."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from typing import Any

from simslm.errors import SimslmError
from simslm.sim.state.sequence import Sequence


class WaitingQueue(deque[Sequence]):
    """Sequences by ascending key; equal keys in order of arrival.

    A sequence that was preempted comes back to where its key says: under first come, first served that is the
    front, since it arrived before all that wait.

    Args:
        key: what the order goes by; when it changes while sequences wait, :meth:`sort` says so.
    """

    def __init__(self, key: Callable[[Sequence], Any]) -> None:
        super().__init__()
        self._key = key

    def add(self, sequence: Sequence) -> None:
        """Puts a sequence where its key says; at either end without a search."""
        place = self.place
        if not self or place(sequence) >= place(self[-1]):
            self.append(sequence)
        elif place(sequence) < place(self[0]):
            self.appendleft(sequence)
        else:
            self.insert(bisect_right(self, place(sequence), key=place), sequence)

    def take(self, sequence: Sequence) -> None:
        """Removes the first, which is admitted.

        Raises:
            SimslmError: it is not the first; a policy passed over others.
        """
        if self.popleft() is not sequence:
            raise SimslmError(
                f"request {sequence.request_id} was admitted before others that wait in front of it",
                remedy="batching policies admit in the order of view.waiting; to change that order, see queueing",
            )

    def sort(self) -> None:
        """Keys have changed; every sequence goes where its key says now."""
        ordered = sorted(self, key=self.place)
        self.clear()
        self.extend(ordered)

    def place(self, sequence: Sequence) -> tuple[Any, int]:
        """What sequences are compared by: their key, then the order of arrival."""
        return self._key(sequence), sequence.request_id

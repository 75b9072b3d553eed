"""The waiting queue of a replica, in the order its policy states."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from typing import Any

from simslm.sim.sequence import Sequence


class WaitingQueue(deque[Sequence]):
    """Sequences by ascending key; equal keys in order of arrival.

    A sequence that was preempted comes back to where its key says: under first come, first served that is the
    front, since it arrived before all that wait.

    Args:
        key: what the order goes by; it must not change while a sequence waits.
    """

    def __init__(self, key: Callable[[Sequence], Any]) -> None:
        super().__init__()
        self._key = key

    def add(self, sequence: Sequence) -> None:
        """Puts a sequence where its key says; at either end without a search."""
        place = self._place
        if not self or place(sequence) >= place(self[-1]):
            self.append(sequence)
        elif place(sequence) < place(self[0]):
            self.appendleft(sequence)
        else:
            self.insert(bisect_right(self, place(sequence), key=place), sequence)

    def take(self, sequence: Sequence) -> None:
        """Removes a sequence; the first without a search."""
        if self[0] is sequence:
            self.popleft()
        else:
            self.remove(sequence)

    def _place(self, sequence: Sequence) -> tuple[Any, int]:
        return self._key(sequence), sequence.request_id

"""The waiting queue of a replica, in the order its policy states."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from simslm.sim.sequence import Sequence


class WaitingQueue:
    """Sequences by ascending key; equal keys in order of arrival.

    A sequence that was preempted comes back to where its key says: under first come, first served that is the
    front, since it arrived before all that wait.

    Args:
        key: what the order goes by; it must not change while a sequence waits.
    """

    __slots__ = ("_items", "_key")

    def __init__(self, key: Callable[[Sequence], Any]) -> None:
        self._key = key
        self._items: deque[Sequence] = deque()

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._items)

    def add(self, sequence: Sequence) -> None:
        """Puts a sequence where its key says; at either end without a search."""
        items, place = self._items, self._place
        if not items or place(sequence) >= place(items[-1]):
            items.append(sequence)
        elif place(sequence) < place(items[0]):
            items.appendleft(sequence)
        else:
            items.insert(bisect_right(items, place(sequence), key=place), sequence)

    def remove(self, sequence: Sequence) -> None:
        if self._items[0] is sequence:
            self._items.popleft()
        else:
            self._items.remove(sequence)

    def _place(self, sequence: Sequence) -> tuple[Any, int]:
        return self._key(sequence), sequence.request_id

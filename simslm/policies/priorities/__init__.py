"""Priority patterns: how the priorities of the requests in a replica change while they are served.

A policy is a class with one method, ``redraw(priorities) -> priorities``, asked every ``every`` iterations of the
replica with the priorities of all its requests, in order of arrival.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class PriorityPattern(Protocol):
    """Changes priorities.

    Attributes:
        every: iterations from one change to the next; 0 = they never change.
    """

    every: int

    def redraw(self, priorities: Sequence[int]) -> list[int]:
        """The priorities from here on, one for each; the lower, the sooner."""
        ...

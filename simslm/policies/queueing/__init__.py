"""Queue orders: which request is first in a replica's waiting queue.

A policy is a class with one method, ``key(prompt)``: the queue is sorted by it, the smallest first.
"""

from __future__ import annotations

from typing import Any, Protocol

from simslm.policies.plan import Prompt


class QueueOrder(Protocol):
    """Orders the waiting requests.

    Attributes:
        urgent_first: whether a more urgent prompt (a lower ``priority``) always comes before a less urgent one. Where
            it does not, a prompt that running sequences made place for is admitted before all others.
    """

    urgent_first: bool

    def key(self, prompt: Prompt) -> Any:
        """What the queue is sorted by; it must not change while a prompt waits."""
        ...

"""Preemption policies: who gives up the device when others need its blocks, or are more urgent.

A policy is a class with two methods: ``victim(running)`` and ``yields(running, waiting)``. What becomes of a victim,
prefilled again or moved to the host, is the engine's ``preemption``. Whatever the order of the queue, a request for
which others made place is admitted before them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from simslm.policies.plan import Prompt


class PreemptionPolicy(Protocol):
    """Chooses who goes.

    Attributes:
        displaces: whether running requests make place for waiting ones at all: ``yields`` is asked only then.
    """

    displaces: bool

    def victim(self, running: Sequence[Prompt]) -> int:
        """The index of the one that goes first; ``running`` is in order of admission, and never empty."""
        ...

    def yields(self, running: Prompt, waiting: Prompt) -> bool:
        """Whether ``running`` makes place for ``waiting``; an order: nobody yields to whom it displaces."""
        ...

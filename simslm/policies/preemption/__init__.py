"""Preemption policies: which request loses its KV blocks when others need them, or are more urgent.

A policy is a class with two methods: ``victim(running)`` and ``yields(running, waiting)``. What becomes of a victim,
prefilled again or moved to the host, is the engine's ``preemption``. A request for which others were preempted is
admitted before them, in any order of the queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from simslm.policies.plan import Prompt


class PreemptionPolicy(Protocol):
    """Chooses the request to preempt.

    Attributes:
        displaces: whether running requests make place for waiting ones at all: ``yields`` is asked only then.
    """

    displaces: bool

    def victim(self, running: Sequence[Prompt]) -> int:
        """The index of the request to preempt; ``running`` is in order of admission, and never empty."""
        ...

    def yields(self, running: Prompt, waiting: Prompt) -> bool:
        """Whether ``running`` is preempted for ``waiting``; never true of a pair both ways."""
        ...

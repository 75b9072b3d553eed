"""The least urgent goes first, of equals the last that arrived."""

from __future__ import annotations

from collections.abc import Sequence

from simslm.policies.plan import Prompt
from simslm.policies.registry import PolicyOptions, policy


@policy("preemption", "least-urgent")
class LeastUrgent:
    """The least urgent goes first, of equals the last that arrived, and only where blocks are short (vLLM V1).

    That is ``max(running, key=(priority, arrival_time))`` of its scheduler under ``scheduling_policy: priority``: the
    one that goes is the last in the order of the queue.
    """

    displaces = False

    def __init__(self, options: PolicyOptions) -> None:
        del options

    def victim(self, running: Sequence[Prompt]) -> int:
        return max(range(len(running)), key=lambda i: (running[i].priority, running[i].arrival_s, i))

    def yields(self, running: Prompt, waiting: Prompt) -> bool:
        return False

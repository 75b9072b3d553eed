"""The least urgent request is preempted first, also for a more urgent one that waits."""

from __future__ import annotations

from collections.abc import Sequence

from simslm.policies.plan import Prompt
from simslm.policies.registry import PolicyOptions, policy


@policy("preemption", "lowest-priority")
class LowestPriority:
    """The least urgent goes first, also for a more urgent one that waits (vLLM V0; FastSwitch, arXiv:2411.18424).

    Of equals the last admitted. The victim stays out until the one it made place for has been admitted. With
    priorities that change over time this is the preemption-based scheduling whose context switches FastSwitch makes
    cheaper.
    """

    displaces = True

    def __init__(self, options: PolicyOptions) -> None:
        del options

    def victim(self, running: Sequence[Prompt]) -> int:
        return max(range(len(running)), key=lambda i: (running[i].priority, i))

    def yields(self, running: Prompt, waiting: Prompt) -> bool:
        return waiting.priority < running.priority

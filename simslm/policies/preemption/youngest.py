"""The last that was admitted goes first."""

from __future__ import annotations

from collections.abc import Sequence

from simslm.policies.plan import Prompt
from simslm.policies.registry import PolicyOptions, policy


@policy("preemption", "youngest")
class Youngest:
    """The last admitted goes first, and only where blocks are short (vLLM, SOSP 2023, §4.5)."""

    displaces = False

    def __init__(self, options: PolicyOptions) -> None:
        del options

    def victim(self, running: Sequence[Prompt]) -> int:
        return len(running) - 1

    def yields(self, running: Prompt, waiting: Prompt) -> bool:
        return False

"""Priority order."""

from __future__ import annotations

from simslm.policies.plan import Prompt
from simslm.policies.registry import PolicyOptions, policy


@policy("queueing", "priority")
class Priority:
    """Lower priority numbers first, in order of arrival among equals (vLLM `--scheduling-policy priority`)."""

    urgent_first = True

    def __init__(self, options: PolicyOptions) -> None:
        del options

    def key(self, prompt: Prompt) -> tuple[int, float]:
        return prompt.priority, prompt.arrival_s

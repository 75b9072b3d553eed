"""First come, first served."""

from __future__ import annotations

from simslm.policies.plan import Prompt
from simslm.policies.registry import PolicyOptions, policy


@policy("queueing", "fcfs")
class FirstComeFirstServed:
    """In order of arrival (vLLM `--scheduling-policy fcfs`)."""

    urgent_first = False

    def __init__(self, options: PolicyOptions) -> None:
        del options

    def key(self, prompt: Prompt) -> float:
        return prompt.arrival_s

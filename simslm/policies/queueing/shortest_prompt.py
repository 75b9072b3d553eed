"""Shortest prompt first."""

from __future__ import annotations

from simslm.policies.plan import Prompt
from simslm.policies.registry import PolicyOptions, policy


@policy("queueing", "shortest-prompt")
class ShortestPrompt:
    """The shortest prompt first: shortest job first on what is known, the prompt (Schrage, 1968)."""

    urgent_first = False

    def __init__(self, options: PolicyOptions) -> None:
        del options

    def key(self, prompt: Prompt) -> tuple[int, float]:
        return prompt.prompt_tokens, prompt.arrival_s

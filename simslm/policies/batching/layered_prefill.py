"""Layered prefill: prompts pass the model a group of layers at a time, while decodes pass all of it."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from simslm.policies.plan import Batching, Plan, Prompt, ReplicaView
from simslm.policies.registry import PolicyOptions, policy


class LayeredPrefillOptions(PolicyOptions):
    tokens_per_group: int = Field(
        default=512, ge=1, description="prompt tokens for each group of layers: more tokens, more groups"
    )
    max_groups: int | None = Field(
        default=None, ge=1, description="most groups of layers: the model's layers; null = no limit"
    )


@policy("batching", "layered-prefill", LayeredPrefillOptions)
class LayeredPrefill(Batching):
    """Decodes, and whole prompts through one group of layers an iteration (layered prefill, arXiv:2510.08055, §4).

    Prompts of ``L`` tokens together pass ``G = max(1, ceil(L / tokens_per_group))`` groups of equally many layers, one
    in each iteration, so that each layer's experts are read for them once. Waiting prompts join when the prompts before
    them have passed all groups: as many as fit ``max_num_batched_tokens``, each with at least one token for every
    group. A token counts in an iteration by the share of the layers that it passes, so that the counts of a prompt add
    up to its length.
    """

    by_layers = True

    def __init__(self, options: LayeredPrefillOptions) -> None:
        self._per_group = options.tokens_per_group
        self._most = options.max_groups

    def plan(self, view: ReplicaView) -> Plan:
        plan = Plan(view, decode=view.decoding > 0)
        budget = view.max_num_batched_tokens
        if view.partial:
            groups = self._groups(sum(prompt.uncached_tokens for prompt in view.partial))
            for prompt in view.partial:
                chunk = min(_next(prompt.uncached_tokens, prompt.remaining, groups), budget - plan.tokens)
                if chunk <= 0:
                    break
                plan.advance(prompt, chunk)
            return plan
        joining = self._joining(view, budget - plan.tokens)
        groups = self._groups(sum(prompt.remaining for prompt in joining))
        for prompt in joining:
            chunk = min(_next(prompt.remaining, prompt.remaining, groups), budget - plan.tokens)
            if chunk <= 0 or not plan.admit(prompt, chunk, view):
                break
        return plan

    def _groups(self, tokens: int) -> int:
        """Groups of layers for so many prompt tokens."""
        groups = max(1, -(-tokens // self._per_group))
        return groups if self._most is None else min(groups, self._most)

    def _joining(self, view: ReplicaView, room: int) -> Sequence[Prompt]:
        """The waiting prompts that pass the layers together; a single one may be longer than the budget."""
        joining: list[Prompt] = []
        tokens, shortest = 0, 0
        for prompt in view.waiting:
            tokens += prompt.remaining
            shortest = min(shortest or prompt.remaining, prompt.remaining)
            # A prompt with fewer tokens than groups would pass a group without a token, and its iteration would not
            # exist.
            if joining and (tokens > room or shortest < self._groups(tokens)):
                break
            joining.append(prompt)
        return joining


def _next(uncached: int, remaining: int, groups: int) -> int:
    """Tokens that stand for the next group: after ``i`` groups, ``ceil(uncached · i / groups)`` have been passed."""
    done = uncached - remaining
    passed = done * groups // uncached
    return -(-uncached * (passed + 1) // groups) - done

"""Chunked-prefill batching: decodes are never held up by a whole prompt."""

from __future__ import annotations

from pydantic import Field

from simslm.policies.plan import Batching, Plan, ReplicaView
from simslm.policies.registry import PolicyOptions, policy


class ChunkedPrefillOptions(PolicyOptions):
    max_partial_prompts: int | None = Field(
        default=None,
        ge=1,
        description="most prompts that may be partly prefilled at once; null = as many as the budget reaches",
    )


@policy("batching", "chunked-prefill", ChunkedPrefillOptions)
class ChunkedPrefill(Batching):
    """Decodes first, then prompts in chunks, within one token budget (Sarathi-Serve, arXiv:2403.02310, §4)."""

    def __init__(self, options: ChunkedPrefillOptions) -> None:
        self.most_partial = options.max_partial_prompts

    def plan(self, view: ReplicaView) -> Plan:
        plan = Plan(view, decode=view.decoding > 0)
        budget = view.max_num_batched_tokens
        partial = 0
        for prompt in view.partial:
            if plan.tokens >= budget:
                return plan
            chunk = min(prompt.remaining, budget - plan.tokens)
            plan.advance(prompt, chunk)
            partial += chunk < prompt.remaining
        for prompt in view.waiting:
            if plan.tokens >= budget or (self.most_partial is not None and partial >= self.most_partial):
                break
            room = budget - plan.tokens
            split = prompt.remaining > room
            if not plan.admit(prompt, room if split else prompt.remaining, view):
                break
            partial += split
        return plan

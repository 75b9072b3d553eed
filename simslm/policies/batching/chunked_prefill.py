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
        plan.fill(view, view.max_num_batched_tokens, self.most_partial)
        return plan

"""Static batching: a batch starts together and ends together."""

from __future__ import annotations

from simslm.policies.plan import Batching, Plan, ReplicaView
from simslm.policies.registry import PolicyOptions, policy


@policy("batching", "static")
class Static(Batching):
    """Whole batches, padded to the longest prompt, as Orca describes its predecessors (Yu et al., OSDI 2022, §2-3).

    A batch is admitted, in queue order, only when the last one has left the replica; a sequence that finishes early
    stays in it as padding. All prompts are prefilled in one iteration, each padded to the longest of the batch, so
    count x longest is at most ``max_num_batched_tokens``. Blocks are reserved for the declared ``max_tokens``.
    Padding costs time in prefill and rows in decode; the KV that decodes read and hold is that of real tokens, as
    where attention skips the padding.
    """

    whole_prompts = True
    reserves_output = True
    holds_batch = True

    def __init__(self, options: PolicyOptions) -> None:
        del options

    def plan(self, view: ReplicaView) -> Plan:
        if view.decoding:
            return Plan(view, decode=True)
        plan = Plan(view, decode=False)
        for prompt in view.waiting:
            longest = max(plan.padded_to, prompt.remaining)
            if plan.chunks and longest * (plan.admitted + 1) > view.max_num_batched_tokens:
                break
            if not plan.admit(prompt, prompt.remaining, view):
                break
            plan.padded_to = longest
        return plan

"""Orca's batching: requests join and leave between iterations, with memory reserved for the longest output."""

from __future__ import annotations

from simslm.policies.plan import Batching, Plan, ReplicaView
from simslm.policies.registry import PolicyOptions, policy


@policy("batching", "orca")
class Orca(Batching):
    """Iteration-level scheduling with selective batching: whole prompts join the decodes (Orca, OSDI 2022, §4).

    First come, first served, up to ``max_num_seqs``; blocks for the declared ``max_tokens`` are reserved at
    admission (Algorithm 1), so no request is ever preempted. Orca knows no token budget: here, a prompt that does not
    fit ``max_num_batched_tokens`` beside the decodes waits, and those behind it with it.
    """

    whole_prompts = True
    reserves_output = True

    def __init__(self, options: PolicyOptions) -> None:
        del options

    def plan(self, view: ReplicaView) -> Plan:
        plan = Plan(view, decode=view.decoding > 0)
        for prompt in view.waiting:
            if plan.tokens and plan.tokens + prompt.remaining > view.max_num_batched_tokens:
                break
            if not plan.admit(prompt, prompt.remaining, view):
                break
        return plan

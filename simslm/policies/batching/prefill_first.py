"""Prefill-first batching, the default scheduler of vLLM's first engine."""

from __future__ import annotations

from simslm.policies.plan import Batching, Plan, ReplicaView
from simslm.policies.registry import PolicyOptions, policy


@policy("batching", "prefill-first")
class PrefillFirst(Batching):
    """Whole prompts first, alone in their iteration, then decodes (vLLM V0 default scheduler; SOSP 2023, §4.5).

    Waiting prompts are admitted in queue order while the sum of their tokens fits ``max_num_batched_tokens``; an
    iteration that prefills does not decode. A prompt that preemption made longer than the budget runs alone.
    """

    whole_prompts = True

    def __init__(self, options: PolicyOptions) -> None:
        del options

    def plan(self, view: ReplicaView) -> Plan:
        plan = Plan(view, decode=False)
        for prompt in view.waiting:
            if plan.chunks and plan.tokens + prompt.remaining > view.max_num_batched_tokens:
                break
            if not plan.admit(prompt, prompt.remaining, view):
                break
        return plan if plan.chunks else Plan(view, decode=True)

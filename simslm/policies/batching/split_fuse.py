"""Dynamic SplitFuse batching: forward passes of one size."""

from __future__ import annotations

from simslm.policies.plan import Batching, Plan, ReplicaView
from simslm.policies.registry import PolicyOptions, policy


@policy("batching", "split-fuse")
class SplitFuse(Batching):
    """Forward passes of one size: decodes, then prompts split and fused to fill it (FastGen, arXiv:2401.08671, §3).

    The size is ``max_num_batched_tokens``, and is met exactly while the prompts have tokens for two passes or more.
    Less than that is divided evenly between the last two: throughput is concave in the size of a pass, so two of one
    size take less time than a full one and a small one (ibid., §3.A, third insight).
    """

    def __init__(self, options: PolicyOptions) -> None:
        del options

    def plan(self, view: ReplicaView) -> Plan:
        plan = Plan(view, decode=view.decoding > 0)
        room = max(view.max_num_batched_tokens - plan.tokens, 0)
        # Two passes are as far as the rule looks; counting a long queue to its end would cost O(queue) an iteration.
        pool = _tokens(view, 2 * room)
        plan.fill(view, plan.tokens + (-(-pool // 2) if room < pool < 2 * room else room))
        return plan


def _tokens(view: ReplicaView, enough: int) -> int:
    """Prompt tokens that are there to prefill, counted as far as ``enough``."""
    tokens = 0
    for prompts in (view.partial, view.waiting):
        for prompt in prompts:
            if tokens >= enough:
                return tokens
            tokens += prompt.remaining
    return tokens

"""Static batching: a batch starts together and ends together."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from simslm.policies.plan import Batching, Plan, ReplicaView
from simslm.policies.registry import PolicyOptions, policy


class StaticOptions(PolicyOptions):
    returns: Literal["batch", "request"] = Field(
        default="batch",
        description="when answers go out. batch: all of them, whole, when the last sequence of the batch is done; "
        "request: every token when it is computed, so that a request ends with its own last token",
    )


@policy("batching", "static", StaticOptions)
class Static(Batching):
    """Whole batches, padded to the longest prompt, as Orca describes its predecessors (Yu et al., OSDI 2022, §2-3).

    A batch is admitted, in queue order, only when the last one has left the replica; a sequence that finishes early
    stays in it as padding. All prompts are prefilled in one iteration, each padded to the longest of the batch, so
    count x longest is at most ``max_num_batched_tokens``. Blocks are reserved for the declared ``max_tokens``.
    Padding costs time in prefill and rows in decode; the KV that decodes read and hold is that of real tokens, as
    where attention skips the padding.

    As Orca says of them, requests that finish early "cannot return to the client": with ``returns: batch`` the first
    token of an answer, its last, and all between come at the same moment, the end of the batch. So TTFT is E2E, and
    ITL and TPOT are 0. A server that streams tokens out of a static batch is ``returns: request``.
    """

    whole_prompts = True
    reserves_output = True
    holds_batch = True

    def __init__(self, options: StaticOptions) -> None:
        self.returns_batch = options.returns == "batch"

    def plan(self, view: ReplicaView) -> Plan:
        if view.decoding:
            return Plan(view, decode=True)
        plan = Plan(view, decode=False)
        for prompt in view.waiting:
            longest = max(plan.padded_to, prompt.remaining)
            # The first prompt always goes in, however long: alone in its batch it is not padded.
            if plan.chunks and longest * (plan.admitted + 1) > view.max_num_batched_tokens:
                break
            if not plan.admit(prompt, prompt.remaining, view):
                break
            plan.padded_to = longest
        return plan

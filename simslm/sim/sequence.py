"""A request while it is in a replica."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Sequence:
    """What the engine keeps of a request in flight; policies see it as ``Prompt``, without its true length.

    Attributes:
        request_id: its row in the workload.
        arrival_s: when it arrived.
        prompt_tokens: tokens of its prompt.
        max_tokens: declared limit of its output.
        prefill_tokens: tokens of the whole present prefill: the prompt and, after a preemption by recompute,
            what had been generated.
        remaining: tokens of it still to prefill.
        blocks: KV blocks of the whole prefill.
        generated: output tokens emitted.
        decode_from: number of the replica's decode iteration that it decodes in first, -1 before.
        decode_last: number of the one it finishes in.
        phase: when it takes new blocks, see :class:`~simslm.sim.blocks.BlockPool`.
        segment: where its present segment stands in the replica's log.
        last_token_s: when its last token came, as far as noted: at a prefill's end and at a preemption.
    """

    request_id: int
    arrival_s: float
    prompt_tokens: int
    max_tokens: int
    prefill_tokens: int
    remaining: int
    blocks: int
    generated: int = 0
    decode_from: int = -1
    decode_last: int = -1
    phase: int = field(default=0, repr=False)
    segment: int = field(default=-1, repr=False)
    last_token_s: float = field(default=-1.0, repr=False)

    @property
    def cached(self) -> int:
        return self.prefill_tokens - self.remaining

"""What waits and what runs on one engine: the state a batching policy plans from, and what a plan does to it.

It is to its policies what a simulated replica is, in the same terms: a queue in the order its policy states,
prompts in part in the cache, blocks above a watermark, and preemption by recompute.

Invariants: requests are conserved; a block has one owner; what decodes has all its tokens but the last cached.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from profiler.engine.batch import Chunk
from profiler.engine.cache import BlockPool
from profiler.serving.sequence import NO_BLOCKS, Sequence
from simslm.errors import UsageError
from simslm.policies.plan import BatchingPolicy, Plan
from simslm.policies.preemption import PreemptionPolicy
from simslm.policies.queueing import QueueOrder
from simslm.policies.route import Admission, ArrivingRequest


@dataclass(frozen=True, slots=True)
class Limits:
    """What one replica may hold, under vLLM's names where it has them.

    Attributes:
        watermark_blocks: kept free when admitting.
    """

    max_num_seqs: int
    max_num_batched_tokens: int
    watermark_blocks: int = 0


@dataclass(frozen=True, slots=True)
class Policies:
    """The choices a replica leaves to others; without ``preemption`` the last admitted is preempted."""

    batching: BatchingPolicy
    order: QueueOrder
    admission: Admission
    preemption: PreemptionPolicy | None = None


class Work(NamedTuple):
    """What one iteration runs: the decoding sequences first, then the prompts.

    Attributes:
        chunks: what the engine is given.
        decode_seqs, decode_ctx_tokens, prefill_seqs, prefill_tokens, prefill_ctx_tokens: its shape, as in a trace.
        waiting, running: requests in the queue and on the engine.
        kv_blocks_used: blocks owned meanwhile.
    """

    chunks: list[Chunk]
    decode_seqs: int
    decode_ctx_tokens: int
    prefill_seqs: int
    prefill_tokens: int
    prefill_ctx_tokens: int
    waiting: int
    running: int
    kv_blocks_used: int


class Replica:
    """Requests on one engine; to its policies it is the read-only ``ReplicaView`` and ``ReplicaLoad``.

    Args:
        pool: the engine's KV blocks.
        block_size: tokens in each.
        limits: see :class:`Limits`.
        policies: of batching, queueing, admission and preemption.

    Attributes:
        waiting: in queue order.
        partial: admitted, but their prompts are only partly in the cache; oldest first.
        running: all that are admitted, in order of admission.
        decoders: those of them that decode, in the order in which they began to.

    Raises:
        UsageError: for a policy whose batches the engine cannot run.
    """

    def __init__(self, pool: BlockPool, block_size: int, limits: Limits, policies: Policies) -> None:
        if policies.batching.holds_batch or policies.batching.by_layers:
            raise UsageError(
                "the engine serves no batching policy that keeps finished sequences as padding, or prefills by layers",
                remedy="choose another deployment.engine.batching, e.g. chunked-prefill",
            )
        self.pool, self.block_size = pool, block_size
        self.max_num_seqs = limits.max_num_seqs
        self.max_num_batched_tokens = limits.max_num_batched_tokens
        self.watermark_blocks = limits.watermark_blocks
        self.batching, self.admission = policies.batching, policies.admission
        self._preemption = policies.preemption
        self.waiting: list[Sequence] = []
        self.partial: list[Sequence] = []
        self.running: dict[Sequence, None] = {}
        self.decoders: dict[Sequence, None] = {}
        self._key = policies.order.key
        self._grown = 0

    # ---- what policies see -------------------------------------------------------------------------------

    @property
    def decoding(self) -> int:
        return len(self.decoders)

    @property
    def free_blocks(self) -> int:
        return self.pool.free

    @property
    def decode_blocks(self) -> int:
        size = self.block_size
        return sum(sequence.cached == len(sequence.table) * size for sequence in self.decoders)

    @property
    def outstanding(self) -> int:
        return len(self.waiting) + len(self.running)

    @property
    def queued(self) -> int:
        return len(self.waiting)

    @property
    def kv_utilization(self) -> float:
        """Share of the blocks in use, without those that the iteration under way takes to decode."""
        return (self.pool.num_blocks - self.pool.free - self._grown) / self.pool.num_blocks

    def cached_units(self, request: ArrivingRequest) -> int:
        """No prefix is shared."""
        del request
        return 0

    # ---- the life of a request ---------------------------------------------------------------------------

    def arrive(self, sequence: Sequence) -> None:
        """A request joins the queue, unless the admission policy turns it away."""
        sequence.rejected = not self.admission.admits(sequence, self)
        if not sequence.rejected:
            self.enqueue(sequence)

    def plan(self) -> Plan:
        """Which requests run next, with blocks freed for all that decode.

        Raises:
            UsageError: requests wait, nothing runs, and the policy admits none of them.
        """
        plan = self.batching.plan(self) if self.waiting or self.partial else Plan(self, decode=True)
        if plan.empty:
            raise UsageError(
                f"the engine stands idle with {self.queued} requests waiting",
                remedy="the batching policy admits none of them although nothing else runs",
            )
        if plan.decode and self.pool.free < self.decoding and self.decode_blocks > self.pool.free:
            return self._make_room(plan)
        return plan

    def begin(self, plan: Plan) -> Work:
        """Admits what the plan admits, and hands out blocks."""
        prompt: Any
        chunks, tokens, cached = [], 0, 0
        for prompt, new in plan.chunks:
            if prompt not in self.running:
                self._admit(prompt)
            end = prompt.cached + new
            chunks.append(Chunk(prompt.ids[prompt.cached : end], prompt.cached, prompt.table))
            tokens, cached = tokens + new, cached + prompt.cached
        decodes = [self._next_token(sequence) for sequence in self.decoders] if plan.decode else []
        context = sum(chunk.cached for chunk in decodes)
        used = self.pool.num_blocks - self.pool.free
        shape = (len(decodes), context, len(chunks), tokens, cached)
        return Work(decodes + chunks, *shape, len(self.waiting), len(self.running), used)

    def apply(self, plan: Plan, tokens: list[int]) -> tuple[list[Sequence], list[Sequence]]:
        """The plan's iteration is over: tokens are out, prompts move on to decoding, requests finish.

        Args:
            plan: what was run.
            tokens: the next token of each of its chunks, in their order.

        Returns:
            The sequences that got a token, and those of them that have their last.
        """
        prompt: Any
        self._grown = 0
        decoded = len(tokens) - len(plan.chunks)
        emitted = list(self.decoders) if plan.decode else []
        for sequence, token in zip(emitted, tokens[:decoded], strict=True):
            sequence.cached += 1
            sequence.ids[sequence.prompt_tokens + sequence.generated] = token
        for (prompt, new), token in zip(plan.chunks, tokens[decoded:], strict=True):
            prompt.cached += new
            prompt.remaining -= new
            if not prompt.remaining:
                prompt.ids[prompt.prompt_tokens + prompt.generated] = token
                self.partial.remove(prompt)
                self.decoders[prompt] = None
                emitted.append(prompt)
        finished = []
        for sequence in emitted:
            sequence.generated += 1
            if sequence.generated == sequence.output_tokens:
                self.leave(sequence)
                finished.append(sequence)
        return emitted, finished

    def _next_token(self, sequence: Sequence) -> Chunk:
        cached = sequence.cached
        if cached == len(sequence.table) * self.block_size:
            sequence.table = np.append(sequence.table, self.pool.allocate(1))
            self._grown += 1
        return Chunk(sequence.ids[cached : cached + 1], cached, sequence.table)

    def _admit(self, sequence: Sequence) -> None:
        self.waiting.remove(sequence)
        sequence.table = self.pool.allocate(sequence.blocks)
        self.running[sequence] = None
        self.partial.append(sequence)

    def enqueue(self, sequence: Sequence) -> None:
        """Puts a sequence where the queue's order says, all of it to be prefilled."""
        sequence.cached, sequence.remaining = 0, sequence.length
        whole = sequence.length
        if self.batching.reserves_output:
            whole = sequence.prompt_tokens + sequence.max_tokens
        sequence.blocks = -(-whole // self.block_size)
        place = bisect_right(self.waiting, self._place(sequence), key=self._place)
        self.waiting.insert(place, sequence)

    def _place(self, sequence: Sequence) -> tuple[Any, int]:
        return self._key(sequence), sequence.request_id

    def _make_room(self, plan: Plan) -> Plan:
        """The plan without those that are preempted until all others that decode have their blocks."""
        chunks = plan.chunks
        while self.decode_blocks > self.pool.free:
            victim = self._victim()
            chunks = [chunk for chunk in chunks if chunk[0] is not victim]
            self.leave(victim)
            victim.preemptions += 1
            victim.recomputed_tokens += victim.cached
            self.enqueue(victim)
        kept = Plan(self, decode=self.decoding > 0)
        kept.chunks, kept.admitted, kept.padded_to = chunks, plan.admitted, plan.padded_to
        return kept

    def _victim(self) -> Sequence:
        """The sequence to preempt: the policy's choice, or the last that was admitted."""
        if self._preemption is None:
            return next(reversed(self.running))
        running = list(self.running)
        return running[self._preemption.victim(running)]

    def leave(self, sequence: Sequence) -> None:
        """Takes a sequence off the engine and frees its blocks."""
        del self.running[sequence]
        if sequence in self.decoders:
            del self.decoders[sequence]
        else:
            self.partial.remove(sequence)
        self.pool.release(sequence.table)
        sequence.table = NO_BLOCKS

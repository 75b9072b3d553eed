"""Speculative decoding: a draft proposes tokens, one iteration verifies them, and sequences advance by what is right.

Every sequence advances by another number of tokens, so nothing can be foreseen for many iterations: each is taken by
itself, at a cost that grows with the batch. Iterations with prompts verify nothing: in them every sequence decodes one
token, as in vLLM's first speculative engine.

Invariants: a sequence emits at least one token and at most one more than was proposed for it; blocks are taken for the
tokens that are kept; the number of an iteration in which a sequence decodes is still that of the replica.
"""

from __future__ import annotations

from typing import Any

from simslm.catalog.work import IterationShape
from simslm.policies.plan import Plan
from simslm.sim.acceptance import Acceptance
from simslm.sim.batch import Batch
from simslm.sim.blocks import BlockPool
from simslm.sim.engine import Speculation
from simslm.sim.replica import Replica
from simslm.sim.sequence import Sequence
from simslm.sim.shape import decode_shape
from simslm.sim.span import Span


class _Progress:
    """One decoding sequence: tokens it has decoded since its prefill, its place in its output, and what is left of it.

    ``gain`` is what the iteration under way adds; ``breaks`` are the places that no draft foresees, from ``next`` on.
    """

    __slots__ = ("breaks", "decoded", "gain", "left", "next", "place")

    def __init__(self, breaks: list[int], place: int, left: int) -> None:
        self.breaks = breaks
        self.place = place
        self.left = left
        self.decoded = 0
        self.gain = 0
        self.next = 0
        while breaks[self.next] < place:
            self.next += 1

    def draw(self, drafts: int) -> int:
        """What the next iteration emits if it verifies ``drafts`` tokens: the accepted ones and one more."""
        foreseen = self.breaks[self.next] - self.place
        accepted = min(foreseen, drafts, self.left - 1)
        self.gain = accepted + 1
        return self.gain

    def advance(self) -> None:
        """The iteration is over."""
        self.decoded += self.gain
        self.place += self.gain
        self.left -= self.gain
        if self.place > self.breaks[self.next]:
            self.next += 1


class SpeculativeBatch(Batch):
    """A batch whose sequences advance by several tokens, each by its own number.

    Args:
        acceptance: which proposed tokens are right.
        block_size: tokens in a KV block.

    Attributes:
        taken: KV blocks that the next decode iteration takes for the tokens that are kept.
        rejected: sequences of it of which a proposed token is rejected.
    """

    __slots__ = ("_acceptance", "_block_size", "_progress", "rejected", "taken")

    def __init__(self, acceptance: Acceptance, block_size: int) -> None:
        super().__init__()
        self._acceptance = acceptance
        self._block_size = block_size
        self._progress: dict[Sequence, _Progress] = {}
        self.taken = 0
        self.rejected = 0

    @property
    def until_finish(self) -> int:
        return 1

    def start(self, sequence: Sequence, tokens: int) -> None:
        place = sequence.generated
        breaks = self._acceptance.breaks(sequence.request_id, place + tokens)
        self._progress[sequence] = _Progress(breaks, place, tokens)
        sequence.decode_from = self.decoded
        self.decoding += 1
        self.scheduled += 1
        self.rows += 1
        self.context += sequence.prefill_tokens
        self.starting.append(sequence)

    def draw(self, drafts: int) -> None:
        """Settles what the next decode iteration, which verifies ``drafts`` tokens of each sequence, will emit."""
        size, emitted, taken, rejected = self._block_size, 0, 0, 0
        for sequence, progress in self._progress.items():
            left = progress.left
            gain = progress.draw(drafts)
            emitted += gain
            rejected += gain <= drafts and gain < left
            cached = sequence.prefill_tokens + progress.decoded
            taken += -(-(cached + gain) // size) + (-cached // size)
        self.accepted = emitted - len(self._progress)
        self.taken = taken
        self.rejected = rejected

    def demand(self, tokens: int) -> int:
        """Blocks that the decoding sequences need to hold ``tokens`` more each, or what is left of their outputs.

        A sequence that fits by itself must never be refused the room of tokens it will not have.
        """
        size, needed = self._block_size, 0
        for sequence, progress in self._progress.items():
            cached, left = sequence.prefill_tokens + progress.decoded, progress.left
            needed += -(-(cached + (tokens if tokens < left else left)) // size) + (-cached // size)
        return needed

    def decode(self, iterations: int) -> list[Sequence] | None:
        """Everybody has emitted what was settled; returns those whose last token is among it."""
        del iterations
        self.starting.clear()
        self.context += self.accepted + len(self._progress)
        self.decoded += 1
        self.accepted = self.taken = 0
        finishers = []
        for sequence, progress in self._progress.items():
            progress.advance()
            if not progress.left:
                finishers.append(sequence)
        return finishers

    def finish(self, sequence: Sequence) -> int:
        steps = self._progress.pop(sequence).decoded
        self.decoding -= 1
        self.scheduled -= 1
        self.rows -= 1
        self.context -= sequence.prefill_tokens + steps
        del self.running[sequence]
        return steps

    def remove(self, sequence: Sequence) -> int:
        if sequence.decode_from < 0:
            del self.running[sequence]
            self.partial.remove(sequence)
            return 0
        if sequence.decode_from == self.decoded:
            self.starting.remove(sequence)
        return self.finish(sequence)


class SpeculativePool(BlockPool):
    """A pool that asks the batch what its sequences need, for each of them goes its own way."""

    __slots__ = ("_batch", "_most")

    def __init__(self, pool: BlockPool, batch: SpeculativeBatch, most: int) -> None:
        super().__init__(pool.num_blocks, pool.block_size, pool.prefix)
        self._batch = batch
        self._most = most

    def start(self, cached_tokens: int, at: int) -> int:
        del cached_tokens, at
        return -1

    def demand(self, at: int) -> int:
        """Blocks for all that may be accepted, and the token after it."""
        del at
        return self._batch.demand(self._most + 1)

    def horizon(self, at: int, limit: int) -> int:
        del at, limit
        return 1

    def grow(self, at: int, iterations: int) -> None:
        del at, iterations
        self.free -= self._batch.taken
        if self.prefix is not None:
            self._evict()


class SpeculativeReplica(Replica):
    """A replica that speculates; to its policy it is the :class:`~simslm.policies.speculation.SpeculationView`."""

    __slots__ = ("_shape", "_speculation", "accepted", "rejected")

    batch: SpeculativeBatch
    pool: SpeculativePool

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        policies = given[6]
        assert policies.speculation is not None
        self._speculation: Speculation = policies.speculation
        self.batch = SpeculativeBatch(self._speculation.acceptance, self.pool.block_size)
        self.partial = self.batch.partial
        self.pool = SpeculativePool(self.pool, self.batch, self._speculation.num_speculative_tokens)
        self.most_iterations = 1
        self.accepted = 0
        self.rejected = 0
        self._shape = decode_shape(0, 0)

    @property
    def most_drafts(self) -> int:
        """Tokens of the budget that are left for each sequence, at most ``num_speculative_tokens``."""
        left = self.max_num_batched_tokens // max(self.batch.rows, 1) - 1
        return min(self._speculation.num_speculative_tokens, left)

    def latency_s(self, drafts: int) -> float:
        """Seconds of the next iteration with ``drafts`` tokens proposed for each sequence."""
        return self.cost.latency_s(self._shape._replace(draft_tokens=drafts * self._shape.decode_seqs))

    def _begin(self, plan: Plan, now: float, transfer_s: float) -> IterationShape:
        self.span.steady = False
        shape = super()._begin(plan, now, transfer_s)
        if not shape.decode_seqs:
            return shape
        drafts = 0
        if not plan.chunks:
            self._shape = shape
            drafts = self._speculation.policy.tokens(self)
        if drafts:
            shape = shape._replace(draft_tokens=drafts * shape.decode_seqs)
            self.span = Span(now + transfer_s, self.cost.latency_s(shape), 0.0, 1, 0, 1)
        batch = self.batch
        batch.draw(drafts)
        self._used += batch.taken
        self.accepted += batch.accepted
        self.rejected += batch.rejected
        return shape

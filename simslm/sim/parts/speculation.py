"""Speculative decoding: a draft proposes tokens, one iteration verifies them, and sequences advance by what is right.

Every sequence advances by another number of tokens, so nothing can be foreseen for many iterations: each is taken by
itself, at a cost that grows with the batch. Iterations with prompts verify nothing: in them every sequence decodes one
token, as in vLLM's first speculative engine.

Invariants: a sequence emits at least one token and at most one more than was proposed for it; blocks are taken for the
tokens that are kept; the number of an iteration in which a sequence decodes is still that of the replica.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from simslm.catalog.work import IterationShape
from simslm.policies.plan import Plan
from simslm.sim.engine import Speculation
from simslm.sim.parts.acceptance import Acceptance
from simslm.sim.parts.part import Part
from simslm.sim.shape import decode_shape
from simslm.sim.state.batch import Batch
from simslm.sim.state.blocks import UNBOUNDED, BlockStore, StorePool
from simslm.sim.state.sequence import Sequence

if TYPE_CHECKING:
    from simslm.sim.replica import Replica


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


class VerifiedBatch(Batch):
    """A batch whose sequences advance by several tokens, each by its own number.

    Args:
        acceptance: which proposed tokens are right.
        block_size: tokens in a KV block.
        kept: most tokens that a sequence keeps in the cache.
        takes: blocks are taken as needed; else all of them are reserved.

    Attributes:
        taken: KV blocks that the next decode iteration takes for the tokens that are kept.
        rejected: sequences of it of which a proposed token is rejected.
    """

    __slots__ = (
        "_acceptance",
        "_grown",
        "_kept",
        "_pads",
        "_progress",
        "_takes",
        "block_size",
        "rejected",
        "taken",
    )

    def __init__(
        self, acceptance: Acceptance, block_size: int, kept: int = UNBOUNDED, *, takes: bool = True
    ) -> None:
        super().__init__()
        self._acceptance = acceptance
        self.block_size = block_size
        self._kept = kept
        self._takes = takes
        self._progress: dict[Sequence, _Progress] = {}
        self._pads: dict[Sequence, int] = {}
        self._grown = 0
        self.taken = 0
        self.rejected = 0

    @property
    def until_finish(self) -> int:
        return 1

    def steps(self, sequence: Sequence) -> int:
        progress = self._progress.get(sequence)
        return 0 if progress is None else progress.decoded

    def start(self, sequence: Sequence, tokens: int) -> None:
        place = sequence.generated
        breaks = self._acceptance.breaks(sequence.request_id, place + tokens)
        self._progress[sequence] = _Progress(breaks, place, tokens)
        sequence.decode_from = self.decoded
        self.decoding += 1
        self.scheduled += 1
        self.rows += 1
        self.context += min(sequence.prefill_tokens, self._kept)
        self.starting.append(sequence)

    def draw(self, drafts: int) -> None:
        """Settles what the next decode iteration, which verifies ``drafts`` tokens of each sequence, will emit."""
        size, kept = self.block_size, self._kept
        emitted = grown = taken = rejected = 0
        for sequence, progress in self._progress.items():
            left = progress.left
            gain = progress.draw(drafts)
            emitted += gain
            rejected += gain <= drafts and gain < left
            before = sequence.prefill_tokens + progress.decoded
            after = before + gain
            if after > kept:
                before, after = min(before, kept), kept
            grown += after - before
            taken += -(-after // size) + (-before // size)
        self.accepted = emitted - len(self._progress)
        self._grown = grown
        self.taken = taken if self._takes else 0
        self.rejected = rejected

    def takes(self, sequence: Sequence, tokens: int) -> bool:
        """Whether a sequence needs a block to hold ``tokens`` tokens more."""
        progress = self._progress.get(sequence)
        if progress is None or not self._takes:
            return False
        before = sequence.prefill_tokens + progress.decoded
        after = min(before + min(tokens, progress.left), self._kept)
        return -(-after // self.block_size) > -(-min(before, self._kept) // self.block_size)

    def demand(self, tokens: int) -> int:
        """Blocks that the decoding sequences need to hold ``tokens`` more each, or what is left of their outputs.

        A sequence that fits by itself must never be refused the room of tokens it will not have.
        """
        size, kept, needed = self.block_size, self._kept, 0
        for sequence, progress in self._progress.items() if self._takes else ():
            before, left = sequence.prefill_tokens + progress.decoded, progress.left
            after = before + (tokens if tokens < left else left)
            if after > kept:
                before, after = min(before, kept), kept
            needed += -(-after // size) + (-before // size)
        return needed

    def decode(self, iterations: int) -> list[Sequence] | None:
        """All decoding sequences have emitted what was settled; returns those whose last token is among it."""
        del iterations
        self.starting.clear()
        self.decoded += 1
        self.context += self._grown
        self.accepted = self.taken = 0
        finishers: list[Sequence] = []
        for sequence, progress in self._progress.items():
            progress.advance()
            if not progress.left:
                finishers.append(sequence)
        for sequence, tokens in self._pads.items():
            self._pads[sequence] = tokens + 1
            self.context += tokens < self._kept
        return finishers

    def finish(self, sequence: Sequence) -> int:
        steps = self._progress.pop(sequence).decoded
        self.decoding -= 1
        self.scheduled -= 1
        self.rows -= 1
        self.context -= min(sequence.prefill_tokens + steps, self._kept)
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

    def pad(self, sequence: Sequence) -> None:
        """A padded sequence grows by one token an iteration; what is proposed for it counts for nothing."""
        progress = self._progress.pop(sequence, None)
        super().pad(sequence)
        tokens = sequence.prefill_tokens + (0 if progress is None else progress.decoded)
        self._pads[sequence] = tokens
        if progress is None:
            self.context -= max(tokens - self._kept, 0)

    def clear(self) -> list[Sequence]:
        self._pads.clear()
        return super().clear()


class VerifiedPool(StorePool):
    """A pool that asks the batch what its sequences need, for each of them goes its own way."""

    __slots__ = ("_batch", "_most")

    def __init__(self, store: BlockStore, batch: VerifiedBatch, most: int, kept: int) -> None:
        super().__init__(store, batch.block_size, kept)
        self._batch = batch
        self._most = most

    def start(self, cached_tokens: int, at: int) -> int:
        del cached_tokens, at
        return -1

    def demand(self, at: int) -> int:
        """Blocks for all that may be accepted, and the token after it."""
        del at
        return self._batch.demand(self._most + 1)

    def _takes(self, sequence: Sequence, at: int) -> bool:
        del at
        return self._batch.takes(sequence, self._most + 1)

    def horizon(self, at: int, limit: int) -> int:
        del at, limit
        return 1

    def grow(self, at: int, iterations: int) -> None:
        del at
        if iterations:
            self.free -= self._batch.taken
            if self.prefix is not None:
                self._evict()


class Speculating(Part):
    """Speculates; to its policy it is the :class:`~simslm.policies.speculation.SpeculationView`.

    Attributes:
        accepted, rejected: proposed tokens that were accepted, and sequences of which one was not, so far.
    """

    name: ClassVar[str] = "speculation"

    def __init__(self, replica: Replica, speculation: Speculation) -> None:
        super().__init__(replica)
        assert isinstance(replica.batch, VerifiedBatch)
        self._batch = replica.batch
        self._speculation = speculation
        self.accepted = 0
        self.rejected = 0
        self._shape = decode_shape(0, 0)

    @property
    def decoding(self) -> int:
        return self._batch.scheduled

    @property
    def most_drafts(self) -> int:
        """Tokens of the budget that are left for each sequence, at most ``num_speculative_tokens``."""
        left = self.replica.max_num_batched_tokens // max(self._batch.rows, 1) - 1
        return min(self._speculation.num_speculative_tokens, left)

    def latency_s(self, drafts: int) -> float:
        """Seconds of the next iteration with ``drafts`` tokens proposed for each sequence."""
        shape = self._shape
        return self.replica.cost.latency_s(shape._replace(draft_tokens=drafts * shape.decode_seqs))

    def shape(self, shape: IterationShape, plan: Plan) -> IterationShape:
        """Verifies proposed tokens, in iterations without prompts."""
        if not shape.decode_seqs:
            return shape
        batch, drafts = self._batch, 0
        if not plan.chunks:
            self._shape = shape
            drafts = self._speculation.policy.tokens(self)
            shape = shape._replace(draft_tokens=drafts * shape.decode_seqs)
        batch.draw(drafts)
        self.replica.used += batch.taken
        self.accepted += batch.accepted
        self.rejected += batch.rejected
        return shape

    def horizon(self, limit: int) -> int:
        del limit
        return 1

    def after(self) -> None:
        """The next iteration advances by other numbers."""
        self.replica.span.steady = False

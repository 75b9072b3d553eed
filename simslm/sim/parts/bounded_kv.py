"""Sequences that keep a bounded number of tokens in the KV cache: beyond it, a token that comes drops an older one.

What a sequence keeps is ``min(tokens, kept)``, and no function of the batch's sum; so a second calendar says in which
decode iteration each sequence stops growing. Its blocks stop there, and the sum grows by one less.

Invariants: a sequence holds the blocks of at most ``kept`` tokens; the batch's context is the sum of what is kept; a
jump ends where a sequence stops growing, so that jumping is stepping.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Any, ClassVar

from simslm.catalog.work import IterationShape, pairs_within
from simslm.policies.plan import Plan
from simslm.sim.log.replica import PACK_STAY, ReplicaLog
from simslm.sim.parts.part import Part
from simslm.sim.state.batch import Batch
from simslm.sim.state.blocks import BlockPool
from simslm.sim.state.sequence import Sequence


class BoundedBatch(Batch):
    """A batch whose sequences stop growing at the tokens that the pool keeps of each.

    Args:
        pool: where its blocks are.
        log: notes from which decode iteration to which a sequence did not grow.

    Attributes:
        bent: whether a sequence has stopped growing since this was last set to False.
    """

    __slots__ = ("_full", "_kept", "_log", "_pool", "_reach", "_reached_at", "_reaches", "bent")

    def __init__(self, pool: BlockPool, log: ReplicaLog) -> None:
        super().__init__()
        self._kept = pool.kept
        self._pool = pool
        self._log = log
        self._full: dict[Sequence, tuple[int, int]] = {}
        pool.stopped = self._full
        self._reach: dict[int, list[Sequence]] = {}
        self._reached_at: dict[Sequence, int] = {}
        self._reaches: list[int] = []
        self.bent = False

    @property
    def until_finish(self) -> int:
        """Decode iterations up to the one in which a sequence finishes, or after which one stops growing."""
        soonest, reaches = super().until_finish, self._reaches
        while reaches and reaches[0] not in self._reach:
            heappop(reaches)
        return min(soonest, reaches[0] - self.decoded) if reaches else soonest

    def open_rows(self) -> bytes:
        return b"".join(
            PACK_STAY(sequence.request_id, since, self.decoded, phase)
            for sequence, (since, phase) in self._full.items()
        )

    def start(self, sequence: Sequence, tokens: int) -> None:
        super().start(sequence, tokens)
        self._enter(sequence)

    def decode(self, iterations: int) -> list[Sequence] | None:
        self.context -= self.full * iterations
        finishers = super().decode(iterations)
        for sequence in self._reach.pop(self.decoded, ()):
            del self._reached_at[sequence]
            self._full[sequence] = self.decoded, sequence.phase if sequence.decode_from >= 0 else -1
            self.full += 1
            self._pool.hold(sequence.phase)
            self.bent = True
        return finishers

    def finish(self, sequence: Sequence) -> int:
        steps = super().finish(sequence)
        self._leave(sequence, sequence.prefill_tokens + steps)
        return steps

    def pad(self, sequence: Sequence) -> None:
        decoded = sequence.decode_from >= 0
        super().pad(sequence)
        self._stay_on(sequence, decoded)

    def linger(self, sequence: Sequence) -> None:
        decoded = sequence.decode_from >= 0
        super().linger(sequence)
        self._stay_on(sequence, decoded)

    def dismiss(self, sequence: Sequence) -> int:
        steps = super().dismiss(sequence)
        self._leave(sequence, sequence.prefill_tokens + steps)
        return steps

    def clear(self) -> list[Sequence]:
        gone = super().clear()
        for sequence in gone:
            self._forget(sequence)
        return gone

    def _enter(self, sequence: Sequence) -> None:
        """A sequence whose prompt has just been counted in full keeps less of it, or will stop growing later."""
        room = self._kept - sequence.prefill_tokens
        if room <= 0:
            self.context += room
            self._full[sequence] = self.decoded, -1
            self.full += 1
            return
        at = self._reached_at[sequence] = self.decoded + room
        if at in self._reach:
            self._reach[at].append(sequence)
        else:
            self._reach[at] = [sequence]
            heappush(self._reaches, at)

    def _stay_on(self, sequence: Sequence, decoded: bool) -> None:
        """A sequence that emits no more keeps its row: its blocks take no part in the log from here on."""
        if not decoded:
            self._enter(sequence)
        elif sequence in self._full:
            self._note(sequence)
            self._full[sequence] = self.decoded, -1

    def _leave(self, sequence: Sequence, tokens: int) -> None:
        """What was counted off in full is less by what was not kept."""
        self.context += max(tokens - self._kept, 0)
        self._forget(sequence)

    def _forget(self, sequence: Sequence) -> None:
        if sequence in self._full:
            self._note(sequence)
            del self._full[sequence]
            self.full -= 1
            sequence.phase = -1
            return
        at = self._reached_at.pop(sequence)
        others = self._reach[at]
        others.remove(sequence)
        if not others:
            del self._reach[at]

    def _note(self, sequence: Sequence) -> None:
        since, phase = self._full[sequence]
        if since < self.decoded:
            self._log.held += PACK_STAY(sequence.request_id, since, self.decoded, phase)


class BoundedKV(Part):
    """Sequences keep at most so many tokens as the replica's pool says."""

    name: ClassVar[str] = "bounded-kv"

    def shape(self, shape: IterationShape, plan: Plan) -> IterationShape:
        """Tokens of prompts attend within the window."""
        if not plan.chunks:
            return shape
        return within(shape, plan, self.replica.pool.kept, self.replica.batching.by_layers)

    def after(self) -> None:
        """A sequence that stops growing changes by how much iterations grow longer."""
        batch = self.replica.batch
        if isinstance(batch, BoundedBatch) and batch.bent:
            batch.bent = False
            self.replica.span.steady = False


def within(shape: IterationShape, plan: Plan, kept: int, by_layers: bool) -> IterationShape:
    """The shape of an iteration whose prompts' tokens attend to the last ``kept`` tokens, themselves included.

    Of a prompt in the cache at most ``kept`` tokens are left. Padded prompts are one prompt each, padding included; of
    a prompt that passes some of the layers, whole, as large a share counts as of its tokens.
    """
    cached, pairs = 0, 0.0
    prompt: Any
    for prompt, new in plan.chunks:
        if plan.padded_to:
            pairs += pairs_within(0, plan.padded_to, kept)
            continue
        whole = prompt.uncached_tokens if by_layers else prompt.remaining
        before = prompt.prefill_tokens - whole
        if by_layers:
            cached += min(before, kept) * new // whole
            pairs += pairs_within(before, whole, kept) * (new / whole)
        else:
            cached += min(before, kept)
            pairs += pairs_within(before, new, kept)
    return shape._replace(prefill_ctx_tokens=cached, prefill_pairs=pairs)

"""Sequences that keep a bounded number of tokens in the KV cache: beyond it, a token that comes drops an older one.

What a sequence keeps is ``min(tokens, kept)``, and no function of the batch's sum; so a second calendar says in which
decode iteration each sequence stops growing. Its blocks stop there, and the sum grows by one less.

Invariants: a sequence holds the blocks of at most ``kept`` tokens; the batch's context is the sum of what is kept; a
jump ends where a sequence stops growing, so that jumping is stepping.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf
from typing import Any

from simslm.catalog.work import IterationShape
from simslm.policies.plan import Plan
from simslm.sim.batch import Batch
from simslm.sim.blocks import BlockPool
from simslm.sim.log import PACK_STAY, ReplicaLog
from simslm.sim.replica import UNBOUNDED, Replica
from simslm.sim.sequence import Sequence
from simslm.sim.span import Span
from simslm.sim.window import Window
from simslm.transforms.lm_infinite import pairs_within


class WindowedPool(BlockPool):
    """Blocks of sequences that keep at most ``kept`` tokens each."""

    __slots__ = ("_kept",)

    def __init__(self, num_blocks: int, block_size: int, kept: int) -> None:
        super().__init__(num_blocks, block_size)
        self._kept = kept

    def blocks(self, tokens: int) -> int:
        """Blocks of what is kept of ``tokens`` tokens."""
        return super().blocks(min(tokens, self._kept))

    def start(self, cached_tokens: int, at: int) -> int:
        """As of any pool; -1 for a sequence that does not grow any more."""
        return -1 if cached_tokens >= self._kept else super().start(cached_tokens, at)

    def hold(self, phase: int) -> None:
        """A sequence has stopped growing; it keeps its blocks. Nothing, if they did not grow one by one."""
        if phase >= 0:
            self._growth[phase] -= 1
            self._growing -= 1

    def stop(self, phase: int, cached_tokens: int) -> None:
        """A sequence leaves decoding; one that has stopped growing is in no phase any more."""
        if cached_tokens >= self._kept:
            self.release(self.blocks(cached_tokens))
        else:
            super().stop(phase, cached_tokens)


class WindowedBatch(Batch):
    """A batch whose sequences stop growing at ``kept`` tokens.

    Args:
        kept: most tokens that a sequence keeps.
        pool: where its blocks are.
        log: notes from which decode iteration to which a sequence did not grow.

    Attributes:
        bent: whether somebody has stopped growing since this was last set to False.
    """

    __slots__ = ("_full", "_kept", "_log", "_pool", "_reach", "_reached_at", "_reaches", "bent")

    def __init__(self, kept: int, pool: WindowedPool, log: ReplicaLog) -> None:
        super().__init__()
        self._kept = kept
        self._pool = pool
        self._log = log
        self._full: dict[Sequence, tuple[int, int]] = {}
        self._reach: dict[int, list[Sequence]] = {}
        self._reached_at: dict[Sequence, int] = {}
        self._reaches: list[int] = []
        self.bent = False

    @property
    def growing(self) -> int:
        """Tokens that a decode iteration adds to the context."""
        return self.rows - len(self._full)

    @property
    def until_finish(self) -> int:
        """Decode iterations up to the one in which somebody finishes, or after which somebody stops growing."""
        soonest, reaches = super().until_finish, self._reaches
        while reaches and reaches[0] not in self._reach:
            heappop(reaches)
        return min(soonest, reaches[0] - self.decoded) if reaches else soonest

    def open_rows(self) -> bytes:
        """Packed rows of those that do not grow now."""
        return b"".join(
            PACK_STAY(sequence.request_id, since, self.decoded, phase)
            for sequence, (since, phase) in self._full.items()
        )

    def start(self, sequence: Sequence, tokens: int) -> None:
        super().start(sequence, tokens)
        self._enter(sequence)

    def decode(self, iterations: int) -> list[Sequence] | None:
        self.context -= len(self._full) * iterations
        finishers = super().decode(iterations)
        for sequence in self._reach.pop(self.decoded, ()):
            del self._reached_at[sequence]
            self._full[sequence] = self.decoded, sequence.phase if sequence.decode_from >= 0 else -1
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


class WindowedReplica(Replica):
    """A replica whose sequences keep at most ``engine.kept_tokens`` tokens, without prefix cache."""

    __slots__ = ("_kept",)

    batch: WindowedBatch

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        engine = given[3]
        self._kept: int = engine.kept_tokens
        pool = self.pool = WindowedPool(engine.num_gpu_blocks, engine.block_size, self._kept)
        self.batch = WindowedBatch(self._kept, pool, self.log)
        self.partial = self.batch.partial
        whole = self._prefill_shape

        def windowed_shape(decoding: int, context: int, plan: Plan, unread: int) -> IterationShape:
            shape = whole(decoding, context, plan, unread)
            return within(shape, plan, self._kept, self.batching.by_layers)

        self._prefill_shape = windowed_shape

    def window(self) -> Window:
        self.log.open_held = self.batch.open_rows()
        return super().window()

    def growth(self, shape: IterationShape) -> int:
        del shape
        return self.batch.growing

    def _requeue(self, sequence: Sequence) -> None:
        super()._requeue(sequence)
        sequence.blocks = min(sequence.blocks, self.pool.blocks(self._kept))

    def _decode_span(self, now: float, rows: int, context: int, most: int) -> Span:
        batch, last = self.batch, self.span
        limit, growing = min(batch.until_finish, most), batch.growing
        if last.steady and last.left > last.count:
            left = last.left - last.count
            count = self.pool.horizon(batch.decoded, min(limit, left))
            return Span(last.origin_s, last.first_s, last.growth_s, left, last.done + last.count, count)
        intercept, slope, until = self.cost.decode(rows).segment(context)
        left = UNBOUNDED
        if growing and until != inf:
            left = max(-int((context - until) // growing), 1)
        count = self.pool.horizon(batch.decoded, min(limit, left))
        return Span(now, intercept + slope * context, slope * growing, left, 0, count)

    def _apply(self, plan: Plan, shape: IterationShape, start_s: float) -> None:
        super()._apply(plan, shape, start_s)
        if self.batch.bent:
            self.batch.bent = False
            self.span.steady = False


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

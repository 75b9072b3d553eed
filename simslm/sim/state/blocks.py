"""The KV block pool of one replica, kept as counts: growth by decoding costs nothing per sequence.

A decoding sequence takes a new block every ``block_size`` decode iterations, so all that matters is *when*: the
pool counts, for each residue of the decode iteration's number, how many sequences take a block then.

Invariants: ``free + used == num_blocks``; blocks of cached prefixes that no sequence holds count as free; the blocks
of all pools of a store and its free ones are its ``num_blocks``.
"""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING

from simslm.errors import SimslmError
from simslm.sim.state.prefix import PrefixCache
from simslm.sim.state.sequence import Sequence

if TYPE_CHECKING:
    from simslm.sim.replica import Replica

UNBOUNDED = 1 << 60
"""More tokens than any sequence has."""


class BlockPool:
    """Blocks of ``block_size`` tokens; ``at`` is always the number of a decode iteration of the replica.

    Args:
        num_blocks: all of them.
        block_size: tokens in each.
        prefix: keeps the blocks of finished prompts for others, or None.
        kept: most tokens that a sequence keeps in the cache.

    Attributes:
        most: most blocks that a sequence holds.
        touching: the running sequences in order of admission, where the last of several needs a free block although it
            has room in its own; None where it does not.
        stopped: decoding sequences that do not grow any more.
    """

    __slots__ = (
        "_growing", "_growth", "block_size", "free", "kept", "most", "num_blocks", "prefix",
        "stopped", "touching",
    )  # fmt: skip

    def __init__(
        self, num_blocks: int, block_size: int, prefix: PrefixCache | None = None, kept: int = UNBOUNDED
    ) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.prefix = prefix
        self.free = num_blocks
        self.kept = kept
        self.most = -(-kept // block_size)
        self.stopped: Container[Sequence] = ()
        self.touching: dict[Sequence, None] | None = None
        self._growth = [0] * block_size
        self._growing = 0

    @property
    def used(self) -> int:
        return self.num_blocks - self.free

    def blocks(self, tokens: int) -> int:
        """Blocks of a sequence of ``tokens`` tokens."""
        blocks = -(-tokens // self.block_size)
        return blocks if blocks < self.most else self.most

    def allocate(self, blocks: int) -> None:
        """Takes blocks for a prompt.

        Raises:
            SimslmError: more than are free; a policy admitted what does not fit.
        """
        if blocks > self.free:
            raise SimslmError(f"{blocks} KV blocks were taken where {self.free} were free")
        self.free -= blocks
        if self.prefix is not None:
            self._evict()

    def release(self, blocks: int) -> None:
        """Gives back blocks that were allocated."""
        self.free += blocks

    def start(self, cached_tokens: int, at: int) -> int:
        """A sequence with that many cached tokens decodes from iteration ``at`` on.

        Returns:
            its phase; -1 for a sequence that does not grow any more.
        """
        if cached_tokens >= self.kept:
            return -1
        phase = (at - cached_tokens) % self.block_size
        self._growth[phase] += 1
        self._growing += 1
        return phase

    def stop(self, phase: int, cached_tokens: int) -> None:
        """A sequence that has not stopped growing leaves decoding and gives back all blocks of its cached tokens."""
        self._growth[phase] -= 1
        self._growing -= 1
        self.free -= -cached_tokens // self.block_size

    def hold(self, phase: int) -> None:
        """A sequence has stopped growing; it keeps its blocks. Nothing, if they did not grow one by one."""
        if phase >= 0:
            self._growth[phase] -= 1
            self._growing -= 1

    def demand(self, at: int) -> int:
        """Blocks that iteration ``at`` takes if all sequences decode."""
        return self._growth[at % self.block_size]

    def needed(self, at: int) -> int:
        """Blocks that must be free for iteration ``at``.

        vLLM's V0 engine asks for each running sequence in turn whether a block is free (``can_append_slots``), also
        for one that has room in its last. Each takes what it needs before the next is asked, so it matters for the
        last one only. One that runs alone is let be, or a cache that it fills would stop it for ever.
        """
        running = self.touching
        if running is None or len(running) < 2 or self._takes(next(reversed(running)), at):
            return self.demand(at)
        return self.demand(at) + 1

    def _takes(self, sequence: Sequence, at: int) -> bool:
        return sequence.phase == at % self.block_size and sequence not in self.stopped

    def horizon(self, at: int, limit: int) -> int:
        """How many decode iterations from ``at`` on fit in the free blocks, at most ``limit``."""
        running, free, growing = self.touching, self.free, self._growing
        if running is None or len(running) < 2:
            if not growing or free // growing * self.block_size >= limit:  # as almost always
                return limit
            return self._fitting(at, limit, free)
        most = self._fitting(at, limit, self.free)
        count = self._fitting(at, limit, self.free - 1)
        last = next(reversed(running))
        while count < most and self._takes(last, at + count):
            count += 1
        return count

    def _fitting(self, at: int, limit: int, free: int) -> int:
        """How many iterations fit in so many blocks, of which there may be -1."""
        if free < 0:
            return 0
        size = self.block_size
        cycles = free // self._growing if self._growing else limit
        if cycles * size >= limit:
            return limit
        done, left = cycles * size, free - cycles * self._growing
        while done < limit:
            left -= self._growth[(at + done) % size]
            if left < 0:
                return done
            done += 1
        return limit

    def grow(self, at: int, iterations: int) -> None:
        """Takes what ``iterations`` decode iterations from ``at`` on need."""
        size, growth = self.block_size, self._growth
        first = at % size
        if iterations == 1:
            taken = growth[first]
        else:
            cycles, rest = divmod(iterations, size)
            last = first + rest
            taken = cycles * self._growing + sum(growth[first:last])
            if last > size:
                taken += sum(growth[: last - size])
        self.free -= taken
        if self.prefix is not None:
            self._evict()

    # ---- shared prefixes -----------------------------------------------------------------------------------

    def find_prefix(self, sequence: Sequence) -> None:
        """Notes what of a waiting sequence's prompt is cached now: what is left to prefill, and its blocks.

        Only whole blocks are reused, and the last token is always computed: of a prompt that is cached whole, the last
        block is computed again, in its place (vLLM looks up at most all tokens but one, in whole blocks).
        """
        assert self.prefix is not None
        found = sequence.units[: self.prefix.match(sequence.units)]
        shared = self._full_blocks(sequence, len(found))
        sequence.held = found
        hit = min(shared, (sequence.prefill_tokens - 1) // self.block_size) * self.block_size
        sequence.remaining = sequence.prefill_tokens - hit
        sequence.blocks = self.blocks(sequence.prefill_tokens) - shared + self.prefix.idle_blocks(found)

    def hold_prefix(self, sequence: Sequence) -> None:
        """Takes the cached units that :meth:`find_prefix` found; their blocks are no longer free.

        From here on ``sequence.blocks`` is what remains to allocate. Another sequence admitted at the same time
        may hold some of the units already, so what was idle is counted again.
        """
        assert self.prefix is not None
        self.free -= self.prefix.idle_blocks(sequence.held)
        self.prefix.hold(sequence.held)
        shared = self._full_blocks(sequence, len(sequence.held))
        sequence.blocks = self.blocks(sequence.prefill_tokens) - shared

    def keep_prefix(self, sequence: Sequence) -> None:
        """The prompt is computed: its units are there for others, as long as it or they hold them."""
        assert self.prefix is not None
        for i in range(len(sequence.held), len(sequence.units)):
            blocks = self._full_blocks(sequence, i + 1) - self._full_blocks(sequence, i)
            if not self.prefix.add(sequence.units[i], blocks):
                return
            sequence.held = sequence.units[: i + 1]

    def leave_prefix(self, sequence: Sequence, computed_tokens: int = 0) -> None:
        """Lets go of the units of a sequence that has just given back all its blocks, theirs included.

        Units that others hold keep their blocks; those that no sequence holds count as free, but stay cached until
        their room is needed.

        Args:
            computed_tokens: tokens that it had in the cache, those it had generated included; 0 where its prompt was
                not complete.
        """
        assert self.prefix is not None
        if sequence.context_units and computed_tokens:
            self._keep_context(sequence, computed_tokens)
        shared = self._full_blocks(sequence, len(sequence.held))
        self.free += self.prefix.leave(sequence.held) - shared
        sequence.held = ()

    def _keep_context(self, sequence: Sequence, computed_tokens: int) -> None:
        """What a leaving sequence has generated is there for prompts that go on from it, in full units.

        Where another sequence has cached a unit meanwhile, that copy stays, and the blocks of this one are free.
        """
        assert self.prefix is not None
        units = sequence.context_units
        full, held = min(computed_tokens // sequence.unit_tokens, len(units)), len(sequence.held)
        end = self._full_blocks(sequence, held)
        for i in range(held, full):
            begin, end = end, self._full_blocks(sequence, i + 1)
            blocks = end - begin
            if not self.prefix.add(units[i], blocks):
                self.free += blocks - self.prefix.idle_blocks(units[i : i + 1])
                self.prefix.hold(units[i : i + 1])
        sequence.held = units[: max(full, held)]

    def _full_blocks(self, sequence: Sequence, units: int) -> int:
        """Full blocks in the first ``units`` units of a prompt, or of it and its output; the last unit of a prompt
        may be partly filled.

        A block belongs to the unit in which it ends: units may be smaller than blocks, or cut across them.
        """
        tokens = units * sequence.unit_tokens
        if tokens > sequence.prompt_tokens and units <= len(sequence.units):
            tokens = sequence.prompt_tokens
        return tokens // self.block_size

    def _evict(self) -> None:
        """Drops idle units until no more blocks are cached idly than count as free."""
        assert self.prefix is not None
        while self.prefix.evictable > self.free:
            self.prefix.evict()


class BlockStore:
    """The KV memory of one device (or of one replica of it), and the replicas that take from it.

    Attributes:
        free: blocks that no sequence holds.
        prefix: keeps the blocks of finished prompts for all of them, or None.
        replicas: those that take from it.
    """

    __slots__ = ("free", "num_blocks", "prefix", "replicas")

    def __init__(self, num_blocks: int, prefix: PrefixCache | None) -> None:
        self.num_blocks = num_blocks
        self.free = num_blocks
        self.prefix = prefix
        self.replicas: list[Replica] = []

    @property
    def shared(self) -> bool:
        """Whether several replicas take from it."""
        return len(self.replicas) > 1

    def stir(self) -> None:
        """Blocks are free: the replicas that sleep for want of them look again."""
        for replica in self.replicas:
            if replica.asleep and replica.queued:
                replica.rouse()


class StorePool(BlockPool):
    """The pool of one replica whose free blocks are those of a store."""

    __slots__ = ("store",)

    def __init__(self, store: BlockStore, block_size: int, kept: int = UNBOUNDED) -> None:
        self.store = store
        super().__init__(store.num_blocks, block_size, store.prefix, kept)

    @property
    def free(self) -> int:  # type: ignore[override]
        return self.store.free

    @free.setter
    def free(self, blocks: int) -> None:
        self.store.free = blocks

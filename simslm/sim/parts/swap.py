"""Swapping: preempted sequences wait on the host with what they have computed, and come back to it.

As in vLLM's first engine every iteration waits for the blocks that move. The mechanisms of FastSwitch
(arXiv:2411.18424) are options, each by itself: blocks side by side move in one call; they move while other sequences
run (a sequence is away until its transfer is over, and its blocks are held until then); and the copy on the host is
kept while a sequence is back, so that the next time only what is new moves.

Invariants: a block on the host is free, or of a paused sequence, of a copy, or of a finished turn; the same blocks
cross the link with and without overlap.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from simslm.sim.engine import EngineConfig
from simslm.sim.parts.part import Part
from simslm.sim.state.sequence import Sequence
from simslm.sim.transit import Link, Transit

if TYPE_CHECKING:
    from simslm.sim.parts.turns import KeptTurns
    from simslm.sim.replica import Replica


@dataclass(slots=True)
class HostPool:
    """KV blocks on the host, and what it takes to move them.

    Blocks of one sequence are copied by as many calls as they have groups: ``group_blocks`` that lie side by side
    need one (vLLM: one for each block; FastSwitch, arXiv:2411.18424: block groups).

    Attributes:
        free: blocks not taken.
        s_per_block: time to move one block over the host link.
        s_per_call: fixed time of each copy call.
        group_blocks: blocks that one call copies.
        calls: calls since the last transfer was timed.
    """

    free: int
    s_per_block: float
    s_per_call: float = 0.0
    group_blocks: int = 1
    calls: int = field(default=0, init=False)

    def release(self, blocks: int) -> None:
        self.free += blocks

    def copy(self, blocks: int) -> None:
        """So many blocks of one sequence are copied, one way or the other."""
        self.calls -= -blocks // self.group_blocks

    def copy_s(self, blocks: int) -> float:
        """Time to copy so many blocks of one sequence by themselves."""
        return blocks * self.s_per_block - (-blocks // self.group_blocks) * self.s_per_call

    def transfer_s(self, blocks: int) -> float:
        """Time to move all blocks that were copied since the last time, one call after another."""
        seconds = blocks * self.s_per_block + self.calls * self.s_per_call
        self.calls = 0
        return seconds


@dataclass(frozen=True, slots=True)
class HostCopy:
    """The first tokens of a sequence on the host.

    Attributes:
        blocks: KV blocks that they take there.
        tokens: how many they are.
        there_s: when all of them have arrived, seconds.
    """

    blocks: int
    tokens: int
    there_s: float = 0.0


NOTHING = HostCopy(0, 0)
"""What the host has of a sequence that was never there."""


class Swap(Part):
    """The host memory of a replica.

    Attributes:
        host: its blocks.
        on_host: paused sequences that come back from there, and what is there.
        copies: what is there of sequences that are on the device again.
        turns: finished turns, or None.
    """

    name: ClassVar[str] = "swap"

    def __init__(self, replica: Replica, transit: Transit, engine: EngineConfig) -> None:
        super().__init__(replica)
        self.ranks = engine.swap_overlap or engine.swap_reuse
        self.host = HostPool(
            engine.swap_blocks, engine.swap_s_per_block, engine.swap_s_per_call, engine.swap_group_blocks
        )
        self.on_host: dict[Sequence, HostCopy] = {}
        self.copies: dict[Sequence, HostCopy] = {}
        self.turns: KeptTurns | None = None
        self._transit = transit
        transit.host = self
        self.overlap, self._reuse = engine.swap_overlap, engine.swap_reuse
        self._inward, self._outward = Link(engine.swap_s_per_block), Link(engine.swap_s_per_block)
        self._moved = 0
        self._owed = 0
        self._until_s = 0.0

    # ---- from the device -----------------------------------------------------------------------------------

    def preempted(self, victim: Sequence, freed: int, beside: bool) -> bool:
        """Moves a sequence that decoded to the host; what the host still has of it is not copied again.

        If there is no room for the rest, or the prompt was not complete, it comes back to what the host has; with a
        prefix cache, which may have as much, it begins anew.
        """
        replica, host = self.replica, self.host
        there = self.copies.pop(victim, NOTHING)
        blocks = replica.pool.blocks(victim.prefill_tokens)
        if not victim.remaining and self.make_room(blocks - there.blocks):
            host.free -= blocks - there.blocks
            victim.blocks = replica.room(victim)
            self.on_host[victim] = HostCopy(blocks, victim.prefill_tokens)
            self._transit.pause(victim)
            moved = self.new_blocks(there, victim.prefill_tokens)
            if beside:
                self.copy_out(victim, moved, freed)
            else:
                self.host.copy(moved)
                self._moved += moved
            return True
        if there.tokens and replica.pool.prefix is None and replica.prefills:
            self.come_back(victim, there)
            return True
        host.release(there.blocks)
        return False

    def copy_out(self, sequence: Sequence, moved: int, held: int) -> float:
        """Copies blocks to the host: beside the iterations, if they may overlap, else before the next one.

        Args:
            sequence: whose they are.
            moved: how many.
            held: blocks, free now, that are held here until the others have arrived.

        Returns:
            when they are there, seconds; 0 where the next iteration waits for them.
        """
        if self.overlap:
            there_s = self._outward.take(self.replica.clock.time_s, self.host.copy_s(moved))
            self._transit.send(sequence, held, there_s)
            return there_s
        self.host.copy(moved)
        self._owed += moved
        return 0.0

    def new_blocks(self, there: HostCopy, tokens: int) -> int:
        """Blocks to copy of a sequence of ``tokens`` tokens of which the host has some already.

        A full block does not change, unless a bounded cache comes round to it and drops what it held.
        """
        size = self.replica.pool.block_size
        return min(-(-tokens // size) - there.tokens // size, self.replica.pool.blocks(tokens))

    def make_room(self, blocks: int) -> bool:
        """Makes room on the host, if need be of finished turns, and then of copies; of each the oldest first."""
        host, turns = self.host, self.turns
        kept = 0 if turns is None else turns.blocks
        if blocks > host.free + kept + sum(there.blocks for there in self.copies.values()):
            return False
        while blocks > host.free:
            if turns is not None and turns.blocks:
                turns.drop_oldest()
            else:
                host.release(self.copies.pop(next(iter(self.copies))).blocks)
        return True

    # ---- to the device -------------------------------------------------------------------------------------

    def come_back(self, sequence: Sequence, there: HostCopy) -> None:
        """A sequence waits for what the host has of it; the rest is to be prefilled."""
        self.on_host[sequence] = there
        sequence.prefill_tokens = sequence.prompt_tokens + sequence.generated
        sequence.remaining = sequence.prefill_tokens - there.tokens
        sequence.blocks = self.replica.room(sequence)
        self._transit.pause(sequence)

    def bring(self, sequence: Sequence) -> None:
        """A sequence for whose blocks there is room comes from the host."""
        there = self.on_host[sequence]
        if self.overlap:
            begin_s = max(self.replica.clock.time_s, there.there_s)
            at_s = self._inward.take(begin_s, self.host.copy_s(there.blocks))
            self._transit.carry(sequence, at_s, lambda: self._fetched(sequence))
            return
        self._fetched(sequence)
        self.host.copy(there.blocks)
        self._moved += there.blocks
        self._transit.resume(sequence)

    def _fetched(self, sequence: Sequence) -> None:
        """What the host has of a sequence is on the device; the copy stays there or goes."""
        there = self.on_host.pop(sequence)
        if self._reuse:
            self.copies[sequence] = there
        else:
            self.host.release(there.blocks)

    def ends(self, sequence: Sequence, now: float) -> None:
        """The host lets go of a sequence; but the copy of a turn that lingers is needed until its blocks are given
        back."""
        if sequence.cancelled and (there := self.on_host.pop(sequence, None)) is not None:
            self.host.release(there.blocks)
        if self.copies and (self.turns is None or sequence not in self.replica.batch.lingering):
            self.host.release(self.copies.pop(sequence, NOTHING).blocks)

    def moves_on(self, sequence: Sequence) -> None:
        """What the host has of a sequence is not at the other replica."""
        for held in (self.on_host, self.copies):
            if (there := held.pop(sequence, None)) is not None:
                self.host.release(there.blocks)

    # ---- around an iteration -------------------------------------------------------------------------------

    def short(self) -> None:
        """Before a sequence is preempted, the iteration waits for the blocks that are under way to the host."""
        if self._transit.leaving:
            self._until_s = self._outward.free_s
            self._transit.let_go()

    def waits(self, now: float) -> float:
        wait_s = 0.0
        if self._moved:
            wait_s = self.host.transfer_s(self._moved)
            self._moved = 0
        if self._owed:
            wait_s += self.host.transfer_s(self._owed)
            self._owed = 0
        if self.overlap and wait_s:
            self._until_s = self._outward.take(now, wait_s)
        return self._until_s - now if self._until_s > now else wait_s

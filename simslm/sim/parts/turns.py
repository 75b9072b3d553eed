"""Finished turns on the host: what was computed for a conversation waits there for its next turn.

The multi-turn part of FastSwitch (arXiv:2411.18424): the KV cache of a conversation stays in host memory between its
turns, is read back instead of computed again, and only what is new is written when a turn ends.

Invariant: a session has one turn here at most, the one that ended last, until its next turn takes it away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from simslm.sim.parts.part import Part
from simslm.sim.parts.swap import NOTHING, HostCopy, HostPool, Swap
from simslm.sim.state.blocks import BlockPool
from simslm.sim.state.sequence import Sequence, Units

if TYPE_CHECKING:
    from simslm.sim.replica import Replica


@dataclass(frozen=True, slots=True)
class Turn:
    """A finished turn.

    Attributes:
        copy: its prompt and its output.
        units: hashes of them, full units of ``unit_tokens`` tokens each.
        whole: only a prompt that goes on from all of them finds it, for the oldest tokens have been dropped.
    """

    copy: HostCopy
    units: Units
    unit_tokens: int
    whole: bool = False

    def shared_tokens(self, sequence: Sequence, block_size: int) -> int:
        """Tokens at the head of a sequence's prompt that are these, in whole blocks; never its last one."""
        same = 0
        for mine, theirs in zip(self.units, sequence.units, strict=False):
            if mine != theirs:
                break
            same += 1
        tokens = same * self.unit_tokens
        if self.whole and (same < len(self.units) or tokens >= sequence.prompt_tokens):
            return 0
        return min(tokens, sequence.prompt_tokens - 1) // block_size * block_size


class KeptTurns:
    """The turns on a host, the one that ended first first.

    Args:
        host: whose blocks they take.
        pool: says how many blocks tokens take.
    """

    __slots__ = ("_host", "_pool", "_turns", "blocks")

    def __init__(self, host: HostPool, pool: BlockPool) -> None:
        self._host = host
        self._pool = pool
        self._turns: dict[int, Turn] = {}
        self.blocks = 0

    def keep(self, session: int, turn: Turn) -> None:
        """A turn is kept; there is no other of its session, and its blocks on the host are taken already."""
        self._turns[session] = turn
        self.blocks += turn.copy.blocks

    def shared_tokens(self, sequence: Sequence) -> int:
        """Tokens at the head of a sequence's prompt that are here."""
        turn = self._turns.get(sequence.session_id)
        return 0 if turn is None else turn.shared_tokens(sequence, self._pool.block_size)

    def claim(self, sequence: Sequence) -> HostCopy | None:
        """Gives a sequence what is here of its prompt, which then is its own; blocks of anything behind that are free.

        Returns:
            None if there is nothing of it.
        """
        tokens = self.shared_tokens(sequence)
        if not tokens:
            return None
        turn = self._take(sequence.session_id)
        blocks = self._pool.blocks(tokens)
        self._host.release(turn.copy.blocks - blocks)
        return HostCopy(blocks, tokens, turn.copy.there_s)

    def forget(self, session: int) -> None:
        """The turn of a session, if there is one, makes place for its next."""
        if session in self._turns:
            self._host.release(self._take(session).copy.blocks)

    def drop_oldest(self) -> None:
        """The turn that ended first is lost; there must be one."""
        self.forget(next(iter(self._turns)))

    def _take(self, session: int) -> Turn:
        turn = self._turns.pop(session)
        self.blocks -= turn.copy.blocks
        return turn


class Turns(Part):
    """Keeps finished turns, and gives them to the turns that go on from them.

    Attributes:
        kept: those on the host.
    """

    name: ClassVar[str] = "turns"
    ranks = True

    def __init__(self, replica: Replica, swap: Swap) -> None:
        super().__init__(replica)
        self._swap = swap
        self.kept = swap.turns = KeptTurns(swap.host, replica.pool)

    def arrives(self, sequence: Sequence) -> bool:
        """A turn that goes on from one on the host comes back to it, unless the device has more of it cached."""
        replica = self.replica
        cached = replica.cached_units(sequence) * sequence.unit_tokens
        if cached and cached >= self.kept.shared_tokens(sequence):
            return False
        there = self.kept.claim(sequence)
        if there is None:
            return False
        replica.outstanding += 1
        self._swap.come_back(sequence, there)
        replica.rouse()
        return True

    def leaves(self, sequence: Sequence, tokens: int, freed: int) -> None:
        """Copies what is new of a finished turn to the host, if there is room."""
        replica, swap = self.replica, self._swap
        if sequence.prompt_tokens + replica.output_tokens[sequence.row] - 1 > tokens:
            return
        there = swap.copies.pop(sequence, NOTHING)
        blocks = replica.pool.blocks(tokens)
        self.kept.forget(sequence.session_id)
        unknown = sequence.session_id < 0 or not sequence.unit_tokens
        if unknown or not swap.make_room(blocks - there.blocks):
            swap.host.release(there.blocks)
            return
        swap.host.free -= blocks - there.blocks
        moved = swap.new_blocks(there, tokens)
        there_s = swap.copy_out(sequence, moved, min(moved, freed))
        units = sequence.context_units[: tokens // sequence.unit_tokens]
        copy = HostCopy(blocks, tokens, there_s)
        self.kept.keep(
            sequence.session_id, Turn(copy, units, sequence.unit_tokens, tokens > replica.pool.kept)
        )

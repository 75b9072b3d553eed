"""Finished turns on the host: what was computed for a conversation waits there for its next turn.

The multi-turn part of FastSwitch (arXiv:2411.18424): the KV cache of a conversation stays in host memory between its
turns, is read back instead of computed again, and only what is new is written when a turn ends.

Invariant: a session has one turn here at most, the one that ended last, until its next turn takes it away.
"""

from __future__ import annotations

from dataclasses import dataclass

from simslm.sim.sequence import Sequence, Units
from simslm.sim.swap import HostPool


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


@dataclass(frozen=True, slots=True)
class Turn:
    """A finished turn.

    Attributes:
        copy: its prompt and its output.
        units: hashes of them, full units of ``unit_tokens`` tokens each.
    """

    copy: HostCopy
    units: Units
    unit_tokens: int

    def shared_tokens(self, sequence: Sequence, block_size: int) -> int:
        """Tokens at the head of a sequence's prompt that are these, in whole blocks; never its last one."""
        same = 0
        for mine, theirs in zip(self.units, sequence.units, strict=False):
            if mine != theirs:
                break
            same += 1
        return min(same * self.unit_tokens, sequence.prompt_tokens - 1) // block_size * block_size


class KeptTurns:
    """The turns on a host, the one that ended first first.

    Args:
        host: whose blocks they take.
        block_size: tokens in each.
    """

    __slots__ = ("_block_size", "_host", "_turns", "blocks")

    def __init__(self, host: HostPool, block_size: int) -> None:
        self._host = host
        self._block_size = block_size
        self._turns: dict[int, Turn] = {}
        self.blocks = 0

    def keep(self, session: int, turn: Turn) -> None:
        """A turn is kept; there is no other of its session, and its blocks on the host are taken already."""
        self._turns[session] = turn
        self.blocks += turn.copy.blocks

    def claim(self, sequence: Sequence) -> HostCopy | None:
        """Gives a sequence what is here of its prompt, which then is its own; blocks of anything behind that are free.

        Returns:
            None if there is nothing of it.
        """
        turn = self._turns.get(sequence.session_id)
        if turn is None or not (tokens := turn.shared_tokens(sequence, self._block_size)):
            return None
        self._take(sequence.session_id)
        blocks = tokens // self._block_size
        self._host.release(turn.copy.blocks - blocks)
        return HostCopy(blocks, tokens, turn.copy.there_s)

    def forget(self, session: int) -> None:
        """Whatever is here of a session makes place for its next turn."""
        if session in self._turns:
            self._host.release(self._take(session).copy.blocks)

    def drop_oldest(self) -> None:
        """The turn that ended first is lost; there must be one."""
        self.forget(next(iter(self._turns)))

    def _take(self, session: int) -> Turn:
        turn = self._turns.pop(session)
        self.blocks -= turn.copy.blocks
        return turn

"""The KV block pool of one replica, kept as counts: growth by decoding costs nothing per sequence.

A decoding sequence takes a new block every ``block_size`` decode iterations, so all that matters is *when*: the
pool counts, for each residue of the decode iteration's number, how many sequences take a block then.

Invariant: ``free + used == num_blocks``, with every block of an admitted sequence counted once.
"""

from __future__ import annotations

from array import array

from simslm.errors import SimslmError


class BlockPool:
    """Blocks of ``block_size`` tokens; ``at`` is always the number of a decode iteration of the replica."""

    __slots__ = ("_growing", "_growth", "block_size", "free", "num_blocks")

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.free = num_blocks
        self._growth = [0] * block_size
        self._growing = 0

    @property
    def used(self) -> int:
        return self.num_blocks - self.free

    def blocks(self, tokens: int) -> int:
        """Blocks that hold ``tokens`` tokens."""
        return -(-tokens // self.block_size)

    def allocate(self, blocks: int) -> None:
        """Takes blocks for a prompt.

        Raises:
            SimslmError: more than are free; a policy admitted what does not fit.
        """
        if blocks > self.free:
            raise SimslmError(f"{blocks} KV blocks were taken where {self.free} were free")
        self.free -= blocks

    def start(self, cached_tokens: int, at: int) -> int:
        """A sequence with that many cached tokens decodes from iteration ``at`` on; returns its phase."""
        phase = (at - cached_tokens) % self.block_size
        self._growth[phase] += 1
        self._growing += 1
        return phase

    def stop(self, phase: int, cached_tokens: int) -> None:
        """A sequence leaves decoding and gives back all blocks of its cached tokens."""
        self._growth[phase] -= 1
        self._growing -= 1
        self.free += self.blocks(cached_tokens)

    def release(self, blocks: int) -> None:
        """Gives back the blocks of a prompt that was not decoding yet."""
        self.free += blocks

    def demand(self, at: int) -> int:
        """Blocks that iteration ``at`` takes if everybody decodes."""
        return self._growth[at % self.block_size]

    def horizon(self, at: int, limit: int) -> int:
        """How many decode iterations from ``at`` on fit in the free blocks, at most ``limit``."""
        size, free = self.block_size, self.free
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

    def grow(self, at: int, iterations: int, used: array) -> None:
        """Takes what ``iterations`` decode iterations from ``at`` on need, noting the used blocks of each."""
        size, growth = self.block_size, self._growth
        now = self.num_blocks - self.free
        for i in range(at, at + iterations):
            now += growth[i % size]
            used.append(now)
        self.free = self.num_blocks - now

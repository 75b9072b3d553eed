"""Host memory that preempted sequences and finished turns are swapped to, and what it takes to move them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class HostPool:
    """KV blocks on the host.

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

    def take(self, blocks: int) -> bool:
        """Takes room for so many blocks and copies them there; False when there is not enough."""
        if blocks > self.free:
            return False
        self.free -= blocks
        self.copy(blocks)
        return True

    def release(self, blocks: int) -> None:
        self.free += blocks

    def fetch(self, blocks: int) -> None:
        """Copies blocks back and releases them."""
        self.free += blocks
        self.copy(blocks)

    def copy(self, blocks: int) -> None:
        """So many blocks of one sequence are copied, one way or the other."""
        self.calls -= -blocks // self.group_blocks

    def copy_s(self, blocks: int) -> float:
        """Time to copy so many blocks of one sequence by themselves."""
        return blocks * self.s_per_block - (-blocks // self.group_blocks) * self.s_per_call

    def transfer_s(self, blocks: int) -> float:
        """Time to move all blocks that were copied since the last time; the device waits, as in vLLM's first engine."""
        seconds = blocks * self.s_per_block + self.calls * self.s_per_call
        self.calls = 0
        return seconds

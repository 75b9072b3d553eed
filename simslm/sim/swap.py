"""Host memory that preempted sequences are swapped to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class HostPool:
    """KV blocks on the host.

    Attributes:
        free: blocks not taken.
        s_per_block: time to move one block over the host link.
    """

    free: int
    s_per_block: float

    def take(self, blocks: int) -> bool:
        """Takes room for so many blocks; False when there is not enough."""
        if blocks > self.free:
            return False
        self.free -= blocks
        return True

    def release(self, blocks: int) -> None:
        self.free += blocks

    def transfer_s(self, blocks: int) -> float:
        """Time to move blocks; the device waits, as in vLLM's first engine."""
        return blocks * self.s_per_block

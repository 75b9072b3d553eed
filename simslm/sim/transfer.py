"""A link that KV blocks cross, one transfer after another."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Link:
    """One direction of a link.

    Attributes:
        s_per_block: time to move one KV block.
        free_s: when it is done with all that was begun.
    """

    s_per_block: float
    free_s: float = field(default=0.0, init=False)

    def begin(self, now: float, blocks: int) -> float:
        """Transfers blocks after all that was begun before; returns when they are across, in seconds."""
        return self.take(now, blocks * self.s_per_block)

    def take(self, now: float, seconds: float) -> float:
        """The same for a transfer of so many seconds."""
        self.free_s = max(self.free_s, now) + seconds
        return self.free_s

"""Prefix cache: blocks of finished prompts stay until their room is needed, and are shared while they stay.

Prompts come as chains of *units*, each a hash of a fixed number of tokens and of all before them, so that equal
hashes mean equal prefixes. A unit is held by the sequences that use it; held by none it waits in order of last
use and is evicted from the front (LRU), the tail of a chain before its head.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence


class PrefixCache:
    """Which units are cached, who holds them, and which go first.

    Attributes:
        evictable: blocks of units that no sequence holds.
    """

    __slots__ = ("_blocks", "_holders", "_idle", "evictable")

    def __init__(self) -> None:
        self._blocks: dict[int, int] = {}
        self._holders: dict[int, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()
        self.evictable = 0

    def match(self, units: Sequence[int]) -> int:
        """How many leading units are cached."""
        blocks = self._blocks
        for i, unit in enumerate(units):
            if unit not in blocks:
                return i
        return len(units)

    def idle_blocks(self, units: Sequence[int]) -> int:
        """Blocks of those units that no sequence holds: holding them makes that many fewer evictable."""
        return sum(self._blocks[unit] for unit in units if unit in self._idle)

    def hold(self, units: Sequence[int]) -> None:
        """One more sequence uses these cached units."""
        for unit in units:
            self._holders[unit] += 1
            if unit in self._idle:
                del self._idle[unit]
                self.evictable -= self._blocks[unit]

    def add(self, unit: int, blocks: int) -> bool:
        """Caches a unit its sequence has computed, held by it; False when it is cached already."""
        if unit in self._blocks:
            return False
        self._blocks[unit] = blocks
        self._holders[unit] = 1
        return True

    def leave(self, units: Sequence[int]) -> int:
        """A sequence no longer uses these units; returns the blocks of those that none holds now."""
        idle = 0
        for unit in reversed(units):
            self._holders[unit] -= 1
            if not self._holders[unit]:
                self._idle[unit] = None
                idle += self._blocks[unit]
        self.evictable += idle
        return idle

    def evict(self) -> int:
        """Drops the unit that has not been used for longest; returns its blocks."""
        unit, _ = self._idle.popitem(last=False)
        blocks = self._blocks.pop(unit)
        del self._holders[unit]
        self.evictable -= blocks
        return blocks

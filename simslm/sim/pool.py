"""KV blocks that several replicas of a device take from: one store of free blocks, a calendar of growth for each.

Invariant: the blocks of all its pools and the free ones are ``num_blocks``; a block is taken when an iteration that
needs it begins, so that nobody else takes it while the iteration runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from simslm.sim.blocks import BlockPool
from simslm.sim.prefix import PrefixCache

if TYPE_CHECKING:
    from simslm.sim.phases import PhaseReplica


class BlockStore:
    """The KV memory of one device (or of one replica of it), and who takes from it.

    Attributes:
        free: blocks nobody holds.
        prefix: keeps the blocks of finished prompts for all of them, or None.
        replicas: those that take from it.
    """

    __slots__ = ("free", "num_blocks", "prefix", "replicas")

    def __init__(self, num_blocks: int, prefix: PrefixCache | None) -> None:
        self.num_blocks = num_blocks
        self.free = num_blocks
        self.prefix = prefix
        self.replicas: list[PhaseReplica] = []


class StorePool(BlockPool):
    """The pool of one replica whose free blocks are those of a store."""

    __slots__ = ("store",)

    def __init__(self, store: BlockStore, block_size: int) -> None:
        self.store = store
        super().__init__(store.num_blocks, block_size, store.prefix)

    @property
    def free(self) -> int:  # type: ignore[override]
        return self.store.free

    @free.setter
    def free(self, blocks: int) -> None:
        self.store.free = blocks

"""The paged KV cache: keys and values of every layer in blocks, and the pool that hands blocks out.

Invariants: a block has one owner; slot ``s`` is position ``s % block_size`` of block ``s // block_size``; the
cache is filled with random values, so that reading a context that was never prefilled costs what real data costs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from simslm.catalog.architecture import Architecture
from simslm.errors import DeviceError

BLOCK_SIZE = 16
"""Tokens of one KV block, as in vLLM."""

_TILE_BLOCKS = 256


class PagedCache:
    """Keys and values of all layers, each ``(num_blocks + 1, block_size, kv_heads, head_dim)``.

    Attributes:
        keys, values: one tensor per layer.
        num_blocks: blocks that sequences may own; the one after them is spare, for rows that are padding.
        block_size: tokens per block.
    """

    def __init__(
        self,
        architecture: Architecture,
        num_blocks: int,
        *,
        block_size: int = BLOCK_SIZE,
        dtype: torch.dtype,
        device: torch.device,
        seed: int = 1,
    ) -> None:
        self.num_blocks, self.block_size = num_blocks, block_size
        shape = (num_blocks + 1, block_size, architecture.num_kv_heads, architecture.head_dim)
        generator = torch.Generator(device=device).manual_seed(seed)
        tile = torch.empty((min(_TILE_BLOCKS, num_blocks), *shape[1:]), dtype=dtype, device=device)
        tile.normal_(generator=generator)
        layers = range(architecture.num_layers)
        self.keys = [_filled(shape, tile) for _ in layers]
        self.values = [_filled(shape, tile) for _ in layers]

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store new ``keys`` and ``values`` ``(tokens, kv_heads, head_dim)`` in ``slots`` ``(tokens,)``."""
        self.keys[layer].flatten(0, 1).index_copy_(0, slots, keys)
        self.values[layer].flatten(0, 1).index_copy_(0, slots, values)


def _filled(shape: tuple[int, ...], tile: Tensor) -> Tensor:
    """A tensor of ``shape`` filled with copies of ``tile``: far faster than drawing every value."""
    filled = torch.empty(shape, dtype=tile.dtype, device=tile.device)
    for start in range(0, shape[0], len(tile)):
        part = filled[start : start + len(tile)]
        part.copy_(tile[: len(part)])
    return filled


class BlockPool:
    """Free blocks, handed out in the order of their release; shuffled at first, as after hours of service."""

    def __init__(self, num_blocks: int, seed: int = 2) -> None:
        self.num_blocks = num_blocks
        self._free = np.random.default_rng(seed).permutation(num_blocks)
        self._start = 0

    @property
    def free(self) -> int:
        """Blocks that no sequence owns."""
        return len(self._free) - self._start

    def allocate(self, count: int) -> np.ndarray:
        """Own ``count`` blocks.

        Raises:
            DeviceError: when fewer are free.
        """
        if count > self.free:
            raise DeviceError(
                f"the KV cache has {self.free} free blocks of {self.num_blocks}, {count} were asked for",
                remedy="build the engine with more blocks, or run fewer or shorter sequences",
            )
        blocks = self._free[self._start : self._start + count]
        self._start += count
        return blocks

    def release(self, blocks: Sequence[int] | np.ndarray) -> None:
        """Give blocks back."""
        self._free = np.concatenate([self._free[self._start :], np.asarray(blocks, dtype=np.int64)])
        self._start = 0

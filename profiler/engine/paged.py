"""Attention that reads the paged cache in place, by Triton kernels: no gathering, no padding.

A batch's queries are cut into tiles. Chunks whose rows fit a small tile (every decoding sequence, and prompts' last
few tokens) take one each, and their keys are split over as many programs as fill the device. Longer chunks are cut
into large tiles, those with the most keys first. So a batch of one sort is one launch per layer, a mixed one two, and
split contexts take one more to be put together.

How many parts contexts are split into depends on the numbers of tiles and heads, never on lengths: a program reads
its own part from the tile, so that a plan over the same tensors holds for any lengths written there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from profiler.engine.batch import Chunk, Layout, lay_out_ragged
from profiler.engine.cache import PagedCache
from profiler.engine.kernels import attend_tile, combine_splits, product_type
from profiler.engine.tables import BlockTables
from profiler.engine.tiles import Fitting, Options, power_of_two, shared_bytes
from simslm.catalog.architecture import Architecture

_LEAST_DIM = 16
_LEAST_KEYS = 16
_WIDEST = 128
_SPLIT_KEYS = 64
_MOST_SPLITS = 64
_PROGRAMS_PER_PROCESSOR = 2
_CPU_PROCESSORS = 2


@dataclass(frozen=True, slots=True)
class Size:
    """The size of the tiles of one launch.

    Attributes:
        rows: queries times the heads that share a key head, a power of two.
        keys: read in one step, a power of two.
        warps, stages: how the kernel is compiled.
    """

    rows: int
    keys: int
    warps: int
    stages: int

    def compiling(self) -> list[Options]:
        """As the kernel takes them, and after that with less and less shared memory."""
        steps = [(self.keys, self.stages)]
        while steps[-1] != (_LEAST_KEYS, 1):
            keys, stages = steps[-1]
            steps.append((keys, stages - 1) if stages > 2 or keys == _LEAST_KEYS else (keys // 2, stages))
        return [{"BLOCK_N": keys, "num_warps": self.warps, "num_stages": stages} for keys, stages in steps]


@dataclass(frozen=True, slots=True)
class Launch:
    """Tiles of one size.

    Attributes:
        tiles: as the kernel takes them, ``(tiles * 4,)``.
        size: of each.
        splits: parts of their contexts.
        rows: most rows of a tile that are in use.
        partial, partial_lse: where the parts go; None for one part.
    """

    tiles: Tensor
    size: Size
    splits: int
    rows: int
    partial: Tensor | None = None
    partial_lse: Tensor | None = None

    def tiling(self) -> dict[str, Any]:
        """Height and splits, as both kernels take them."""
        return {"BLOCK_M": self.size.rows, "SPLITS": self.splits}


@dataclass(frozen=True, slots=True)
class PagedPlan:
    """A batch on the device.

    Attributes:
        launches: cover all rows.
        pages: block tables end to end, of these sequences and of others.
    """

    launches: list[Launch]
    pages: Tensor


class PagedAttention:
    """Attention in place.

    Args:
        architecture: of the model.
        cache: what is read.
        processors: multiprocessors that contexts are split over; by default the device's.
        shared: bytes of shared memory that a tile may take; by default the device's.

    Attributes:
        queries: most queries of a small and of a large tile.
        tables: the block tables of the sequences, on the device.
    """

    def __init__(
        self,
        architecture: Architecture,
        cache: PagedCache,
        processors: int | None = None,
        shared: int | None = None,
    ) -> None:
        self._cache, like = cache, cache.keys[0]
        self._heads, width = architecture.num_kv_heads, architecture.head_dim
        self._group = architecture.num_heads // architecture.num_kv_heads
        self._windows: list[dict[str, Any]] = [{"WINDOW": window or 0} for window in architecture.windows()]
        cap = architecture.attention_softcap
        scale = architecture.query_pre_attn_scalar**-0.5
        self._scale = (2 * scale / cap if cap else scale) * math.log2(math.e)
        self._padded = max(_LEAST_DIM, power_of_two(width))
        self._shape: dict[str, Any] = {
            "KV_HEADS": self._heads,
            "GROUP": self._group,
            "HEAD_DIM": width,
            "PADDED_DIM": self._padded,
        }
        self._step: dict[str, Any] = {
            "PAGE": cache.block_size,
            "CAP": (cap or 0.0) * math.log2(math.e),
            "PRODUCT": product_type(like),
        }
        self._processors = processors or _processors(like.device)
        self._most_splits = min(_MOST_SPLITS, -(-architecture.max_position_embeddings // _SPLIT_KEYS))
        room = shared or shared_bytes(like.device)
        self._small, self._large = _sizes(self._group, self._padded, like.element_size(), room)
        self.queries = self._small.rows // self._group, self._large.rows // self._group
        longest = -(-architecture.max_position_embeddings // cache.block_size)
        self.tables = BlockTables(longest, like.device)
        self._fitting = Fitting()
        self._options = {size: size.compiling() for size in (self._small, self._large)}

    def lay_out(self, batch: Sequence[Chunk]) -> Layout:
        return lay_out_ragged(batch, self._cache.block_size, self.tables, *self.queries)

    def plan(self, layout: Layout, positions: Tensor, tables: Sequence[Tensor]) -> PagedPlan:
        small, large, *lacking = tables
        self.tables.update(*lacking)
        launches = []
        if len(small):
            launches.append(self._split(small, layout.tallest * self._group))
        if len(large):
            launches.append(Launch(large, self._large, 1, self._large.rows))
        return PagedPlan(launches, self.tables.pages)

    def attend(self, layer: int, queries: Tensor, plan: PagedPlan) -> Tensor:
        out = torch.empty(queries.shape, dtype=queries.dtype, device=queries.device)
        for launch in plan.launches:
            self._attend(layer, queries, out, launch, plan.pages)
            if launch.splits > 1:
                self._combine(out, launch)
        return out

    def _attend(self, layer: int, queries: Tensor, out: Tensor, launch: Launch, pages: Tensor) -> None:
        grid = (len(launch.tiles) // 4, self._heads, launch.splits)

        def run(options: Options) -> None:
            attend_tile[grid](
                queries,
                self._cache.keys[layer],
                self._cache.values[layer],
                out,
                launch.partial,
                launch.partial_lse,
                launch.tiles,
                pages,
                queries.stride(0),
                self._scale,
                **self._windows[layer],
                **self._shape,
                **self._step,
                **launch.tiling(),
                **options,
            )

        key = launch.size, self._windows[layer]["WINDOW"]
        self._fitting.launch(key, self._options[launch.size], run)

    def _combine(self, out: Tensor, launch: Launch) -> None:
        combine_splits[(len(launch.tiles) // 4, self._heads, launch.rows)](
            out,
            launch.partial,
            launch.partial_lse,
            launch.tiles,
            **self._shape,
            **launch.tiling(),
        )

    def _split(self, tiles: Tensor, rows: int) -> Launch:
        """Small tiles, their contexts in as many parts as fill the device: a power of two."""
        seqs = len(tiles) // 4
        wanted = _PROGRAMS_PER_PROCESSOR * self._processors // (seqs * self._heads)
        splits = power_of_two(max(1, min(wanted, self._most_splits)) + 1) // 2
        if splits == 1:
            return Launch(tiles, self._small, 1, rows)
        shape = (seqs, self._heads, splits, self._small.rows)
        lse = torch.empty(shape, dtype=torch.float32, device=tiles.device)
        return Launch(tiles, self._small, splits, rows, lse.new_empty(*shape, self._padded), lse)


def _sizes(group: int, padded: int, itemsize: int, shared: int) -> tuple[Size, Size]:
    """Small and large tiles whose queries take no more than half of the shared memory, so that keys have room."""
    least, most = power_of_two(group), power_of_two(shared // (2 * padded * itemsize) + 1) // 2
    if itemsize > 2 or padded > _WIDEST:
        return Size(max(16, least), 32, 4, 2), Size(max(min(64, most), least), 32, 8, 2)
    rows = max(min(128, most), least)
    return Size(max(16, least), 64, 4, 3), Size(rows, 64, 8 if padded > 64 else 4, 3)


def _processors(device: torch.device) -> int:
    if device.type != "cuda":
        return _CPU_PROCESSORS
    return torch.cuda.get_device_properties(device).multi_processor_count

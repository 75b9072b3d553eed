"""Attention over a paged cache: the interface, and two ways with torch alone.

:class:`TiledAttention` is the fastest found with torch on a CPU: gather the pages of a span into a workspace
that stays in the processor's cache, then two matrix products per tile of queries. Its grouped queries share
their key head without a copy. :class:`FusedAttention` hands the gathered pages to
``scaled_dot_product_attention``, whose fused kernels a GPU needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.bias import causal_lower_right

from profiler.engine.batch import Chunk, Layout, Span, lay_out
from profiler.engine.cache import PagedCache
from simslm.catalog.architecture import Architecture

_WORKSPACE_BYTES = 4 * 2**20
_SCORE_BYTES = 16 * 2**20
_TILE_QUERIES = 256
_SMALLEST_TILE = 32
_GPU_SPAN_BYTES = 512 * 2**20
_HIDDEN, _SEEN = np.float32("-inf"), np.float32(0)


@dataclass(frozen=True, slots=True)
class Tile:
    """Some queries of a span and the keys they may see.

    Attributes:
        queries: which of each chunk's new tokens.
        keys: how many keys, from position 0, any of them may see.
        bias: zero where a query sees a key and minus infinity elsewhere, ``(seqs, 1, queries, tail)``, for
            the last ``tail`` keys; every query sees all keys before those. Fused attention of chunks has
            torch's causal bias in its place.
    """

    queries: slice
    keys: int
    bias: Tensor


@dataclass(frozen=True, slots=True)
class SpanPlan:
    """A span on the device.

    Attributes:
        rows, seqs, new: as in :class:`Span`.
        pages: its block tables in a row, ``(seqs * pages,)``.
        tiles: its queries in order.
    """

    rows: slice
    seqs: int
    new: int
    pages: Tensor
    tiles: list[Tile]


class Attention(Protocol):
    """How the engine attends."""

    def lay_out(self, batch: Sequence[Chunk]) -> Layout:
        """Order a batch, and say what of it must be on the device."""
        ...

    def plan(self, layout: Layout, positions: Tensor, tables: Sequence[Tensor]) -> Any:
        """Make what every layer needs, once per iteration, without waiting for the device.

        Args:
            layout: of the batch.
            positions: of every row, on the device, ``(rows,)``.
            tables: the layout's, on the device, flat.
        """
        ...

    def attend(self, layer: int, queries: Tensor, plan: Any, /) -> Tensor:
        """Attention of ``queries`` ``(rows, query_size)`` over the cache, of the same shape."""
        ...


class TiledAttention:
    """Gathered pages and matrix products, tile by tile; made for processors with a few MiB of cache."""

    def __init__(self, architecture: Architecture, cache: PagedCache) -> None:
        self._cache = cache
        self._heads, self._width = architecture.num_kv_heads, architecture.head_dim
        self._group = architecture.num_heads // architecture.num_kv_heads
        self._scale = architecture.head_dim**-0.5
        like = cache.keys[0]
        self._dtype, self._device = like.dtype, like.device
        page_bytes = like[0].numel() * like.element_size()
        self._span_pages = max(1, _WORKSPACE_BYTES // page_bytes)
        longest = -(-architecture.max_position_embeddings // cache.block_size)
        size = max(self._span_pages, longest) * like[0].numel()
        self._gathered, self._by_head, self._by_head_values = (
            torch.empty(size, dtype=self._dtype, device=self._device) for _ in range(3)
        )

    def lay_out(self, batch: Sequence[Chunk]) -> Layout:
        return lay_out(batch, self._cache.block_size, self._span_pages)

    def plan(self, layout: Layout, positions: Tensor, tables: Sequence[Tensor]) -> list[SpanPlan]:
        return [
            _span_plan(span, pages, self._tiles(span))
            for span, pages in zip(layout.spans, tables, strict=True)
        ]

    def attend(self, layer: int, queries: Tensor, plans: Sequence[SpanPlan]) -> Tensor:
        out = torch.empty_like(queries)
        scaled = queries * self._scale
        for plan in plans:
            shape = (plan.seqs, plan.new, self._heads, self._group, self._width)
            self._attend_span(layer, scaled[plan.rows].view(shape), out[plan.rows].view(shape), plan)
        return out

    def _attend_span(self, layer: int, queries: Tensor, out: Tensor, plan: SpanPlan) -> None:
        """Attention of ``queries`` ``(seqs, new, kv_heads, group, head_dim)`` into ``out``."""
        keys = self._gather(self._cache.keys[layer], plan, self._by_head).transpose(-1, -2)
        values = self._gather(self._cache.values[layer], plan, self._by_head_values)
        for tile in plan.tiles:
            q = queries[:, tile.queries].permute(2, 0, 3, 1, 4)
            scores = q.reshape(self._heads, plan.seqs, -1, self._width) @ keys[..., : tile.keys]
            scores.view(*q.shape[:4], tile.keys)[..., -tile.bias.shape[-1] :] += tile.bias
            mixed = torch.softmax(scores, -1) @ values[:, :, : tile.keys]
            out[:, tile.queries] = mixed.view(q.shape).permute(1, 3, 0, 2, 4)

    def _gather(self, cache: Tensor, plan: SpanPlan, workspace: Tensor) -> Tensor:
        """The span's pages of one layer, by head: ``(kv_heads, seqs, keys, head_dim)``."""
        shape = (len(plan.pages), *cache.shape[1:])
        size = plan.pages.numel() * cache[0].numel()
        pages = torch.index_select(cache, 0, plan.pages, out=self._gathered[:size].view(shape))
        by_token = pages.view(plan.seqs, -1, self._heads, self._width)
        by_head = workspace[:size].view(self._heads, plan.seqs, -1, self._width)
        return by_head.copy_(by_token.permute(2, 0, 1, 3))

    def _tiles(self, span: Span) -> list[Tile]:
        """Tiles small enough for their scores to stay in the processor's cache."""
        keys = span.blocks.shape[1] * self._cache.block_size
        per_query = span.seqs * self._heads * self._group * keys * self._dtype.itemsize
        size = max(_SMALLEST_TILE, min(_TILE_QUERIES, _SCORE_BYTES // per_query // 32 * 32))
        return [self._tile(span, start, min(span.new, start + size)) for start in range(0, span.new, size)]

    def _tile(self, span: Span, start: int, stop: int) -> Tile:
        block = self._cache.block_size
        keys = -(-(int(span.cached.max()) + stop) // block) * block
        seen_by_all = int(span.cached.min()) + start
        last_seen = span.cached[:, None] + np.arange(start, stop)
        hidden = np.arange(seen_by_all, keys) > last_seen[..., None]
        bias = np.where(hidden, _HIDDEN, _SEEN)[:, None]
        return Tile(slice(start, stop), keys, torch.from_numpy(bias).to(self._device, self._dtype))


class FusedAttention:
    """Gathered pages given to ``scaled_dot_product_attention``, in the forms its fused kernels take.

    A decode's grouped queries become rows of one head, under a mask that hides what lies beyond each context.
    Chunks are causal from the lower right corner, without a mask in memory.
    """

    def __init__(self, architecture: Architecture, cache: PagedCache) -> None:
        self._cache = cache
        self._heads, self._width = architecture.num_kv_heads, architecture.head_dim
        self._grouped = architecture.num_heads > architecture.num_kv_heads
        like = cache.keys[0]
        self._dtype = like.dtype
        self._span_pages = max(1, _GPU_SPAN_BYTES // (like[0].numel() * like.element_size()))

    def lay_out(self, batch: Sequence[Chunk]) -> Layout:
        return lay_out(batch, self._cache.block_size, self._span_pages)

    def plan(self, layout: Layout, positions: Tensor, tables: Sequence[Tensor]) -> list[SpanPlan]:
        return [
            _span_plan(span, pages, self._tiles(span, positions))
            for span, pages in zip(layout.spans, tables, strict=True)
        ]

    def attend(self, layer: int, queries: Tensor, plans: Sequence[SpanPlan]) -> Tensor:
        out = torch.empty_like(queries)
        for plan in plans:
            keys, values = (
                self._gather(cache[layer], plan) for cache in (self._cache.keys, self._cache.values)
            )
            shape = (plan.seqs, plan.new, -1, self._width)
            attend = self._decode if plan.new == 1 else self._prefill
            attend(queries[plan.rows].view(shape), keys, values, plan.tiles, out[plan.rows].view(shape))
        return out

    def _decode(self, queries: Tensor, keys: Tensor, values: Tensor, tiles: list[Tile], out: Tensor) -> None:
        rows = queries.view(len(queries), self._heads, -1, self._width)
        mixed = functional.scaled_dot_product_attention(rows, keys, values, attn_mask=tiles[0].bias)
        out.copy_(mixed.view_as(out))

    def _prefill(self, queries: Tensor, keys: Tensor, values: Tensor, tiles: list[Tile], out: Tensor) -> None:
        """One call per tile: all chunks at once where they are equally long, else each alone."""
        each = len(queries) // len(tiles)
        for i, tile in enumerate(tiles):
            some = slice(i * each, (i + 1) * each)
            mixed = functional.scaled_dot_product_attention(
                queries[some].transpose(1, 2),
                keys[some, :, : tile.keys],
                values[some, :, : tile.keys],
                attn_mask=tile.bias,
                enable_gqa=self._grouped,
            )
            out[some] = mixed.transpose(1, 2)

    def _gather(self, cache: Tensor, plan: SpanPlan) -> Tensor:
        """The span's pages of one layer, ``(seqs, kv_heads, keys, head_dim)``."""
        pages = torch.index_select(cache, 0, plan.pages)
        return pages.view(plan.seqs, -1, self._heads, self._width).transpose(1, 2)

    def _tiles(self, span: Span, positions: Tensor) -> list[Tile]:
        queries = slice(0, span.new)
        if span.new == 1:
            keys = span.blocks.shape[1] * self._cache.block_size
            return [Tile(queries, keys, self._bias(positions[span.rows], keys))]
        lengths = (span.cached + span.new).tolist()
        if len(set(lengths)) == 1:
            lengths = lengths[:1]
        return [Tile(queries, keys, causal_lower_right(span.new, keys)) for keys in lengths]

    def _bias(self, positions: Tensor, keys: int) -> Tensor:
        """Minus infinity for each of the first ``keys`` keys beyond a decoding sequence's position, made in place."""
        hidden = torch.arange(keys, device=positions.device) > positions[:, None, None]
        bias = torch.zeros(hidden.shape, dtype=self._dtype, device=positions.device)
        return bias.masked_fill_(hidden, float("-inf"))[:, None]


def _span_plan(span: Span, pages: Tensor, tiles: list[Tile]) -> SpanPlan:
    return SpanPlan(span.rows, span.seqs, span.new, pages, tiles)

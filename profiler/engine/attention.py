"""Attention over a paged cache: the interface, and two ways with torch alone.

Layers with a window (Mistral, arXiv:2310.06825, section 2) have a plan of their own, over the pages that the window
reaches. Capped scores are ``cap * tanh(scores / cap)`` (Gemma 2, arXiv:2408.00118, section 2).

:class:`TiledAttention` is the fastest found with torch on a CPU: gather the pages of a span into a workspace
that stays in the processor's cache, then two matrix products per tile of queries. Its grouped queries share
their key head without a copy. :class:`FusedAttention` hands the gathered pages to
``scaled_dot_product_attention``, whose fused kernels a GPU needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        seqs: which of the span's chunks.
        queries: which of each chunk's new tokens.
        keys: which of the keys on the span's pages any of them may see.
        bias: zero where a query sees a key and minus infinity elsewhere, ``(seqs, 1, queries, tail)``, for
            the last ``tail`` keys; every query sees all keys before those. Fused attention of whole contexts has
            torch's causal bias in its place.
    """

    seqs: slice
    queries: slice
    keys: slice
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


Plans = dict[int | None, list[SpanPlan]]
"""The spans' plans, by the window of the layers that they are for."""


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
        self._windows, self._cap = architecture.windows(), architecture.attention_softcap
        self._scale = architecture.query_pre_attn_scalar**-0.5 / (self._cap or 1.0)
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
        return lay_out(
            batch, self._cache.block_size, self._span_pages, max(filter(None, self._windows), default=None)
        )

    def plan(self, layout: Layout, positions: Tensor, tables: Sequence[Tensor]) -> Plans:
        return _plans(self._windows, layout, tables, self._tiles)

    def attend(self, layer: int, queries: Tensor, plans: Plans) -> Tensor:
        out = torch.empty_like(queries)
        scaled = queries * self._scale
        for plan in plans[self._windows[layer]]:
            shape = (plan.seqs, plan.new, self._heads, self._group, self._width)
            self._attend_span(layer, scaled[plan.rows].view(shape), out[plan.rows].view(shape), plan)
        return out

    def _attend_span(self, layer: int, queries: Tensor, out: Tensor, plan: SpanPlan) -> None:
        """Attention of ``queries`` ``(seqs, new, kv_heads, group, head_dim)`` into ``out``."""
        keys = self._gather(self._cache.keys[layer], plan, self._by_head).transpose(-1, -2)
        values = self._gather(self._cache.values[layer], plan, self._by_head_values)
        for tile in plan.tiles:
            q = queries[:, tile.queries].permute(2, 0, 3, 1, 4)
            scores = q.reshape(self._heads, plan.seqs, -1, self._width) @ keys[..., tile.keys]
            if self._cap:
                scores.tanh_().mul_(self._cap)
            scores.view(*q.shape[:4], -1)[..., -tile.bias.shape[-1] :] += tile.bias
            mixed = torch.softmax(scores, -1) @ values[:, :, tile.keys]
            out[:, tile.queries] = mixed.view(q.shape).permute(1, 3, 0, 2, 4)

    def _gather(self, cache: Tensor, plan: SpanPlan, workspace: Tensor) -> Tensor:
        """The span's pages of one layer, by head: ``(kv_heads, seqs, keys, head_dim)``."""
        shape = (len(plan.pages), *cache.shape[1:])
        size = plan.pages.numel() * cache[0].numel()
        pages = torch.index_select(cache, 0, plan.pages, out=self._gathered[:size].view(shape))
        by_token = pages.view(plan.seqs, -1, self._heads, self._width)
        by_head = workspace[:size].view(self._heads, plan.seqs, -1, self._width)
        return by_head.copy_(by_token.permute(2, 0, 1, 3))

    def _tiles(self, span: Span, window: int | None) -> list[Tile]:
        """Tiles small enough for their scores to stay in the processor's cache."""
        keys = span.blocks.shape[1] * self._cache.block_size
        per_query = span.seqs * self._heads * self._group * keys * self._dtype.itemsize
        size = max(_SMALLEST_TILE, min(_TILE_QUERIES, _SCORE_BYTES // per_query // 32 * 32))
        return [
            self._tile(span, window, start, min(span.new, start + size)) for start in range(0, span.new, size)
        ]

    def _tile(self, span: Span, window: int | None, start: int, stop: int) -> Tile:
        block = self._cache.block_size
        keys = slice(0, -(-(int(span.cached.max()) + stop) // block) * block)
        tail = int(span.cached.min()) + start
        last_seen = (span.cached[:, None] + np.arange(start, stop))[..., None]
        if window is not None and last_seen.max() >= window:
            tail = max(0, tail + 1 - window) // block * block
            keys = slice(tail, keys.stop)
        position = np.arange(tail, keys.stop)
        hidden = position > last_seen
        if window is not None:
            hidden |= position <= last_seen - window
        bias = np.where(hidden, _HIDDEN, _SEEN)[:, None]
        bias = torch.from_numpy(bias).to(self._device, self._dtype)
        return Tile(slice(None), slice(start, stop), keys, bias)


class FusedAttention:
    """Gathered pages given to ``scaled_dot_product_attention``, in the forms its fused kernels take.

    A decode's grouped queries become rows of one head, under a mask that hides what lies beyond each context.
    Chunks are causal from the lower right corner, without a mask in memory; where a window hides keys they have one,
    and their queries are cut into tiles to keep it small. Capped scores, which fused kernels do not know, have two
    matrix products.
    """

    def __init__(self, architecture: Architecture, cache: PagedCache) -> None:
        self._cache = cache
        self._heads, self._width = architecture.num_kv_heads, architecture.head_dim
        self._windows, self._cap = architecture.windows(), architecture.attention_softcap
        self._scale = architecture.query_pre_attn_scalar**-0.5
        like = cache.keys[0]
        self._dtype = like.dtype
        self._span_pages = max(1, _GPU_SPAN_BYTES // (like[0].numel() * like.element_size()))

    def lay_out(self, batch: Sequence[Chunk]) -> Layout:
        return lay_out(
            batch, self._cache.block_size, self._span_pages, max(filter(None, self._windows), default=None)
        )

    def plan(self, layout: Layout, positions: Tensor, tables: Sequence[Tensor]) -> Plans:
        return _plans(
            self._windows, layout, tables, lambda span, window: self._tiles(span, window, positions)
        )

    def attend(self, layer: int, queries: Tensor, plans: Plans) -> Tensor:
        out = torch.empty_like(queries)
        for plan in plans[self._windows[layer]]:
            keys, values = (
                self._gather(cache[layer], plan) for cache in (self._cache.keys, self._cache.values)
            )
            shape = (plan.seqs, plan.new, -1, self._width)
            attend = self._decode if plan.new == 1 else self._prefill
            attend(queries[plan.rows].view(shape), keys, values, plan.tiles, out[plan.rows].view(shape))
        return out

    def _decode(self, queries: Tensor, keys: Tensor, values: Tensor, tiles: list[Tile], out: Tensor) -> None:
        rows = queries.view(len(queries), self._heads, -1, self._width)
        out.copy_(self._mix(rows, keys, values, tiles[0].bias).view_as(out))

    def _prefill(self, queries: Tensor, keys: Tensor, values: Tensor, tiles: list[Tile], out: Tensor) -> None:
        for tile in tiles:
            some = (tile.seqs, slice(None), tile.keys)
            rows = queries[tile.seqs, tile.queries].transpose(1, 2)
            out[tile.seqs, tile.queries] = self._mix(rows, keys[some], values[some], tile.bias).transpose(
                1, 2
            )

    def _mix(self, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        """Attention of ``(seqs, heads, rows, head_dim)`` over ``(seqs, kv_heads, keys, head_dim)``."""
        grouped = queries.shape[1] != self._heads
        if not self._cap:
            return functional.scaled_dot_product_attention(
                queries, keys, values, attn_mask=bias, scale=self._scale, enable_gqa=grouped
            )
        by_head = queries.unflatten(1, (self._heads, -1)) * (self._scale / self._cap)
        scores = (by_head @ keys[:, :, None].transpose(-1, -2)).tanh_().mul_(self._cap)
        mixed = torch.softmax(scores.add_(bias[:, None]), -1) @ values[:, :, None]
        return mixed.flatten(1, 2)

    def _gather(self, cache: Tensor, plan: SpanPlan) -> Tensor:
        """The span's pages of one layer, ``(seqs, kv_heads, keys, head_dim)``."""
        pages = torch.index_select(cache, 0, plan.pages)
        return pages.view(plan.seqs, -1, self._heads, self._width).transpose(1, 2)

    def _tiles(self, span: Span, window: int | None, positions: Tensor) -> list[Tile]:
        """One tile of decodes; of chunks one for all that are equally long, one for each, or some for their masks."""
        every = slice(None)
        lengths = (span.cached + span.new).tolist()
        hides = window is not None and max(lengths) > window
        if span.new > 1 and not hides and not self._cap:
            if len(set(lengths)) == 1:
                return [_causal(every, span.new, lengths[0])]
            return [_causal(slice(i, i + 1), span.new, keys) for i, keys in enumerate(lengths)]
        keys = span.blocks.shape[1] * self._cache.block_size
        own = positions[span.rows].view(span.seqs, 1, -1, 1)
        if window is not None:
            behind = (own[:, :, :1] + 1 - window).clamp_(min=0)
            own = own - behind // self._cache.block_size * self._cache.block_size
        cuts = [slice(i, min(span.new, i + _TILE_QUERIES)) for i in range(0, span.new, _TILE_QUERIES)]
        return [Tile(every, cut, slice(0, keys), self._bias(own[:, :, cut], keys, window)) for cut in cuts]

    def _bias(self, positions: Tensor, keys: int, window: int | None) -> Tensor:
        """Minus infinity for each of the first ``keys`` keys that a query at its place among them does not see."""
        key = torch.arange(keys, device=positions.device)
        hidden = key > positions
        if window is not None:
            hidden |= key <= positions - window
        bias = torch.zeros(hidden.shape, dtype=self._dtype, device=positions.device)
        return bias.masked_fill_(hidden, float("-inf"))


def _plans(
    windows: Sequence[int | None],
    layout: Layout,
    tables: Sequence[Tensor],
    tiles: Callable[[Span, int | None], list[Tile]],
) -> Plans:
    """Plans for each window that layers have: one and the same where no window hides anything."""

    def planned(spans: Sequence[Span], tables: Sequence[Tensor], window: int | None) -> list[SpanPlan]:
        return [
            SpanPlan(span.rows, span.seqs, span.new, pages, tiles(span, window))
            for span, pages in zip(spans, tables, strict=True)
        ]

    every = len(layout.spans)
    if layout.windowed is layout.spans:
        return dict.fromkeys(windows, planned(layout.spans, tables, None))
    return {
        window: planned(layout.spans, tables[:every], None)
        if window is None
        else planned(layout.windowed, tables[every:], window)
        for window in set(windows)
    }


def _causal(seqs: slice, new: int, keys: int) -> Tile:
    return Tile(seqs, slice(0, new), slice(0, keys), causal_lower_right(new, keys))

"""What one iteration runs, and its layout for the device: token rows, cache slots, spans of attention.

A *chunk* is the new tokens of one sequence: a whole prompt, a piece of one, or the single token a decoding
sequence reads. A *span* is a set of chunks whose attention is computed together: as many new tokens each, and
block tables of about the same length, so that little padding is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from profiler.engine.tables import BlockTables

_PADDING_SHARE = 8


@dataclass(frozen=True, slots=True)
class Chunk:
    """New tokens of one sequence.

    Attributes:
        tokens: their ids, ``(new,)``; one for a decoding sequence.
        cached: tokens of the sequence already in the KV cache.
        blocks: the sequence's block table, long enough for ``cached + new`` tokens.
    """

    tokens: Sequence[int] | np.ndarray
    cached: int
    blocks: np.ndarray


@dataclass(frozen=True, slots=True)
class Span:
    """Chunks attended together; their token rows lie side by side.

    Attributes:
        start: first token row.
        new: new tokens of each chunk.
        cached: cached tokens of each chunk from its first page on, ``(seqs,)``.
        blocks: block tables, ``(seqs, pages)``; a shorter one is padded with its own last block.
    """

    start: int
    new: int
    cached: np.ndarray
    blocks: np.ndarray

    @property
    def seqs(self) -> int:
        return len(self.cached)

    @property
    def rows(self) -> slice:
        return slice(self.start, self.start + self.seqs * self.new)


@dataclass(frozen=True, slots=True)
class Layout:
    """A batch as arrays.

    Attributes:
        tokens, positions, slots: id, position and cache slot of every token row, ``(rows,)``.
        last_rows: the row of each chunk's last token, in the order the chunks were given.
        tables: what attention reads on the device, integers.
        spans: what attends together; they cover all rows.
        windowed: the same for layers with a window, over the pages that it reaches; ``spans`` where it reaches all.
        tallest: most queries of a small tile, where there are tiles.
    """

    tokens: np.ndarray
    positions: np.ndarray
    slots: np.ndarray
    last_rows: np.ndarray
    tables: list[np.ndarray]
    spans: list[Span]
    windowed: list[Span]
    tallest: int = 0

    def fields(self) -> list[np.ndarray]:
        """All that goes to the device, the tables last."""
        return [self.tokens, self.positions, self.slots, self.last_rows, *self.tables]


def lay_out(batch: Sequence[Chunk], block_size: int, span_pages: int, window: int | None = None) -> Layout:
    """Order the chunks, group them into spans, and compute every token's place.

    The tables are the spans' block tables, then those of the windowed spans where they are others.

    Args:
        batch: at least one chunk.
        block_size: tokens per KV block.
        span_pages: most pages one span reads, unless a single chunk needs more.
        window: tokens that layers with a window look back; None without such layers.
    """
    new = np.array([len(chunk.tokens) for chunk in batch])
    cached = np.array([chunk.cached for chunk in batch])
    pages = -(-(cached + new) // block_size)
    order = np.lexsort((cached, pages, new))
    tables = [chunk.blocks for chunk in batch]
    spans = _spans(order, new, cached, tables, block_size, span_pages)
    windowed = spans
    if window is not None and (cached + new).max() > window:
        first = np.maximum(cached + 1 - window, 0) // block_size
        tables = [table[start:] for table, start in zip(tables, first.tolist(), strict=True)]
        windowed = _spans(order, new, cached - first * block_size, tables, block_size, span_pages)
    last_rows = np.empty(len(batch), dtype=np.int64)
    last_rows[order] = np.cumsum(new[order]) - 1
    positions = np.concatenate([_positions(span) for span in spans])
    slots = np.concatenate([_slots(span, block_size) for span in spans])
    tokens = np.concatenate([batch[i].tokens for i in order])
    others = [] if windowed is spans else windowed
    blocks = [span.blocks for span in (*spans, *others)]
    return Layout(tokens, positions, slots, last_rows, blocks, spans, windowed)


def _spans(
    order: np.ndarray,
    new: np.ndarray,
    cached: np.ndarray,
    tables: Sequence[np.ndarray],
    block_size: int,
    span_pages: int,
) -> list[Span]:
    """Spans of chunks in an order, each with ``new`` tokens behind ``cached`` ones at the start of its table."""
    pages = -(-(cached + new) // block_size)
    spans, start = [], 0
    for members in _groups(order, new, pages, span_pages):
        width = int(pages[members].max())
        blocks = np.stack([_padded(tables[i], int(pages[i]), width) for i in members])
        spans.append(Span(start, int(new[members[0]]), cached[members], blocks))
        start = spans[-1].rows.stop
    return spans


def _groups(order: np.ndarray, new: np.ndarray, pages: np.ndarray, span_pages: int) -> list[list[int]]:
    """Neighbours in ``order`` that share a span: as many new tokens, few enough pages, little padding.

    A span of its own costs about as much as reading an eighth of ``span_pages``, so padding may cost that.
    Capacity is what divides the pages evenly, so that no small span is left over; padding does not count there, or
    sequences of different lengths would need a span more than those of one length.
    """
    groups: list[list[int]] = []
    used = capacity = widest = 0
    for i in order.tolist():
        group = groups[-1] if groups else []
        own = int(pages[i])
        widest = max(widest, own)
        needed = (len(group) + 1) * widest
        used += own
        same = bool(group) and new[group[0]] == new[i]
        fits = used <= capacity and needed <= span_pages
        if same and fits and needed - used <= span_pages // _PADDING_SHARE:
            group.append(i)
            continue
        if not same:
            capacity = _even_share(int(pages[new == new[i]].sum()), span_pages)
        groups.append([i])
        used = widest = own
    return groups


def _even_share(pages: int, span_pages: int) -> int:
    """Pages per span when ``pages`` are divided over as few spans as can hold them."""
    return -(-pages // -(-pages // span_pages))


def _padded(blocks: np.ndarray, pages: int, width: int) -> np.ndarray:
    if pages == width:
        return blocks[:pages]
    return np.concatenate([blocks[:pages], np.full(width - pages, blocks[pages - 1])])


def _positions(span: Span) -> np.ndarray:
    return (span.cached[:, None] + np.arange(span.new)).reshape(-1)


def _slots(span: Span, block_size: int) -> np.ndarray:
    positions = span.cached[:, None] + np.arange(span.new)
    blocks = np.take_along_axis(span.blocks, positions // block_size, axis=1)
    return (blocks * block_size + positions % block_size).reshape(-1)


def lay_out_ragged(
    batch: Sequence[Chunk], block_size: int, tables: BlockTables, small: int, large: int
) -> Layout:
    """Rows in the order of the batch, and queries in tiles over block tables that are on the device.

    The layout's tables are the small tiles and the large ones, ``(tiles, 4)`` each, and what the device lacks of the
    block tables: where they are written to, and what. A tile is its first row, its queries, the keys that the first of
    them sees, and where its sequence's block table begins.

    Args:
        batch: at least one chunk.
        block_size: tokens per KV block.
        tables: block tables of the sequences.
        small: chunks of so many tokens or fewer are one small tile each.
        large: most queries of a large tile.
    """
    new = np.array([len(chunk.tokens) for chunk in batch])
    cached = np.array([chunk.cached for chunk in batch])
    owners, lacking = tables.find([chunk.blocks for chunk in batch])
    rows = np.cumsum(new) - new
    positions = np.arange(new.sum()) + np.repeat(cached - rows, new)
    blocks = tables.blocks(np.repeat(owners, new), positions // block_size)
    whole = np.stack([rows, new, cached + 1, owners * tables.width], axis=1)
    fits = new <= small
    tokens = np.concatenate([chunk.tokens for chunk in batch])
    slots = blocks * block_size + positions % block_size
    tallest = int(new[fits].max(initial=0))
    cut = _cut(whole[~fits], large)
    return Layout(tokens, positions, slots, rows + new - 1, [whole[fits], cut, *lacking], [], [], tallest)


def _cut(tiles: np.ndarray, most: int) -> np.ndarray:
    """Tiles of at most so many queries, those that see the most keys first."""
    parts = -(-tiles[:, 1] // most)
    start = most * (np.arange(parts.sum()) - np.repeat(np.cumsum(parts) - parts, parts))
    cut = np.repeat(tiles, parts, axis=0)
    cut[:, 0] += start
    cut[:, 2] += start
    cut[:, 1] = np.minimum(cut[:, 1] - start, most)
    return cut[np.argsort(-cut[:, 2], kind="stable")]

"""Which iterations a campaign measures, and which of them no cost model may see.

Latency is modelled as ``M(B, n) + E_D(B, c) + E_P(n, a)``: decoding sequences ``B``, their mean
context ``c``, new prompt tokens ``n``, and the mean number of keys ``a`` a prompt token attends to. Each part
has its area of the grid: mixed iterations at small contexts, decodes over contexts, prefills over cached
context and number of prompts. Held-out shapes lie between the grid's lines in all three areas.

Latency is a staircase: attention reads whole KV blocks, and matrix products are fastest for multiples of their
tiles. Most of the grid's lines are therefore 8 more than a multiple of 16, in the middle of a step, so that
interpolating between them is right on average; round numbers would all lie on an edge.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import product
from typing import NamedTuple

from simslm.catalog.architecture import Architecture
from simslm.errors import UsageError, nearest

GRIDS = ("quick", "full")

_SMALL_CONTEXT = 8
_SHORTEST_PROMPT = 16


SPREAD = 0.75
"""Contexts of an iteration's decoding sequences lie evenly within this part of their mean, below and above it."""


class Shape(NamedTuple):
    """One iteration to measure.

    Sequences that are served together are never equally long, and an engine may pay for that: it groups or pads them,
    or some of its programs end late. So the contexts of decoding sequences are spread. Prompts are of one length.

    Attributes:
        decode_seqs: decoding sequences.
        decode_ctx: their cached tokens, in the mean.
        prefill_seqs: prompts.
        prefill_new: new tokens of each prompt.
        prefill_ctx: cached tokens of each prompt.
    """

    decode_seqs: int = 0
    decode_ctx: int = 0
    prefill_seqs: int = 0
    prefill_new: int = 0
    prefill_ctx: int = 0

    def columns(self) -> dict[str, int]:
        """The trace's columns: tokens summed over sequences."""
        return {
            "decode_seqs": self.decode_seqs,
            "decode_ctx_tokens": self.decode_seqs * self.decode_ctx,
            "prefill_seqs": self.prefill_seqs,
            "prefill_tokens": self.prefill_seqs * self.prefill_new,
            "prefill_ctx_tokens": self.prefill_seqs * self.prefill_ctx,
        }

    def contexts(self, longest: int) -> list[int]:
        """Cached tokens of each decoding sequence: evenly spread, and ``decode_seqs * decode_ctx`` in all.

        Args:
            longest: context that the model has, tokens; the spread is narrower where that leaves no room for one more.
        """
        widest = min(SPREAD * self.decode_ctx, longest - 1 - self.decode_ctx)
        steps = (2 * i + 1 - self.decode_seqs for i in range(self.decode_seqs))
        return [self.decode_ctx + int(widest * step / self.decode_seqs) for step in steps]

    def blocks(self, block_size: int, longest: int) -> int:
        """KV blocks its sequences hold; ``longest`` as of :meth:`contexts`."""
        decode = sum(-(-(cached + 1) // block_size) for cached in self.contexts(longest))
        prefill = -(-(self.prefill_ctx + self.prefill_new) // block_size)
        return decode + self.prefill_seqs * prefill

    def label(self) -> str:
        """A few words for a progress bar."""
        parts = []
        if self.decode_seqs:
            parts.append(f"decode {self.decode_seqs}×{self.decode_ctx}")
        if self.prefill_seqs:
            parts.append(f"prefill {self.prefill_seqs}×{self.prefill_new} after {self.prefill_ctx}")
        return ", ".join(parts)


class Axes(NamedTuple):
    """The grid's lines.

    Attributes:
        batches: decoding sequences.
        contexts: cached tokens of each decoding sequence.
        chunks: new prompt tokens of an iteration.
        cached: cached tokens before a prompt's chunk, the first 0; the model's limit is added.
        prompts: numbers of prompts that a chunk is split into, the first 1.
    """

    batches: tuple[int, ...]
    contexts: tuple[int, ...]
    chunks: tuple[int, ...]
    cached: tuple[int, ...]
    prompts: tuple[int, ...]


class Reach(NamedTuple):
    """Where a grid ends, for uses that go no further.

    Attributes:
        seqs: most decoding sequences.
        context: longest context, tokens.
        chunk: most new prompt tokens of an iteration.
    """

    seqs: int
    context: int
    chunk: int


_CONTEXTS = (8, 136, 520, 1032, 2056, 4104, 8200)
_CHUNKS = (16, 40, 72, 136, 264, 520, 1032, 2048, 4096, 8192)
_AXES = {
    ("cpu", "quick"): Axes((1, 4, 16, 32), (8, 520, 2056), (16, 72, 264, 1032), (0, 1032), (1, 4)),
    ("cpu", "full"): Axes(
        (1, 2, 4, 8, 12, 16, 24, 32),
        (8, 72, 136, 264, *_CONTEXTS[2:]),
        _CHUNKS[:-1],
        (0, 520, 1032, 4104),
        (1, 4, 8, 16),
    ),
    ("cuda", "quick"): Axes(
        (1, 4, 16, 64, 256), (8, 520, 2056, 8200), (16, 136, 520, 2048), (0, 1032, 4104), (1, 4)
    ),
    ("cuda", "full"): Axes(
        (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
        _CONTEXTS,
        _CHUNKS,
        (0, 520, 1032, 4104),
        (1, 4, 8, 16, 64),
    ),
}
_LONGEST_MIXED_CHUNK = 2048
_LONG_CHUNK = 1032

_HELDOUT_DECODE = ((3, 0.14), (6, 0.33), (10, 0.1), (20, 0.42), (5, 0.72), (28, 0.03), (14, 0.6), (3, 0.9))
_HELDOUT_PREFILL = (
    (1, 48, 0.0),
    (1, 200, 0.0),
    (1, 384, 0.15),
    (1, 700, 0.0),
    (1, 1500, 0.0),
    (1, 96, 0.55),
    (3, 100, 0.0),
    (6, 60, 0.2),
)
_HELDOUT_MIXED = (
    (3, 0.05, 1, 48, 0.0),
    (6, 0.12, 1, 200, 0.0),
    (14, 0.2, 1, 400, 0.0),
    (28, 0.07, 1, 700, 0.0),
    (10, 0.42, 1, 96, 0.1),
    (20, 0.3, 1, 1300, 0.0),
    (6, 0.5, 3, 80, 0.0),
    (28, 0.35, 2, 180, 0.25),
)


def measured_shapes(
    architecture: Architecture,
    kind: str,
    grid: str,
    max_blocks: int,
    block: int,
    reach: Reach | None = None,
) -> list[Shape]:
    """The shapes cost models are built from, each once.

    Args:
        architecture: gives the longest context.
        kind: ``cpu`` or ``cuda``.
        grid: ``quick`` or ``full``.
        max_blocks: shapes that need more KV blocks are left out.
        block: tokens per KV block.
        reach: where the grid ends; by default as far as the model goes.

    Raises:
        UsageError: for another grid.
    """
    if grid not in GRIDS:
        raise UsageError(
            f"grid {grid!r} is not known{nearest(grid, GRIDS)}", remedy=f"use one of {', '.join(GRIDS)}"
        )
    axes, limit = _AXES[kind, grid], _limit(architecture, reach)
    if reach is not None:
        batches, chunks = _clipped(axes.batches, reach.seqs), _clipped(axes.chunks, reach.chunk)
        axes = axes._replace(batches=tuple(batches), chunks=tuple(chunks))
    shapes = dict.fromkeys((*_decodes(axes, limit), *_prefills(axes, limit), *_mixed(axes, limit)))
    longest = architecture.max_position_embeddings
    return [shape for shape in shapes if shape.blocks(block, longest) <= max_blocks]


def _limit(architecture: Architecture, reach: Reach | None) -> int:
    """The longest context: the model's or, with a reach, one that also holds its longest chunk."""
    longest = architecture.max_position_embeddings
    return longest if reach is None else min(longest, max(reach.context, reach.chunk))


def heldout_shapes(
    architecture: Architecture, max_blocks: int, block: int, reach: Reach | None = None
) -> list[Shape]:
    """Shapes between the grid's lines; contexts are shares of the longest one."""
    limit = _limit(architecture, reach)
    seqs, chunk = (reach.seqs, reach.chunk) if reach else (math.inf, math.inf)
    decode = [Shape(b, int(c * limit)) for b, c in _HELDOUT_DECODE]
    prefill = [Shape(0, 0, p, n, int(m * limit)) for p, n, m in _HELDOUT_PREFILL]
    mixed = [Shape(b, int(c * limit), p, n, int(m * limit)) for b, c, p, n, m in _HELDOUT_MIXED]
    return [
        shape
        for shape in (*decode, *prefill, *mixed)
        if shape.prefill_new + shape.prefill_ctx <= limit
        and shape.blocks(block, architecture.max_position_embeddings) <= max_blocks
        and shape.decode_seqs <= seqs
        and shape.prefill_seqs * shape.prefill_new <= chunk
    ]


def _decodes(axes: Axes, limit: int) -> Iterator[Shape]:
    contexts = _clipped(axes.contexts, limit - 1)
    yield from (Shape(batch, context) for batch, context in product(axes.batches, contexts))


def _prefills(axes: Axes, limit: int) -> Iterator[Shape]:
    for chunk in axes.chunks:
        if chunk <= limit:
            yield from (Shape(0, 0, 1, chunk, cached) for cached in _cached(axes, chunk, limit))
        for prompts in axes.prompts[1:] if chunk <= _LONGEST_MIXED_CHUNK else ():
            if chunk % prompts == 0 and _SHORTEST_PROMPT <= chunk // prompts <= limit:
                yield Shape(0, 0, prompts, chunk // prompts, 0)


def _cached(axes: Axes, chunk: int, limit: int) -> list[int]:
    """Cached context before a chunk, up to the model's limit; fewer values for chunks that take long."""
    if chunk > _LONGEST_MIXED_CHUNK:
        return [0]
    return _clipped(axes.cached if chunk <= _LONG_CHUNK else axes.cached[:1], limit - chunk)


def _mixed(axes: Axes, limit: int) -> Iterator[Shape]:
    chunks = [chunk for chunk in axes.chunks if chunk <= min(limit, _LONGEST_MIXED_CHUNK)]
    for batch, chunk in product(axes.batches, chunks):
        yield Shape(batch, min(_SMALL_CONTEXT, limit - 1), 1, chunk, 0)


def _clipped(values: Iterable[int], limit: int) -> list[int]:
    """The values below ``limit``, and ``limit``."""
    return [*(value for value in values if value < limit), limit]

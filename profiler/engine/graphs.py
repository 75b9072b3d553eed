"""Small iterations recorded once per size and replayed, so that a device is not kept waiting for its host.

A recorded iteration reads all it needs from one buffer that never moves, and block tables that stay on the device. A
batch is padded up to the next recorded size with tokens that are written to the cache's spare block; its integers are
copied into the buffer, and the recording is run again. On CUDA a recording is a CUDA graph; :func:`rerun` is its twin
without a GPU, which runs the same code over the same buffer.

Invariant: a recording holds for any context lengths and any prompts of its size, because its plan depends on the size
alone.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from profiler.engine.attention import Attention
from profiler.engine.batch import Chunk, Layout
from profiler.engine.cache import PagedCache
from profiler.engine.staging import packed
from profiler.engine.tables import BlockTables
from profiler.engine.transformer import Rows

SIZES = (1, 2, 4, *range(8, 257, 8), *range(272, 513, 16))
"""Batch sizes of decodes that are recorded, each at its first use: vLLM's ``cudagraph_capture_sizes``."""

MIXED_ROWS = (16, 32, 64, 96, 128, 192, 256, 320, 384, 448, 512)
MIXED_SEQS = (8, 32, 128, 512)
"""Tokens and sequences of other recorded batches. vLLM records every token count of ``SIZES`` piece by piece, and
attention not at all; whole iterations need a recording for each pair, so there are fewer of each."""

Recorder = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]
"""Takes an iteration over tensors that stay where they are; what comes back runs it again, into the same result."""

_EMPTY_TILE = np.array([0, 0, 1, 0])
_CAPTURING = threading.Lock()
"""Held while capturing: CUDA does not let a thread wait for the whole device while another captures on it."""


def rerun(iteration: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """The recorder without a GPU."""
    return iteration


class CudaRecorder:
    """Records CUDA graphs, which share one pool of memory: no two of them run at once, or keep results for later."""

    def __init__(self, device: torch.device) -> None:
        current = torch.cuda.current_stream(device)
        plain = not getattr(current, "cuda_stream", 0)  # the default stream has no handle
        # What is captured belongs to the context of its stream: inside a green context, to its multiprocessors.
        self._stream = torch.cuda.Stream(device) if plain else current
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, iteration: Callable[[], Tensor]) -> Callable[[], Tensor]:
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self._stream.device)
        with _CAPTURING:
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):
                iteration()  # compiles kernels and makes workspaces, which a capture may not
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                result = iteration()
            current.wait_stream(self._stream)

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay


@runtime_checkable
class ReplayableAttention(Attention, Protocol):
    """Attention whose plan depends on the numbers of tiles alone, over block tables on the device.

    Attributes:
        queries: most queries of a small and of a large tile.
        tables: block tables of the sequences.
    """

    queries: tuple[int, int]
    tables: BlockTables


class Size(NamedTuple):
    """The size of a recording.

    Attributes:
        rows: tokens.
        seqs: sequences, and small tiles.
        large: large tiles; 0 where every sequence has one token.
    """

    rows: int
    seqs: int
    large: int

    @property
    def integers(self) -> int:
        """Integers that it takes of the buffer: tokens, positions and slots, last rows, tiles."""
        return 3 * self.rows + self.seqs + 4 * (self.seqs + self.large)


@dataclass(frozen=True, slots=True)
class PaddedRows:
    """A padded batch, to be replayed.

    Attributes:
        size: of the recording.
        layout: of the padded batch.
        integers: its layout's fields end to end, on the device, but for what block tables lack.
        seqs: how many of its sequences are no padding.
    """

    size: Size
    layout: Layout
    integers: Tensor
    seqs: int


class IterationGraphs:
    """Recordings of an engine's small iterations.

    Args:
        step: the iteration.
        attention: see :class:`ReplayableAttention`; its plans hold for any tiles.
        cache: has a spare block.
        longest: most tokens of a sequence.
        recorder: makes the recordings.
    """

    def __init__(
        self,
        step: Callable[[Rows], Tensor],
        attention: ReplayableAttention,
        cache: PagedCache,
        longest: int,
        recorder: Recorder,
    ) -> None:
        self._step, self._attention, self._recorder = step, attention, recorder
        self._device, self._longest = cache.keys[0].device, longest
        spare = np.full(-(-min(longest, MIXED_ROWS[-1]) // cache.block_size), cache.num_blocks)
        self._padding = Chunk([0], 0, spare)
        most = max(
            self._mixed(MIXED_ROWS[-1], MIXED_SEQS[-1]).integers, Size(SIZES[-1], SIZES[-1], 0).integers
        )
        self._buffer = torch.zeros(most, dtype=torch.int64, device=self._device)
        self._recorded: dict[Size, Callable[[], Tensor]] = {}
        self._generation = attention.tables.generation

    @property
    def sizes(self) -> list[int]:
        """Batch sizes of decodes recorded so far."""
        return sorted(size.rows for size in self._recorded if not size.large)

    @property
    def mixed_sizes(self) -> list[tuple[int, int]]:
        """Tokens and sequences of other batches recorded so far."""
        return sorted((size.rows, size.seqs) for size in self._recorded if size.large)

    def size(self, batch: Sequence[Chunk]) -> Size | None:
        """The size that a batch is padded to; None where it has too many tokens for any recording."""
        return self.size_of(len(batch), sum(len(chunk.tokens) for chunk in batch))

    def size_of(self, seqs: int, rows: int) -> Size | None:
        """The same for a number of sequences and of tokens."""
        if rows > SIZES[-1]:
            return None
        if rows == seqs:
            padded = SIZES[bisect_left(SIZES, rows)]
            return Size(padded, padded, 0)
        padded = MIXED_ROWS[bisect_left(MIXED_ROWS, rows)]
        if padded - rows > self._longest or seqs == MIXED_SEQS[-1]:
            return None
        return self._mixed(padded, MIXED_SEQS[bisect_left(MIXED_SEQS, seqs + 1)])

    def prepare(self, batch: Sequence[Chunk], size: Size) -> PaddedRows:
        """Pads a batch, lays it out and moves it to the device."""
        spare = size.rows - sum(len(chunk.tokens) for chunk in batch)
        padding = [self._padding] * spare
        if size.large and spare:
            padding = [replace(self._padding, tokens=np.zeros(spare, dtype=np.int64))]
        layout = self._attention.lay_out([*batch, *padding])
        small, large, *lacking = layout.tables
        if size.large:
            small, large = _filled(small, size.seqs), _filled(large, size.large)
            last_rows = np.zeros(size.seqs, dtype=np.int64)
            last_rows[: len(layout.last_rows)] = layout.last_rows
            tallest = self._attention.queries[0]
            layout = replace(layout, last_rows=last_rows, tables=[small, large], tallest=tallest)
        fields = [*layout.fields()[:4], small, large, *lacking]
        integers = packed(fields, self._device)
        kept, places, blocks = integers.split([size.integers, *(field.size for field in lacking)])
        self._attention.tables.update(places, blocks)
        return PaddedRows(size, layout, kept, len(batch))

    def run(self, rows: PaddedRows) -> Tensor:
        """What the iteration gives for each sequence; valid until the next one."""
        if self._generation != self._attention.tables.generation:
            self._generation = self._attention.tables.generation
            self._recorded.clear()  # they read the tables where they were
        self._buffer[: len(rows.integers)].copy_(rows.integers)
        if rows.size not in self._recorded:
            self._recorded[rows.size] = self._record(rows)
        return self._recorded[rows.size]()[: rows.seqs]

    def _mixed(self, rows: int, seqs: int) -> Size:
        """The size of a mixed batch, with room for the most large tiles that so many rows and sequences can need."""
        small, large = self._attention.queries
        return Size(rows, seqs, rows // large + min(seqs, rows // (small + 1)) + 1)

    def _record(self, padded: PaddedRows) -> Callable[[], Tensor]:
        """A recording over the buffer."""
        size, nothing = padded.size, self._buffer[:0]
        parts = [size.rows] * 3 + [size.seqs, 4 * size.seqs, 4 * size.large]
        tokens, positions, slots, last_rows, *tiles = self._buffer[: size.integers].split(parts)
        plan = self._attention.plan(padded.layout, positions, [*tiles, nothing, nothing])
        rows = Rows(tokens, positions, slots, last_rows, plan)
        recorded = self._recorder(lambda: self._step(rows))

        def replay(held: Rows = rows) -> Tensor:
            """Holds the plan, as the recording writes to its buffers."""
            del held
            return recorded()

        return replay


def _filled(tiles: np.ndarray, count: int) -> np.ndarray:
    """The tiles, with empty ones appended up to a count."""
    return np.concatenate([tiles, np.broadcast_to(_EMPTY_TILE, (count - len(tiles), 4))])

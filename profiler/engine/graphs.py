"""Decode iterations recorded once per batch size and replayed, so that a device is not kept waiting for its host.

A recorded iteration reads all it needs from one buffer that never moves. A batch is padded up to the next recorded
size with rows that write to the cache's spare block and attend to one token of it; its integers are copied into the
buffer, and the recording is run again. On CUDA a recording is a CUDA graph; :func:`rerun` is its twin without a GPU,
which runs the same code over the same buffer.

Invariant: a recording holds for any context lengths, because its plan depends on the number of rows alone.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from profiler.engine.attention import Attention
from profiler.engine.batch import Chunk, Layout
from profiler.engine.cache import PagedCache
from profiler.engine.staging import packed
from profiler.engine.transformer import Rows

SIZES = (1, 2, 4, *range(8, 257, 8), *range(272, 513, 16))
"""Batch sizes that are recorded, each at its first use: vLLM's ``cudagraph_capture_sizes``."""

Recorder = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]
"""Takes an iteration over tensors that stay where they are; what comes back runs it again, into the same result."""

_ROW_INTEGERS = 8
_CAPTURING = threading.Lock()
"""Held while capturing: CUDA does not let a thread wait for the whole device while another captures on it."""


def rerun(iteration: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """The recorder without a GPU."""
    return iteration


class CudaRecorder:
    """Records CUDA graphs, which share one pool of memory: no two of them run at once, or keep results for later."""

    def __init__(self, device: torch.device) -> None:
        current = torch.cuda.current_stream(device)
        plain = current == torch.cuda.default_stream(device)
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


@dataclass(frozen=True, slots=True)
class DecodeRows:
    """A padded batch of decoding sequences, to be replayed.

    Attributes:
        layout: of the padded batch.
        integers: all of the layout's fields end to end, on the device.
        seqs: how many of the rows are sequences; the rest is padding.
    """

    layout: Layout
    integers: Tensor
    seqs: int


class DecodeGraphs:
    """Recordings of an engine's decode iterations.

    Args:
        step: the iteration.
        attention: plans must hold for any lengths, as those of ``PagedAttention`` do.
        cache: has a spare block.
        longest: most tokens of a sequence.
        recorder: makes the recordings.
    """

    def __init__(
        self,
        step: Callable[[Rows], Tensor],
        attention: Attention,
        cache: PagedCache,
        longest: int,
        recorder: Recorder,
    ) -> None:
        self._step, self._attention, self._recorder = step, attention, recorder
        self._device = cache.keys[0].device
        self._padding = Chunk([0], 0, np.array([cache.num_blocks]))
        pages = -(-longest // cache.block_size)
        self._buffer = torch.zeros(
            SIZES[-1] * (_ROW_INTEGERS + pages), dtype=torch.int64, device=self._device
        )
        self._recorded: dict[int, Callable[[], Tensor]] = {}

    @property
    def sizes(self) -> list[int]:
        """Batch sizes recorded so far."""
        return sorted(self._recorded)

    def take(self, batch: Sequence[Chunk]) -> bool:
        """Whether a batch can be replayed: one token of each sequence, and not too many of them."""
        return len(batch) <= SIZES[-1] and all(len(chunk.tokens) == 1 for chunk in batch)

    def prepare(self, batch: Sequence[Chunk]) -> DecodeRows:
        """Pad a batch, lay it out and move it to the device."""
        size = SIZES[bisect_left(SIZES, len(batch))]
        layout = self._attention.lay_out([*batch, *[self._padding] * (size - len(batch))])
        return DecodeRows(layout, packed(layout.fields(), self._device), len(batch))

    def run(self, rows: DecodeRows) -> Tensor:
        """What the iteration gives for each sequence; valid until the next one."""
        self._buffer[: len(rows.integers)].copy_(rows.integers)
        size = len(rows.layout.tokens)
        if size not in self._recorded:
            self._recorded[size] = self._record(rows.layout)
        return self._recorded[size]()[: rows.seqs]

    def _record(self, layout: Layout) -> Callable[[], Tensor]:
        """A recording over the buffer; the block tables, which come last, have all that is left of it."""
        sizes = [field.size for field in layout.fields()[:-1]]
        views = self._buffer.split([*sizes, len(self._buffer) - sum(sizes)])
        tokens, positions, slots, last_rows, *tables = views
        rows = Rows(tokens, positions, slots, last_rows, self._attention.plan(layout, positions, tables))
        recorded = self._recorder(lambda: self._step(rows))

        def replay(held: Rows = rows) -> Tensor:
            """The recording writes to buffers of the plan: they live as long as it."""
            del held
            return recorded()

        return replay

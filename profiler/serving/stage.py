"""One shape's iteration as the serving loop runs it, again and again: what a campaign times.

So the host time of a trace is that of serving: planning by the chunked-prefill policy, block tables, layout,
reading the sampled tokens, and the books. Between two calls the same sequences are put back to where they were.
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from statistics import median

import numpy as np

from profiler.engine.batch import Chunk
from profiler.engine.cache import BlockPool
from profiler.engine.engine import Engine
from profiler.grid import Shape
from profiler.measure.timing import KernelTimes, Timing, time_iteration
from profiler.serving.clock import WallClock
from profiler.serving.loop import Loop
from profiler.serving.replica import Limits, Policies, Replica
from profiler.serving.sequence import Sequence
from simslm.policies.admission.open import Open
from simslm.policies.batching.chunked_prefill import ChunkedPrefill, ChunkedPrefillOptions
from simslm.policies.queueing.fcfs import FirstComeFirstServed
from simslm.policies.registry import PolicyOptions


def served_alike() -> Policies:
    """The policies that iterations are measured under."""
    options = PolicyOptions()
    return Policies(ChunkedPrefill(ChunkedPrefillOptions()), FirstComeFirstServed(options), Open(options))


class Stage:
    """Sequences set up such that the next iteration has a shape, in blocks from anywhere in the cache.

    Args:
        engine: runs the iterations; its pool is not touched.
        shape: of each.
        rng: of tokens and blocks.
        kernels: times the kernels, once, after the first iteration, while nothing else is on the device; None where
            host time is to lack the launch gaps, see :func:`profiler.measure.timing.time_iteration`.
    """

    def __init__(
        self, engine: Engine, shape: Shape, rng: np.random.Generator, kernels: KernelTimes | None = None
    ) -> None:
        size = engine.cache.block_size
        pool = BlockPool(engine.cache.num_blocks, int(rng.integers(2**31)))
        columns = shape.columns()
        limits = Limits(
            columns["decode_seqs"] + columns["prefill_seqs"],
            columns["decode_seqs"] + columns["prefill_tokens"],
        )
        self._shape = shape
        self._replica = replica = Replica(pool, size, limits, served_alike())
        vocabulary = engine.architecture.vocab_size

        def sequence(number: int, tokens: int) -> Sequence:
            ids = rng.integers(0, vocabulary, tokens + _NEVER_DONE)
            return Sequence(number, 0.0, tokens, _NEVER_DONE, _NEVER_DONE, 0, ids)

        self._contexts = shape.contexts(engine.architecture.max_position_embeddings)
        self._decoders = [sequence(i, cached) for i, cached in enumerate(self._contexts)]
        length = shape.prefill_ctx + shape.prefill_new
        self._prompts = [sequence(shape.decode_seqs + i, length) for i in range(shape.prefill_seqs)]
        for each, cached in zip(self._decoders, self._contexts, strict=True):
            each.table = pool.allocate(-(-(cached + 1) // size))
            replica.running[each] = replica.decoders[each] = None
        for each in self._prompts:
            if shape.prefill_ctx:
                each.table = pool.allocate(-(-length // size))
        self._engine, self._kernels = engine, kernels
        self._kernel_s: float | None = None
        self._batch: Many[Chunk] = ()
        self._loop = Loop(replica, self._run, WallClock())
        self._put_back()

    def time(self) -> Timing:
        """Runs the iteration and times it."""
        timing = self._loop.step()
        if self._kernels is not None:
            if self._kernel_s is None:
                self._kernel_s = self._kernels.of(self._batch, timing.latency_s)
            timing = timing.with_kernels(self._kernel_s)
        self._clear()
        self._put_back()
        return timing

    def launch_gaps_s(self, kernels: KernelTimes) -> float:
        """Launch gaps of one iteration: what is between its first launch and its tokens, less its kernels.

        Args:
            kernels: times the kernels; nothing else may be on the device meanwhile.
        """
        timings = [self.time() for _ in range(_TIMED_FOR_GAPS)]
        kernel_s = kernels.of(self._batch, timings[-1].latency_s)
        return max(0.0, median(timing.device_s for timing in timings) - kernel_s)

    def _run(self, batch: Many[Chunk]) -> tuple[list[int], Timing]:
        self._batch = batch
        return time_iteration(self._engine, batch)

    def _clear(self) -> None:
        """The prompts, which decode now, are off the replica; a prompt that was partly cached keeps its blocks."""
        replica = self._replica
        for prompt in self._prompts:
            if self._shape.prefill_ctx:
                del replica.running[prompt], replica.decoders[prompt]
            else:
                replica.leave(prompt)

    def _put_back(self) -> None:
        replica, shape = self._replica, self._shape
        for each, cached in zip(self._decoders, self._contexts, strict=True):
            each.cached, each.generated = cached, 1
        for prompt in self._prompts:
            prompt.generated = 0
            if shape.prefill_ctx:
                prompt.cached, prompt.remaining = shape.prefill_ctx, shape.prefill_new
                replica.running[prompt] = None
                replica.partial.append(prompt)
            else:
                replica.enqueue(prompt)


_TIMED_FOR_GAPS = 3
_NEVER_DONE = 3
"""Output tokens of each sequence: one more than it gets."""

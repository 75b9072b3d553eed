"""A workload served in real time by an engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Self

import numpy as np

from profiler import ENGINE
from profiler.engine.batch import Chunk
from profiler.engine.cache import BLOCK_SIZE, BlockPool
from profiler.engine.graphs import SIZES
from profiler.engines.own import OwnEngine
from profiler.grid import Shape
from profiler.measure.company import Company
from profiler.measure.meters import Meter, open_meter
from profiler.measure.timing import time_iteration, warm_up
from profiler.memory import affordable_blocks, check_affordable
from profiler.provenance import setting
from profiler.serving.clock import Clock, WallClock
from profiler.serving.gaps import LaunchGaps
from profiler.serving.log import Served
from profiler.serving.loop import Loop
from profiler.serving.replica import Limits, Policies, Replica
from profiler.serving.sequence import Sequence
from profiler.serving.stage import Stage
from simslm.catalog.architecture import Architecture

_WARM_SEQS = 4
_PREPARE_S = 60.0

Columns = Mapping[str, np.ndarray | None]
"""A workload: ``arrival_s prompt_tokens output_tokens max_tokens`` and ``priority``, which may be None, one entry per
request, in order of arrival."""


def sequences(columns: Columns, vocabulary: int, rng: np.random.Generator) -> list[Sequence]:
    """The requests of a workload, with random prompts.

    Args:
        columns: see :data:`Columns`.
        vocabulary: tokens are drawn from so many.
        rng: draws them.
    """
    names = ("arrival_s", "prompt_tokens", "output_tokens", "max_tokens")
    arrivals, prompts, outputs, declared = (np.asarray(columns[name]).tolist() for name in names)
    urgent = columns["priority"]
    priorities = [0] * len(arrivals) if urgent is None else urgent.tolist()
    rows = zip(arrivals, prompts, outputs, declared, priorities, strict=True)
    return [
        Sequence(i, arrival_s, prompt, output, most, priority, rng.integers(0, vocabulary, prompt + output))
        for i, (arrival_s, prompt, output, most, priority) in enumerate(rows)
    ]


def _powers(most: int) -> list[int]:
    """Powers of two up to a number, and the number."""
    return [*(2**i for i in range((most - 1).bit_length())), most]


class LiveEngine:
    """An engine kept warm, that serves one workload after another.

    Args:
        engine: what serves; it may be measured between two workloads.
        num_blocks: of its KV cache, what serving has; by default all.
        seed: of prompts.
        meter: energy counter instead of the device's own.

    Attributes:
        name: name and version of the engine.
    """

    name = ENGINE

    def __init__(
        self, engine: OwnEngine, num_blocks: int | None = None, seed: int = 0, meter: Meter | None = None
    ) -> None:
        self._engine, self._num_blocks = engine, num_blocks or engine.cache.num_blocks
        self._meter = meter or open_meter(engine.device)
        self._seed = seed
        self._gaps = LaunchGaps(engine, self._num_blocks, seed)
        self._warmed = 0

    @classmethod
    def open(
        cls,
        architecture: Architecture,
        dtype: str,
        device: str,
        num_blocks: int,
        block_size: int = BLOCK_SIZE,
        seed: int = 0,
        meter: Meter | None = None,
    ) -> Self:
        """An engine of its own.

        Args:
            architecture: of a supported family.
            dtype, device: what it computes in, and on.
            num_blocks, block_size: its KV cache.
            seed: of weights and prompts.
            meter: energy counter instead of the device's own.

        Raises:
            InfeasibleError: the blocks do not fit beside the weights in what memory is free.
        """
        check_affordable(num_blocks, affordable_blocks(architecture, device, dtype, block_size), device)
        engine = OwnEngine(
            architecture, dtype=dtype, device=device, num_blocks=num_blocks, block_size=block_size, seed=seed
        )
        return cls(engine, num_blocks, seed, meter)

    def warm(self, limits: Limits, longest: int, stopping: Callable[[], bool] = lambda: False) -> None:
        """Meets the shapes that serving will, then repeats one until its duration is stationary.

        A processor's library sets a matrix product up when it first meets its shape, and a GPU has kernels compiled
        and graphs recorded, which takes longer than many an iteration; after hours of service they have met them all.
        Here they meet, in random order for at most a minute, on a CPU every number of tokens and every number of
        decoding sequences with every number of pages, on a GPU every recorded size, and powers of two of prompt tokens
        alone and beside decodes.

        Args:
            limits: of the replica.
            longest: longest prompt and output together, tokens.
            stopping: asked before every batch.

        Raises:
            KeyboardInterrupt: it was told to stop.
        """
        deadline = time.perf_counter() + _PREPARE_S
        batches = self._rehearsals(limits, longest)
        for i in np.random.default_rng(self._seed).permutation(len(batches)):
            if stopping():
                raise KeyboardInterrupt
            if time.perf_counter() > deadline:
                break
            self._engine.iterate(batches[i])
            self._warmed += 1
        cache = self._engine.cache
        shape = Shape(min(_WARM_SEQS, cache.num_blocks), cache.block_size // 2)
        stage = Stage(self._engine, shape, np.random.default_rng(self._seed))
        self._warmed += warm_up(lambda: stage.time().latency_s)

    def _rehearsals(self, limits: Limits, longest: int) -> list[list[Chunk]]:
        """Batches of every size; their sequences lie on the same blocks, as their tokens are not used."""
        size = self._engine.cache.block_size
        blocks = np.arange(min(-(-longest // size), self._num_blocks))
        room = min(longest, len(blocks) * size)
        ids = np.zeros(limits.max_num_batched_tokens, dtype=np.int64)
        coarse = self._engine.device.type != "cpu"

        def prompt(tokens: int) -> list[Chunk]:
            return [Chunk(ids[: min(room, tokens - start)], 0, blocks) for start in range(0, tokens, room)]

        def decodes(seqs: int, pages: int) -> list[Chunk]:
            return [Chunk(ids[:1], pages * size - 1, blocks)] * seqs

        most, seqs = limits.max_num_batched_tokens, limits.max_num_seqs
        if coarse:
            tokens, batches = _powers(most), sorted({*(n for n in SIZES if n <= seqs), seqs})
            mixed = [
                decodes(n, 1) + prompt(each) for n in _powers(seqs) for each in tokens if n + each <= most
            ]
            return [prompt(n) for n in tokens] + [decodes(n, room // size) for n in batches] + mixed
        pages = range(1, room // size + 1)
        alone = [prompt(n) for n in range(1, most + 1)]
        return alone + [decodes(n, each) for n in range(1, seqs + 1) for each in pages]

    def serve(
        self,
        columns: Columns,
        limits: Limits,
        policies: Policies,
        stopping: Callable[[], bool] = lambda: False,
    ) -> Served:
        """Serves a workload whose first moment is now.

        Args:
            columns: see :data:`Columns`; every request fits the engine.
            limits, policies: of the replica.
            stopping: see :meth:`profiler.serving.loop.Loop.serve`.
        """
        begin, meter = self.ready(columns, limits, policies), self._meter
        before, company = meter.energy_j(), Company()
        served = begin(WallClock()).serve(stopping)
        after, others = meter.energy_j(), company.share()
        energy_j = None if before is None or after is None else after - before
        return replace(self.with_gaps(served), energy_j=energy_j, other_load=others)

    def with_gaps(self, served: Served) -> Served:
        """A workload that this engine served, with launch gaps in its host time; nothing else may use the device."""
        return self._gaps.added(served)

    def ready(
        self, columns: Columns, limits: Limits, policies: Policies, mine: np.ndarray | None = None
    ) -> Callable[[Clock], Loop]:
        """Does all that takes time before a workload can be served; what it returns starts at a given clock.

        Args:
            columns, limits, policies: as in :meth:`serve`.
            mine: which requests are served here, a mask; None = all. A request has the same prompt on
                every replica.
        """
        engine = self._engine
        workload = sequences(columns, engine.architecture.vocab_size, np.random.default_rng(self._seed))
        if mine is not None:
            workload = [each for each in workload if mine[each.request_id]]
        replica = Replica(BlockPool(self._num_blocks), engine.cache.block_size, limits, policies)
        return lambda clock: Loop(replica, partial(time_iteration, engine), clock, workload)

    def describe(self) -> dict[str, Any]:
        """The machine, the engine and its threads, as results state them."""
        return setting(self._engine, self._meter, self._seed) | {"warmup": self._warmed}

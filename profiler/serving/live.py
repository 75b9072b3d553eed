"""A workload served in real time by an engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from profiler.engine.cache import BlockPool
from profiler.engine.engine import Engine
from profiler.grid import Shape
from profiler.measure.meters import Meter
from profiler.measure.timing import time_iteration, warm_up
from profiler.serving.clock import WallClock
from profiler.serving.log import Served
from profiler.serving.loop import Loop
from profiler.serving.replica import Limits, Policies, Replica
from profiler.serving.sequence import Sequence
from profiler.serving.stage import Stage

_WARM_SEQS = 4

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


def warm(engine: Engine, seed: int = 0) -> int:
    """Iterations until their duration is stationary, or for three seconds; how many it took."""
    shape = Shape(min(_WARM_SEQS, engine.cache.num_blocks), engine.cache.block_size - 1)
    stage = Stage(engine, shape, np.random.default_rng(seed))
    return warm_up(lambda: stage.time().latency_s)


def serve(
    engine: Engine,
    columns: Columns,
    limits: Limits,
    policies: Policies,
    meter: Meter,
    *,
    seed: int = 0,
    stopping: Callable[[], bool] = lambda: False,
) -> Served:
    """Serves a workload whose first moment is now.

    Args:
        engine: with as many blocks as the replica may use.
        columns: see :data:`Columns`; every request fits the engine.
        limits, policies: of the replica.
        meter: the device's energy counter.
        seed: of the prompts.
        stopping: see :meth:`profiler.serving.loop.Loop.serve`.
    """
    workload = sequences(columns, engine.architecture.vocab_size, np.random.default_rng(seed))
    replica = Replica(BlockPool(engine.cache.num_blocks), engine.cache.block_size, limits, policies)
    before = meter.energy_j()
    served = Loop(replica, partial(time_iteration, engine), WallClock(), workload).serve(stopping)
    after = meter.energy_j()
    if before is None or after is None:
        return served
    return replace(served, energy_j=after - before)

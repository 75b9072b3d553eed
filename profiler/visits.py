"""What one visit of a campaign measures: an iteration's calls, the operators one by one, or power."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from statistics import median
from typing import Any

import numpy as np
import torch

from profiler.engine.batch import Chunk
from profiler.engine.engine import Engine
from profiler.engines.subject import Staged, Subject, WallTiming
from profiler.grid import Shape
from profiler.measure.ceilings import ceiling_operators
from profiler.measure.meters import Meter
from profiler.measure.operators import (
    Operator,
    OperatorClock,
    attention_operator,
    dense_operators,
    operator_tokens,
    write_operator,
)
from profiler.measure.power import measure_power
from profiler.measure.timing import Timing, warm_up

ENERGY_VISITS = 3
"""Visits of a shape in which its energy is measured, which takes a longer window."""

MOST_ROWS = 32
"""Timed calls of a visit that become rows."""

LONG_CALL_S = 0.4
"""Calls that take longer are not repeated to warm their shape up, but at first."""

_VISIT_S = 0.02
_MOST_CALLS = 5
_TICK_S = 0.2
_IDLE_SETTLE_S = 3.0
_SETTLE_S = 1.0
_POWER_S = 1.0
_LONGEST_OPERATOR = 2048


class Visits:
    """Measures what it is told to, one visit at a time.

    Args:
        engine: what is measured.
        meter: its energy counter.
        seed: of tokens and block tables.
        counted: the label of each visit, of an earlier process, in which energy was measured.
    """

    def __init__(self, engine: Subject, meter: Meter, seed: int, counted: Iterable[str] = ()) -> None:
        self.engine, self.meter = engine, meter
        self._rng = np.random.default_rng(seed)
        self._calls: dict[str, float] = {}
        self._windows = Counter(counted)

    def warm_up(self, shape: Shape) -> None:
        """Repeats a shape until its duration is stationary."""
        warm_up(lambda: self.engine.stage(shape, self._rng).time().latency_s)

    def iteration(self, shape: Shape) -> list[dict[str, Any]]:
        """One warm-up call, then the timed ones, as rows of ``iterations.parquet``; of many, some evenly spaced."""
        stage = self.engine.stage(shape, self._rng)
        label = shape.label()
        if label not in self._calls:
            stage.time()  # it may set the shape up: compile, record, fill a library's own tables
        first = stage.time() if self._calls.get(label, 0.0) < LONG_CALL_S else None
        counted = not self.meter.note and self._windows[label] < ENERGY_VISITS
        target, most = (max(_VISIT_S, self.meter.window_s), 10_000) if counted else (_VISIT_S, _MOST_CALLS)
        calls = 1 if first is None else int(np.clip(-(-target // first.latency_s), 1, most))
        start = end = 0.0
        before = after = None
        if counted:
            _, start, before = self._tick(stage)
        timings = [stage.time() for _ in range((calls + 1) // 2)]
        state = {"sm_clock_mhz": self.meter.clock_mhz(), "throttle": self.meter.throttle()}
        timings += [stage.time() for _ in range(calls // 2)]
        if counted:
            more, end, after = self._tick(stage)
            timings += more
        self._calls[label] = median(timing.latency_s for timing in timings)
        common = {"sharing": "none", "replicas": 1, "energy_j": None, "power_w": None}
        if before is not None and after is not None:
            self._windows[label] += 1
            common |= {
                "energy_j": (after - before) / len(timings),
                "power_w": (after - before) / (end - start),
            }
        common |= shape.columns() | state
        kept = np.unique(np.linspace(0, len(timings) - 1, min(len(timings), MOST_ROWS)).round().astype(int))
        return [common | timings[i]._asdict() for i in kept]

    def _tick(self, stage: Staged) -> tuple[list[Timing | WallTiming], float, float | None]:
        """Runs until the energy counter moves, which it does in steps of up to a tenth of a second.

        A window between two such moments has all of its energy and none of another's.

        Returns:
            The calls made, when the counter moved, and what it said then; None without a counter.
        """
        made, begin, before = [], time.perf_counter(), self.meter.energy_j()
        while (now := self.meter.energy_j()) == before and before is not None:
            if time.perf_counter() - begin > _TICK_S:
                break
            made.append(stage.time())
        return made, time.perf_counter(), now

    def operators(self, engine: Engine, shapes: Sequence[Shape]) -> list[dict[str, Any]]:
        """The device's ceilings and every operator of an iteration, as rows of ``kernels.parquet``."""
        clock = OperatorClock(engine.device)
        with torch.inference_mode():
            return [
                clock.row(each) for each in chain(ceiling_operators(engine), self._operators(engine, shapes))
            ]

    def _operators(self, engine: Engine, shapes: Sequence[Shape]) -> Iterator[Operator]:
        for tokens in operator_tokens(engine.architecture):
            yield from dense_operators(engine, tokens)
        for shape in shapes:
            if not shape.prefill_seqs:
                yield attention_operator(engine, self._batch(engine, shape), "attention_decode")
                yield write_operator(engine, self._batch(engine, shape))
            elif not shape.decode_seqs and shape.prefill_new <= _LONGEST_OPERATOR:
                yield attention_operator(engine, self._batch(engine, shape), "attention_prefill")

    def power(self, shapes: Sequence[Shape]) -> list[dict[str, Any]]:
        """Mean power idle, and under the largest decode and the largest prefill."""
        decode = max((s for s in shapes if not s.prefill_seqs), key=lambda s: s.decode_seqs * s.decode_ctx)
        prefill = max((s for s in shapes if not s.decode_seqs), key=lambda s: s.prefill_new)
        rest = partial(time.sleep, _POWER_S / 10)
        rows = [{"state": "idle"} | measure_power(self.meter, rest, _IDLE_SETTLE_S, _POWER_S)]
        for state, shape in (("decode", decode), ("prefill", prefill)):
            call = self.engine.stage(shape, self._rng).time
            rows.append({"state": state} | measure_power(self.meter, call, _SETTLE_S, _POWER_S))
        return rows

    def _batch(self, engine: Engine, shape: Shape) -> list[Chunk]:
        """Random tokens for a shape, in blocks from anywhere in the cache."""
        free = self._rng.permutation(engine.cache.num_blocks)
        decodes = [(1, cached) for cached in shape.contexts(engine.architecture.max_position_embeddings)]
        prompts = [(shape.prefill_new, shape.prefill_ctx)] * shape.prefill_seqs
        batch = []
        for new, cached in decodes + prompts:
            pages = -(-(cached + new) // engine.cache.block_size)
            tokens = self._rng.integers(0, engine.architecture.vocab_size, new)
            batch.append(Chunk(tokens, cached, free[:pages]))
            free = free[pages:]
        return batch

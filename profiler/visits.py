"""What one visit of a campaign measures: an iteration's calls, the operators one by one, or power."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch

from profiler.engine.batch import Chunk
from profiler.engine.engine import Engine
from profiler.engines.subject import Staged, Subject, WallTiming
from profiler.grid import Shape
from profiler.measure.ceilings import ceiling_operators
from profiler.measure.energy import Energy, moves
from profiler.measure.faults import deadly, survivable
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
"""Visits of a shape in which its energy is measured, which takes a longer window; one where the sensor averages."""

VISIT_S = {"cpu": 0.02, "cuda": 0.1}
"""Seconds of calls in a visit without energy, by kind of device: a GPU's clock and what holds it down follow the load
within some hundredths of a second, so shorter bursts would show a cooler device than one that serves."""

MOST_ROWS = 32
"""Timed calls of a visit with energy that become rows."""

FEW_ROWS = 5
"""Timed calls of any other visit that become rows."""

LONG_CALL_S = 0.4
"""Calls that take longer are not repeated to warm their shape up, but at first."""

_MOST_CALLS = {"cpu": 5, "cuda": 1000}
_IDLE_SETTLE_S = 3.0
_SETTLE_S = 1.0
_POWER_S = 1.0
POWER_VISIT_S = _IDLE_SETTLE_S + 2 * _SETTLE_S + 3 * _POWER_S
"""Seconds that power takes idle and under two loads."""

_LONGEST_OPERATOR = 2048
_MOST_IN_WINDOW = 10_000

Note = Callable[[str, Exception], None]
"""Called with the label of what the device refused, and its error."""


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
        self._steps_s: list[float] = []

    def step_s(self) -> float | None:
        """Time between two moves of the energy counter, in the median over windows; None before there are any."""
        return median(self._steps_s) if self._steps_s else None

    def warm_up(self, shape: Shape) -> None:
        """Repeats a shape until its duration is stationary."""
        warm_up(lambda: self.engine.stage(shape, self._rng).time().latency_s)

    def iteration(self, shape: Shape) -> list[dict[str, Any]]:
        """One warm-up call, then the timed ones, as rows of ``iterations.parquet``; of many, some evenly spaced."""
        stage, label = self.engine.stage(shape, self._rng), shape.label()
        if label not in self._calls:
            stage.time()  # it may set the shape up: compile, record, fill a library's own tables
        visits = 1 if self.meter.lead_s else ENERGY_VISITS
        counted = not self.meter.note and self._windows[label] < visits
        if counted or self._calls.get(label, 0.0) < LONG_CALL_S:
            stage.time()
        calls = self._window(stage) if counted else self._burst(stage)
        self._windows[label] += counted
        self._calls[label] = median(timing.latency_s for timing in calls.timings)
        common = {"sharing": "none", "replicas": 1, "energy_j": None, "power_w": None}
        if calls.energy is not None:
            common |= {"energy_j": calls.energy.each_j(calls.ends_s), "power_w": calls.energy.power_w}
        common |= shape.columns() | (calls.state or state_of(self.meter))
        most = min(len(calls.timings), MOST_ROWS if counted else FEW_ROWS)
        kept = np.unique(np.linspace(0, len(calls.timings) - 1, most).round().astype(int))
        return [common | calls.timings[i]._asdict() for i in kept]

    def _burst(self, stage: Staged) -> _Calls:
        """Makes calls for a short while."""
        kind = self.engine.device.type
        calls = _Calls()
        target, most = VISIT_S[kind], _MOST_CALLS[kind]
        while len(calls.timings) < most and (not calls.timings or calls.spent_s < target):
            calls.make(stage, self.meter, target)
        return calls

    def _window(self, stage: Staged) -> _Calls:
        """Makes calls for as long as measuring their energy needs."""
        started = time.perf_counter()
        while time.perf_counter() - started < self.meter.lead_s:
            stage.time()
        with moves(self.meter) as seen:
            calls = _Calls()
            while len(calls.timings) < _MOST_IN_WINDOW:
                calls.make(stage, self.meter, self.meter.window_s)
                seen.look()
                if seen.enough(calls.spent_s):
                    break
        calls.energy = seen.energy()
        if (step_s := seen.step_s()) is not None:
            self._steps_s.append(step_s)
        return calls

    def operators(self, engine: Engine, shapes: Sequence[Shape], note: Note) -> list[dict[str, Any]]:
        """The device's ceilings and every operator of an iteration, as rows of ``kernels.parquet``.

        Args:
            engine: whose operators.
            shapes: whose attention.
            note: told of the groups that the device refuses; the others are there.
        """
        clock, rows = OperatorClock(engine.device), []
        for label, group in self._operators(engine, shapes):
            try:
                with torch.inference_mode():
                    rows += [clock.row(each) for each in group()]
            except Exception as error:
                if not survivable(error) or deadly(error):
                    raise
                note(label, error)
        return rows

    def _operators(
        self, engine: Engine, shapes: Sequence[Shape]
    ) -> Iterator[tuple[str, Callable[[], Iterable[Operator]]]]:
        """Groups of operators with their labels; each is made when it is measured, as its tensors take memory."""

        def attention(shape: Shape) -> Iterator[Operator]:
            op = "attention_prefill" if shape.prefill_seqs else "attention_decode"
            yield attention_operator(engine, self._batch(engine, shape), op)
            if not shape.prefill_seqs:
                yield write_operator(engine, self._batch(engine, shape))

        yield "ceilings", partial(ceiling_operators, engine)
        for tokens in operator_tokens(engine.architecture):
            yield f"operators of {tokens} tokens", partial(dense_operators, engine, tokens)
        for shape in shapes:
            if not shape.prefill_seqs or (not shape.decode_seqs and shape.prefill_new <= _LONGEST_OPERATOR):
                yield f"attention of {shape.label()}", partial(attention, shape)

    def power(self, shapes: Sequence[Shape]) -> list[dict[str, Any]]:
        """Mean power idle, and under the largest decode and the largest prefill; without what cannot be read."""
        decodes, prefills = (
            [s for s in shapes if not s.prefill_seqs],
            [s for s in shapes if not s.decode_seqs],
        )
        rest = partial(time.sleep, _POWER_S / 10)
        rows = [("idle", measure_power(self.meter, rest, _IDLE_SETTLE_S, _POWER_S))]
        if decodes:
            rows.append(("decode", self._load(max(decodes, key=lambda s: s.decode_seqs * s.decode_ctx))))
        if prefills:
            rows.append(("prefill", self._load(max(prefills, key=lambda s: s.prefill_new))))
        return [{"state": state} | row for state, row in rows if row is not None]

    def _load(self, shape: Shape) -> dict[str, Any] | None:
        """Power while one shape runs over and over."""
        return measure_power(self.meter, self.engine.stage(shape, self._rng).time, _SETTLE_S, _POWER_S)

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


@dataclass
class _Calls:
    """Timed calls, one after the other.

    Attributes:
        timings: of each.
        ends_s: when the first began, then when each ended.
        state: clock, and what held it down, after half the time.
        energy: between two moves of the counter; None without.
    """

    timings: list[Timing | WallTiming] = field(default_factory=list)
    ends_s: list[float] = field(default_factory=lambda: [time.perf_counter()])
    state: dict[str, Any] = field(default_factory=dict)
    energy: Energy | None = None

    @property
    def spent_s(self) -> float:
        """Seconds from the first call to the end of the last."""
        return self.ends_s[-1] - self.ends_s[0]

    def make(self, stage: Staged, meter: Meter, target_s: float) -> None:
        """Makes one more call; ``target_s`` is how long all of them are to take."""
        self.timings.append(stage.time())
        self.ends_s.append(time.perf_counter())
        if not self.state and self.spent_s >= target_s / 2:
            self.state = state_of(meter)


def state_of(meter: Meter) -> dict[str, Any]:
    """The clock now, and what holds it down, as columns."""
    return {"sm_clock_mhz": meter.clock_mhz(), "throttle": meter.throttle()}

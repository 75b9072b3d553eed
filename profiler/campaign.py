"""A measuring campaign: every shape of a grid, in several passes, into a trace.

Each pass visits all shapes in a new random order, so that a drifting machine does not bend one area of the
grid. A visit warms its shape up with one call, then keeps every timed call as a row; no outlier is dropped.
What is finished is on disk at once, and a campaign that was cut off goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from profiler import ENGINE
from profiler.colocation import Together, check
from profiler.engine.batch import Chunk
from profiler.engine.cache import BLOCK_SIZE
from profiler.engine.engine import Engine, open_device, pin_threads, release_freed_memory, torch_dtype
from profiler.engine.quantized import check_quantization
from profiler.engine.weights import check_supported
from profiler.grid import Reach, Shape, heldout_shapes, measured_shapes
from profiler.journal import Journal, Key
from profiler.measure.meters import Meter, open_meter
from profiler.measure.operators import (
    Operator,
    attention_operator,
    dense_operators,
    operator_tokens,
    time_operator,
    write_operator,
)
from profiler.measure.timing import warm_up
from profiler.provenance import catalogue_device, describe, memory_bytes
from profiler.serving.stage import Stage
from simslm.catalog.architecture import Architecture
from simslm.catalog.models import load_model
from simslm.errors import InfeasibleError, UsageError
from simslm.traces.files import write_trace

Progress = Callable[[int, int, str, float], None]
"""Called with visits done, visits in all, what was measured, and seconds left."""

REPEATS = {"quick": 5, "full": 8}
"""Passes over the grid, by grid."""

_VISIT_S = 0.02
_PASS_S = 0.25
_MOST_VISITS = 5
_MOST_CALLS = 5
_LONG_CALL_S = 0.4
_IDLE_S = 2.0
_MEMORY_SHARE = 0.8
_OPERATOR_PASSES = 3
_LONGEST_OPERATOR = 2048


@dataclass
class Campaign:
    """One campaign in progress.

    Attributes:
        engine: what is measured.
        meter: its energy counter.
        journal: what is finished.
        shapes: what cost models are built from.
        heldout: what they are held against.
        repeats: passes over both.
        seed: of the order and of the block tables.
        progress: see :data:`Progress`.
        deadline: when to stop, by ``time.perf_counter``; finished visits are kept.
    """

    engine: Engine
    meter: Meter
    journal: Journal
    shapes: list[Shape]
    heldout: list[Shape]
    repeats: int
    seed: int = 0
    progress: Progress = lambda done, total, label, eta_s: None
    deadline: float = float("inf")
    _rng: np.random.Generator = field(init=False)
    _seconds: dict[str, float] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)

    def run(self) -> bool:
        """Measure what the journal lacks; whether all of it is there at the end."""
        warm_up(lambda: Stage(self.engine, self.shapes[0], self._rng).time().latency_s)
        done = 0
        for number in range(self.repeats + 1):
            labels = [key[1] for later in range(number, self.repeats + 1) for key, _ in self._visits(later)]
            for visited, (key, measure) in enumerate(self._visits(number)):
                if key in self.journal.entries:
                    continue
                if time.perf_counter() >= self.deadline:
                    return False
                self.progress(done + visited, done + len(labels), key[1], self._seconds_for(labels[visited:]))
                start = time.perf_counter()
                self.journal.add(key, measure())
                self._seconds[key[1]] = time.perf_counter() - start
            done += len(self._visits(number))
        self.progress(done, done, "done", 0.0)
        return True

    def batch(self, shape: Shape) -> list[Chunk]:
        """Random tokens for a shape, in blocks from anywhere in the cache."""
        free = self._rng.permutation(self.engine.cache.num_blocks)
        decodes = [(1, shape.decode_ctx)] * shape.decode_seqs
        prompts = [(shape.prefill_new, shape.prefill_ctx)] * shape.prefill_seqs
        batch = []
        for new, cached in decodes + prompts:
            pages = -(-(cached + new) // self.engine.cache.block_size)
            tokens = self._rng.integers(0, self.engine.architecture.vocab_size, new)
            batch.append(Chunk(tokens, cached, free[:pages]))
            free = free[pages:]
        return batch

    def _visits(self, number: int) -> list[tuple[Key, Callable[[], list[dict[str, Any]]]]]:
        """Key and measurement of every visit of one pass, in its own random order; operators come last.

        What a visit of the first pass shows to be short is visited more often in the passes after it.
        """
        if number == self.repeats:
            return self._last_visits()
        visits = [
            ((kind, shape.label(), number * _MOST_VISITS + i), partial(self._visit, shape))
            for kind, shapes in self.areas()
            for shape in shapes
            for i in range(self._times(kind, shape, number))
        ]
        order = np.random.default_rng((self.seed, number)).permutation(len(visits))
        return [visits[i] for i in order]

    def _last_visits(self) -> list[tuple[Key, Callable[[], list[dict[str, Any]]]]]:
        times = range(min(self.repeats, _OPERATOR_PASSES))
        visits = [(("kernel", "operators", i), self._visit_operators) for i in times]
        if self.meter.note:
            return visits
        return visits + [(("power", "power states", i), self._visit_power) for i in range(self.repeats)]

    def areas(self) -> Iterator[tuple[str, list[Shape]]]:
        """Kind of journal entry, and the shapes of that kind."""
        yield "iteration", self.shapes
        yield "heldout", self.heldout

    def passes(self) -> int:
        """Passes that visited every shape."""
        keys = [(kind, shape.label()) for kind, shapes in self.areas() for shape in shapes]
        done = range(self.repeats)
        return min(sum((*key, i * _MOST_VISITS) in self.journal.entries for i in done) for key in keys)

    def _times(self, kind: str, shape: Shape, number: int) -> int:
        """Visits of a shape in one pass: more for short ones on a CPU, which other work disturbs."""
        rows = self.journal.entries.get((kind, shape.label(), 0))
        if number == 0 or not rows or self.engine.device.type != "cpu":
            return 1
        return int(np.clip(_PASS_S // min(row["latency_s"] for row in rows), 1, _MOST_VISITS))

    def _visit(self, shape: Shape) -> list[dict[str, Any]]:
        """One warm-up call, then the timed ones, as rows of ``iterations.parquet``."""
        stage = Stage(self.engine, shape, self._rng)
        expected = self._seconds.get(shape.label(), 0.0)
        first = stage.time() if expected < 2 * _LONG_CALL_S else None
        target = max(_VISIT_S, self.meter.window_s)
        most = _MOST_CALLS if self.meter.note else 10_000
        calls = 1 if first is None else int(np.clip(-(-target // first.latency_s), 1, most))
        start, before = time.perf_counter(), self.meter.energy_j()
        timings = [stage.time() for _ in range(calls)]
        energy_j, power_w = self._energy(start, before, calls)
        clock = self.meter.clock_mhz()
        common = {"sharing": "none", "replicas": 1, "energy_j": energy_j, "power_w": power_w}
        common |= shape.columns() | {"sm_clock_mhz": clock}
        return [common | timing._asdict() for timing in timings]

    def _energy(self, start: float, before: float | None, calls: int) -> tuple[float | None, float | None]:
        """Joules per call and mean watts since ``start``; None without a counter."""
        after = self.meter.energy_j()
        if before is None or after is None:
            return None, None
        return (after - before) / calls, (after - before) / (time.perf_counter() - start)

    def _visit_operators(self) -> list[dict[str, Any]]:
        rows = []
        with torch.inference_mode():
            for operator in self._operators():
                operator.run()
                rows.append(time_operator(operator, self.engine.device))
        return rows

    def _operators(self) -> Iterator[Operator]:
        for tokens in operator_tokens(self.engine.architecture):
            yield from dense_operators(self.engine, tokens)
        for shape in self.shapes:
            if not shape.prefill_seqs:
                yield attention_operator(self.engine, self.batch(shape), "attention_decode")
                yield write_operator(self.engine, self.batch(shape))
            elif not shape.decode_seqs and shape.prefill_new <= _LONGEST_OPERATOR:
                yield attention_operator(self.engine, self.batch(shape), "attention_prefill")

    def _visit_power(self) -> list[dict[str, Any]]:
        """Mean power idle, and under the largest decode and the largest prefill."""
        decode = max(
            (s for s in self.shapes if not s.prefill_seqs), key=lambda s: s.decode_seqs * s.decode_ctx
        )
        prefill = max((s for s in self.shapes if not s.decode_seqs), key=lambda s: s.prefill_new)
        states: list[tuple[str, Callable[[], object]]] = [("idle", lambda: time.sleep(_IDLE_S))]
        for state, shape in (("decode", decode), ("prefill", prefill)):
            states.append((state, lambda batch=self.batch(shape): self.engine.iterate(batch)))
        return [self._power(state, call) for state, call in states]

    def _power(self, state: str, call: Callable[[], object]) -> dict[str, Any]:
        start, before = time.perf_counter(), self.meter.energy_j()
        while time.perf_counter() - start < self.meter.window_s:
            call()
        _, power_w = self._energy(start, before, 1)
        clock = self.meter.clock_mhz()
        return {"state": state, "power_w": power_w, "sm_clock_mhz": clock, "relative_speed": 1.0}

    def _seconds_for(self, labels: Sequence[str]) -> float:
        """Seconds that visits will take, judging by earlier ones of the same shapes."""
        known = list(self._seconds.values())
        typical = sum(known) / len(known) if known else 0.0
        return sum(self._seconds.get(label, typical) for label in labels)


def profile(
    model: str | Architecture,
    device: str = "cpu",
    dtype: str = "bf16",
    grid: str = "quick",
    output: Path | str | None = None,
    *,
    quantization: str | None = None,
    repeats: int | None = None,
    threads: int | None = None,
    budget_s: float | None = None,
    seed: int = 0,
    command: str = "",
    progress: Progress | None = None,
    meter: Meter | None = None,
    reach: Reach | None = None,
    replicas: Sequence[int] = (1,),
    sharing: Sequence[str] = ("time-slice",),
) -> Path:
    """Measure a model on a device and write its trace; resumes a campaign that was cut off.

    Numbers of replicas above 1 are measured after the replica alone, into the same trace; without 1 among them the
    trace must be there already.

    Args:
        model: catalogue name, path of a Hugging Face ``config.json``, or an architecture.
        device: ``cpu`` or ``cuda:N``.
        dtype: ``fp32``, ``bf16`` or ``fp16``.
        grid: ``quick`` or ``full``.
        output: the trace's directory; by default ``traces/<device>/<model>-<dtype>[-<quantization>]``.
        quantization: ``int8`` or ``fp8`` weights, of one replica alone.
        repeats: passes over the grid; by default :data:`REPEATS`.
        threads: CPU threads of torch; by default as many as torch chooses.
        budget_s: stop measuring after this long. Whole passes so far become the trace, and the next call
            goes on from there.
        seed: of weights, order and block tables.
        command: what the provenance says this was run with.
        progress: called before every visit.
        meter: energy counter instead of the device's own.
        reach: where the grid ends; by default as far as the model goes.
        replicas: how many share the device, one campaign for each.
        sharing: in which ways, of :data:`profiler.colocation.WAYS`.

    Returns:
        The trace's directory.

    Raises:
        UsageError: an unknown model, grid, dtype, device or way of sharing, or another campaign's journal is in the
            way.
        InfeasibleError: the model does not fit, or the budget did not last for one pass.
        DeviceError: the device or its MPS is not there.
        TraceError: without 1 among the replicas, there is no trace of one alone.
    """
    start = time.perf_counter()
    together = sorted({count for count in replicas if count != 1})
    check(device, replicas, sharing)
    check_quantization(quantization, open_device(device))
    if quantization and together:
        raise UsageError("replicas are measured without quantization", remedy="use --replicas 1")
    architecture = load_model(model) if isinstance(model, str) else model
    check_supported(architecture)
    torch_dtype(dtype)
    pin_threads(threads)
    name = catalogue_device(open_device(device))
    shapes, heldout = _shapes(architecture, device, dtype, grid, reach)
    kind = f"{dtype}-{quantization}" if quantization else dtype
    target = Path(output) if output else Path("traces") / name / f"{architecture.name}-{kind}"
    header = {"model": architecture.name, "device": name, "dtype": dtype, "grid": grid, "seed": seed}
    header |= {"engine": ENGINE, "torch": torch.__version__, "threads": torch.get_num_threads()}
    header |= {"reach": list(reach) if reach else None, "quantization": quantization}
    common = Together(architecture, device, dtype, together, tuple(sharing), threads, meter, progress)
    if 1 not in replicas:
        common.measure(target, header)
        return target
    journal = Journal(target.parent / f"{target.name}.journal.partial", header)
    blocks = max(shape.blocks(BLOCK_SIZE) for shape in (*shapes, *heldout))
    engine = Engine(
        architecture, dtype=dtype, device=device, num_blocks=blocks, seed=seed, quantization=quantization
    )
    campaign = Campaign(
        engine,
        meter or open_meter(engine.device),
        journal,
        shapes,
        heldout,
        repeats or REPEATS[grid],
        seed,
        progress or (lambda *_: None),
        start + budget_s if budget_s else float("inf"),
    )
    complete = campaign.run()
    provenance = describe(engine, campaign.meter, grid=grid, command=command, seed=seed)
    _write(campaign, target, provenance | {"reach": reach._asdict() if reach else None})
    if complete:
        journal.remove()
        if together:
            del engine, campaign
            release_freed_memory(device)
            common.measure(target, header)
    return target


def _shapes(
    architecture: Architecture, device: str, dtype: str, grid: str, reach: Reach | None
) -> tuple[list[Shape], list[Shape]]:
    """The grid's shapes and the held-out ones, as far as the device's memory allows."""
    affordable = affordable_blocks(architecture, device, dtype)
    shapes = measured_shapes(architecture, device.partition(":")[0], grid, affordable, BLOCK_SIZE, reach)
    if not shapes:
        raise InfeasibleError(
            f"no shape of the grid fits beside the weights of {architecture.name} in {dtype}",
            where=f"device {device}",
            remedy="profile a smaller model or a narrower dtype, or free memory",
        )
    return shapes, heldout_shapes(architecture, affordable, BLOCK_SIZE, reach)


def _write(campaign: Campaign, target: Path, provenance: dict[str, Any]) -> None:
    """The journal's rows as a trace; an unfinished first pass is not one."""
    journal = campaign.journal
    passes = campaign.passes()
    if not passes:
        raise InfeasibleError(
            "the time allowed ended within the first pass over the grid",
            where=str(journal.path),
            remedy="run the same command again: it goes on from there",
        )
    provenance["repeats"] = passes
    provenance["warmup"] = 1
    provenance["method"] = (
        f"{passes} passes in random order; on a CPU up to {_MOST_VISITS} visits per pass after the first, for "
        f"{_PASS_S} s of each shape; per visit one warm-up call (none for calls over {_LONG_CALL_S} s after the "
        f"first pass), then 1 to {_MOST_CALLS} timed calls; all kept"
    )
    provenance["heldout"] = [s._asdict() for s in campaign.heldout]
    write_trace(
        target,
        provenance=provenance,
        iterations=_columns(journal.rows("iteration")),
        heldout=_columns(journal.rows("heldout")),
        kernels=_columns(journal.rows("kernel"), ("op", "tokens", "seqs", "ctx_tokens")),
        power=_columns(journal.rows("power"), ("state",)),
    )


def _columns(rows: list[dict[str, Any]], key: Sequence[str] = ()) -> dict[str, list[Any]] | None:
    """Rows as columns, or None without rows; with ``key``, ``repeat`` is counted anew within equal keys."""
    if not rows:
        return None
    if key:
        counts: dict[tuple[Any, ...], int] = {}
        for row in rows:
            which = tuple(row[name] for name in key)
            row["repeat"] = counts.setdefault(which, 0)
            counts[which] += 1
    return {name: [row[name] for row in rows] for name in rows[0]}


def affordable_blocks(
    architecture: Architecture, device: str, dtype: str, block_size: int = BLOCK_SIZE
) -> int:
    """KV blocks that fit beside the weights in what is free now; weights count twice while being packed."""
    release_freed_memory(device)
    if device == "cpu":
        free = memory_bytes("MemAvailable")
    else:
        free = torch.cuda.mem_get_info(torch.device(device))[0]
    room = _MEMORY_SHARE * free - 2 * architecture.weight_bytes(dtype)
    return max(0, int(room // (architecture.kv_bytes_per_token(dtype) * block_size)))

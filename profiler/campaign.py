"""A measuring campaign: every shape of a grid, in several passes, into a trace.

Each pass visits all shapes in a new random order, so that a drifting machine does not bend one area of the
grid. A visit warms its shape up with one call, then times several; no outlier is dropped. After the second and third
pass the grid becomes finer where it bends, and a shape whose median is known well enough is visited no more.
What is finished is on disk at once, and a campaign that was cut off goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from profiler.colocation import Together, check
from profiler.engine.batch import Chunk
from profiler.engine.engine import Engine, open_device, pin_threads, release_freed_memory, torch_dtype
from profiler.engine.quantized import check_quantization
from profiler.engine.weights import check_supported
from profiler.engines.choice import OWN, choose_engine, refuse_others
from profiler.engines.own import OwnEngine
from profiler.engines.subject import Staged, Subject, WallTiming
from profiler.grid import Reach, Shape, heldout_shapes, measured_shapes
from profiler.journal import Journal, Key
from profiler.measure.ceilings import ceiling_operators
from profiler.measure.company import Company
from profiler.measure.confidence import WITHIN, settled
from profiler.measure.meters import Meter, open_meter
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
from profiler.memory import affordable_blocks
from profiler.provenance import catalogue_device, describe
from profiler.refinement import refined
from profiler.writing import TraceWriter
from simslm.catalog.architecture import Architecture
from simslm.catalog.models import load_model
from simslm.errors import InfeasibleError, UsageError
from simslm.traces.medians import LEAST, LEVEL

Progress = Callable[[int, int, str, float], None]
"""Called with visits done, visits in all, what was measured, and seconds left."""

Visit = tuple[Key, Callable[[], list[dict[str, Any]]]]
"""Where a visit stands in the journal, and what measures it."""

REPEATS = {"quick": 8, "full": 12}
"""Most passes over the grid, by grid."""

_VISIT_S = 0.02
_PASS_S = 0.25
_MOST_VISITS = 5
_MOST_CALLS = 5
_MOST_ROWS = 32
_LONG_CALL_S = 0.4
_REFINED_AFTER = (1, 2)
_REFINED_SHARE = 0.25
_SAVED_EVERY_S = 30.0
_TICK_S = 0.2
_IDLE_SETTLE_S = 3.0
_SETTLE_S = 1.0
_POWER_S = 1.0
_POWER_PASSES = 3
_OPERATOR_PASSES = 3
_LONGEST_OPERATOR = 2048


@dataclass
class Campaign:
    """One campaign in progress.

    Attributes:
        engine: what is measured.
        meter: its energy counter.
        journal: what is finished.
        shapes: what cost models are built from; more of them once the grid is refined.
        heldout: what they are held against.
        repeats: most passes over both.
        seed: of the order and of the block tables.
        progress: see :data:`Progress`.
        deadline: when to stop, by ``time.perf_counter``; finished visits are kept.
        save: called with the campaign when a pass is over, and every half minute.
        passes: passes that are over.
    """

    engine: Subject
    meter: Meter
    journal: Journal
    shapes: list[Shape]
    heldout: list[Shape]
    repeats: int
    seed: int = 0
    progress: Progress = lambda done, total, label, eta_s: None
    deadline: float = float("inf")
    save: Callable[[Campaign], object] = lambda campaign: None
    passes: int = field(init=False, default=0)
    _rng: np.random.Generator = field(init=False)
    _seconds: dict[str, float] = field(init=False, default_factory=dict)
    _calls: dict[str, float] = field(init=False, default_factory=dict)
    _refinable: int = field(init=False)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)
        self._refinable = int(len(self.shapes) * _REFINED_SHARE)

    def run(self) -> bool:
        """Measure what the journal lacks; whether all of it is there at the end."""
        warm_up(lambda: self.engine.stage(self.shapes[0], self._rng).time().latency_s)
        done, saved = 0, time.perf_counter()
        for number in range(self.repeats + 1):
            visits, later = self._visits(number), self._later(number)
            for visited, (key, measure) in enumerate(visits):
                if key in self.journal.entries:
                    continue
                now = time.perf_counter()
                if now >= self.deadline:
                    return False
                left = [key[1] for key, _ in visits[visited:]] + later
                self.progress(done + visited, done + visited + len(left), key[1], self._seconds_for(left))
                self.journal.add(key, measure())
                self._seconds[key[1]] = time.perf_counter() - now
                if now - saved > _SAVED_EVERY_S:
                    self.save(self)
                    saved = now
            done += len(visits)
            if number < self.repeats:
                self.passes = number + 1
                self._refine(number)
                self.save(self)
        self.progress(done, done, "done", 0.0)
        return True

    def batch(self, engine: Engine, shape: Shape) -> list[Chunk]:
        """Random tokens for a shape, in blocks from anywhere in the cache."""
        free = self._rng.permutation(engine.cache.num_blocks)
        decodes = [(1, shape.decode_ctx)] * shape.decode_seqs
        prompts = [(shape.prefill_new, shape.prefill_ctx)] * shape.prefill_seqs
        batch = []
        for new, cached in decodes + prompts:
            pages = -(-(cached + new) // engine.cache.block_size)
            tokens = self._rng.integers(0, engine.architecture.vocab_size, new)
            batch.append(Chunk(tokens, cached, free[:pages]))
            free = free[pages:]
        return batch

    def areas(self) -> Iterator[tuple[str, list[Shape]]]:
        """Kind of journal entry, and the shapes of that kind."""
        yield "iteration", self.shapes
        yield "heldout", self.heldout

    def settled(self) -> int:
        """Shapes of the grid whose median is known within :data:`profiler.measure.confidence.WITHIN`."""
        return sum(self._settled("iteration", shape, self.repeats) for shape in self.shapes)

    def method(self) -> dict[str, Any]:
        """How it measures, and how far it has come, for the provenance."""
        return {
            "repeats": self.passes,
            "warmup": 1,
            "settled": f"{self.settled()} of {len(self.shapes)} shapes",
            "method": (
                f"up to {self.repeats} passes in random order; on a CPU up to {_MOST_VISITS} visits per pass after the "
                f"first, for {_PASS_S} s of each shape; a shape is settled, and visited no more, once half the "
                f"{LEVEL:.0%} interval of the median over its visits is below {WITHIN:.0%} of it; per visit one "
                f"warm-up call (at first two; later none for calls over {_LONG_CALL_S} s), then calls for as long as "
                f"the energy counter needs, of which up to {_MOST_ROWS}, evenly spaced, are rows; outliers are flagged "
                "and kept"
            ),
            "heldout": [shape._asdict() for shape in self.heldout],
        }

    def _visits(self, number: int) -> list[Visit]:
        """Key and measurement of every visit of one pass, in its own random order; operators come last.

        What earlier visits show to be short is visited more often, and what is settled not at all.
        """
        if number == self.repeats:
            return self._last_visits()
        visits = [
            ((kind, shape.label(), number * _MOST_VISITS + i), partial(self._visit, shape))
            for kind, shapes in self.areas()
            for shape in shapes
            if not self._settled(kind, shape, number)
            for i in range(self._times(kind, shape, number))
        ]
        order = np.random.default_rng((self.seed, number)).permutation(len(visits))
        return [visits[i] for i in order]

    def _last_visits(self) -> list[Visit]:
        visits: list[Visit] = []
        if isinstance(self.engine, Engine):
            visit = partial(self._visit_operators, self.engine)
            visits = [(("kernel", "operators", i), visit) for i in range(min(self.repeats, _OPERATOR_PASSES))]
        if self.meter.note:
            return visits
        powers = range(min(self.repeats, _POWER_PASSES))
        return visits + [(("power", "power states", i), self._visit_power) for i in powers]

    def _later(self, number: int) -> list[str]:
        """Labels of the visits that passes after this one may hold."""
        labels = [
            shape.label()
            for kind, shapes in self.areas()
            for shape in shapes
            if not self._settled(kind, shape, number)
            for _ in range(self._times(kind, shape, number))
        ]
        last = [key[1] for key, _ in self._last_visits()] if number < self.repeats else []
        return labels * (self.repeats - number - 1) + last

    def _earlier(self, kind: str, shape: Shape, number: int) -> list[float]:
        """Median latency of each visit before a pass, in their order."""
        label = shape.label()
        keys = ((kind, label, visit) for visit in range(number * _MOST_VISITS))
        found = (self.journal.entries.get(key) for key in keys)
        return [median(row["latency_s"] for row in rows) for rows in found if rows]

    def _settled(self, kind: str, shape: Shape, number: int) -> bool:
        return settled(self._earlier(kind, shape, number))

    def _times(self, kind: str, shape: Shape, number: int) -> int:
        """Visits of a shape in one pass: more for short ones on a CPU, which other work disturbs."""
        if self.engine.device.type != "cpu" or not (earlier := self._earlier(kind, shape, number)):
            return 1
        return int(np.clip(_PASS_S // earlier[0], 1, _MOST_VISITS))

    def _refine(self, number: int) -> None:
        """After some passes, adds shapes where the grid bends; the journal alone decides which."""
        if number not in _REFINED_AFTER or self.repeats - number - 1 < LEAST:
            return
        latency_s = {shape: median(self._earlier("iteration", shape, number + 1)) for shape in self.shapes}
        most = self._refinable // len(_REFINED_AFTER)
        added = map(self.engine.possible, refined(latency_s, self.heldout, most))
        self.shapes = list(dict.fromkeys([*self.shapes, *added]))

    def _visit(self, shape: Shape) -> list[dict[str, Any]]:
        """One warm-up call, then the timed ones, as rows of ``iterations.parquet``; of many, some evenly spaced."""
        stage = self.engine.stage(shape, self._rng)
        label = shape.label()
        if label not in self._calls:
            stage.time()  # it may set the shape up: compile, record, fill a library's own tables
        first = stage.time() if self._calls.get(label, 0.0) < _LONG_CALL_S else None
        target = max(_VISIT_S, self.meter.window_s)
        most = _MOST_CALLS if self.meter.note else 10_000
        calls = 1 if first is None else int(np.clip(-(-target // first.latency_s), 1, most))
        _, start, before = self._tick(stage)
        timings = [stage.time() for _ in range((calls + 1) // 2)]
        state = {"sm_clock_mhz": self.meter.clock_mhz(), "throttle": self.meter.throttle()}
        timings += [stage.time() for _ in range(calls // 2)]
        more, end, after = self._tick(stage)
        timings += more
        self._calls[label] = median(timing.latency_s for timing in timings)
        common = {"sharing": "none", "replicas": 1, "energy_j": None, "power_w": None}
        if before is not None and after is not None:
            common |= {
                "energy_j": (after - before) / len(timings),
                "power_w": (after - before) / (end - start),
            }
        common |= shape.columns() | state
        kept = np.unique(np.linspace(0, len(timings) - 1, min(len(timings), _MOST_ROWS)).round().astype(int))
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

    def _visit_operators(self, engine: Engine) -> list[dict[str, Any]]:
        clock = OperatorClock(engine.device)
        with torch.inference_mode():
            return [clock.row(each) for each in chain(ceiling_operators(engine), self._operators(engine))]

    def _operators(self, engine: Engine) -> Iterator[Operator]:
        for tokens in operator_tokens(engine.architecture):
            yield from dense_operators(engine, tokens)
        for shape in self.shapes:
            if not shape.prefill_seqs:
                yield attention_operator(engine, self.batch(engine, shape), "attention_decode")
                yield write_operator(engine, self.batch(engine, shape))
            elif not shape.decode_seqs and shape.prefill_new <= _LONGEST_OPERATOR:
                yield attention_operator(engine, self.batch(engine, shape), "attention_prefill")

    def _visit_power(self) -> list[dict[str, Any]]:
        """Mean power idle, and under the largest decode and the largest prefill."""
        decode = max(
            (s for s in self.shapes if not s.prefill_seqs), key=lambda s: s.decode_seqs * s.decode_ctx
        )
        prefill = max((s for s in self.shapes if not s.decode_seqs), key=lambda s: s.prefill_new)
        rest = partial(time.sleep, _POWER_S / 10)
        rows = [{"state": "idle"} | measure_power(self.meter, rest, _IDLE_SETTLE_S, _POWER_S)]
        for state, shape in (("decode", decode), ("prefill", prefill)):
            call = self.engine.stage(shape, self._rng).time
            rows.append({"state": state} | measure_power(self.meter, call, _SETTLE_S, _POWER_S))
        return rows

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
    engine: str = OWN,
) -> Path:
    """Measure a model on a device and write its trace; resumes a campaign that was cut off.

    Numbers of replicas above 1 are measured after the replica alone, into the same trace; without 1 among them the
    trace must be there already.

    Args:
        model: catalogue name, path of a Hugging Face ``config.json``, or an architecture.
        device: ``cpu`` or ``cuda:N``.
        dtype: ``fp32``, ``bf16`` or ``fp16``.
        grid: ``quick`` or ``full``.
        output: the trace's directory; by default ``traces/<device>/<model>-<dtype>``, ending in ``-<quantization>``
            where there is one, and in ``-<engine>`` for another engine than the own one.
        quantization: ``int8`` or ``fp8`` weights, of one replica of the own engine.
        repeats: passes over the grid; by default :data:`REPEATS`.
        threads: CPU threads of torch; by default as many as torch chooses.
        budget_s: stop measuring after this long. What there is becomes a trace that says it is unfinished, and the
            next call goes on from there.
        seed: of weights, order and block tables.
        command: what the provenance says this was run with.
        progress: called before every visit.
        meter: energy counter instead of the device's own.
        reach: where the grid ends; by default as far as the model goes.
        replicas: how many share the device, one campaign for each.
        sharing: in which ways, of :data:`profiler.replicas.WAYS`.
        engine: what is measured, see :mod:`profiler.engines.choice`; of another than the own one, no operators and no
            replicas that share the device.

    Returns:
        The trace's directory.

    Raises:
        UsageError: an unknown model, grid, dtype, device, engine or way of sharing, or another campaign's journal is
            in the way, or replicas in the present trace that were measured together with other settings.
        InfeasibleError: the model does not fit, or the budget did not last for one pass.
        DeviceError: the device, its MPS or the engine's package is not there.
        TraceError: without 1 among the replicas, there is no trace of one alone.
    """
    start = time.perf_counter()
    together = sorted({count for count in replicas if count != 1})
    kind = choose_engine(engine)
    check(device, replicas, sharing)
    check_quantization(quantization, open_device(device))
    refuse_others(engine, replicas=bool(together), quantization=quantization is not None)
    if quantization and together:
        raise UsageError("replicas are measured without quantization", remedy="use --replicas 1")
    architecture = load_model(model) if isinstance(model, str) else model
    check_supported(architecture)
    torch_dtype(dtype)
    pin_threads(threads)
    name = catalogue_device(open_device(device))
    shapes, heldout = _shapes(kind, architecture, device, dtype, grid, reach)
    ending = [dtype, *([quantization] if quantization else []), *([engine] if engine != OWN else [])]
    target = Path(output) if output else Path("traces") / name / "-".join([architecture.name, *ending])
    header = {"model": architecture.name, "device": name, "dtype": dtype, "grid": grid, "seed": seed}
    header |= {"engine": kind.label(), "torch": torch.__version__, "threads": torch.get_num_threads()}
    header |= {"reach": list(reach) if reach else None, "quantization": quantization}
    common = Together(
        architecture, device, dtype, together, tuple(sharing), threads, meter, progress, reach=reach
    )
    if 1 not in replicas:
        common.measure(target, header)
        return target
    opened = partial(OwnEngine.open, quantization=quantization) if quantization else kind.open
    subject = opened(architecture, dtype=dtype, device=device, shapes=(*shapes, *heldout), seed=seed)
    header["attention"] = subject.facts()["attention"]
    meter = meter or open_meter(subject.device)
    extent = {"grid": grid, "reach": reach._asdict() if reach else None}
    company = Company()

    def described() -> dict[str, Any]:
        found = describe(subject, meter, command=command, seed=seed)
        return found | extent | {"other_load": company.share()}

    writer = TraceWriter(target, described)
    writer.check([(way, count) for way in sharing for count in together])
    journal = Journal(target.parent / f"{target.name}.journal.partial", header)
    campaign = Campaign(
        subject,
        meter,
        journal,
        shapes,
        heldout,
        repeats or REPEATS[grid],
        seed,
        progress or (lambda *_: None),
        start + budget_s if budget_s else float("inf"),
        writer.save,
    )
    try:
        complete = campaign.run()
    except BaseException:
        writer.save(campaign)
        raise
    if not complete and not campaign.passes:
        writer.save(campaign)
        raise InfeasibleError(
            "the time allowed ended within the first pass over the grid",
            where=str(journal.path),
            remedy="run the same command again: it goes on from there",
        )
    if not complete:
        writer.save(campaign)
    else:
        writer.write(campaign)
        journal.remove()
        if together:
            del subject, writer, campaign, described
            release_freed_memory(device)
            common.measure(target, header)
    return target


def _shapes(
    kind: type[Subject], architecture: Architecture, device: str, dtype: str, grid: str, reach: Reach | None
) -> tuple[list[Shape], list[Shape]]:
    """The grid's shapes and the held-out ones, as far as the device's memory allows and the engine can be made to."""
    size = kind.block_size
    affordable = int(kind.memory_share * affordable_blocks(architecture, device, dtype, size))
    shapes = measured_shapes(architecture, device.partition(":")[0], grid, affordable, size, reach)
    if not shapes:
        raise InfeasibleError(
            f"no shape of the grid fits beside the weights of {architecture.name} in {dtype}",
            where=f"device {device}",
            remedy="profile a smaller model or a narrower dtype, or free memory",
        )
    heldout = heldout_shapes(architecture, affordable, size, reach)
    return list(dict.fromkeys(map(kind.possible, shapes))), list(dict.fromkeys(map(kind.possible, heldout)))

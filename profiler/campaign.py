"""A measuring campaign: every shape of a grid, in several passes, into a trace.

Each pass visits all shapes in a new random order, so that a drifting machine does not bend one area of the
grid. A visit warms its shape up with one call, then times several; no outlier is dropped. After the second and third
pass the grid becomes finer where it bends, and a shape whose median is known well enough is visited no more.
What is finished is on disk at once, and a campaign that was cut off goes on where it stopped.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from profiler.colocation import Together, check
from profiler.engine.cache import BLOCK_SIZE
from profiler.engine.engine import Engine, open_device, pin_threads, release_freed_memory, torch_dtype
from profiler.engine.quantized import check_quantization
from profiler.engine.weights import check_supported
from profiler.engines.choice import OWN, choose_engine, refuse_others
from profiler.engines.own import OwnEngine
from profiler.engines.subject import Subject
from profiler.grid import SPREAD, Reach, Shape, heldout_shapes, measured_shapes
from profiler.journal import Journal, Key
from profiler.measure.company import Company
from profiler.measure.confidence import WITHIN, settled
from profiler.measure.meters import Meter, open_meter
from profiler.memory import affordable_blocks, check_affordable
from profiler.provenance import catalogue_device, describe
from profiler.refinement import refined
from profiler.visits import ENERGY_VISITS, LONG_CALL_S, MOST_ROWS, Visits
from profiler.writing import TraceWriter
from simslm.catalog.architecture import Architecture
from simslm.catalog.models import load_model
from simslm.errors import InfeasibleError, UsageError
from simslm.traces.medians import LEAST, LEVEL

Progress = Callable[[int, int, str, float], None]
"""Called with visits done, visits in all, what was measured, and seconds left."""

Visit = tuple[Key, Callable[[], list[dict[str, Any]]]]
"""Where a visit stands in the journal, and what measures it."""


@dataclass(frozen=True, slots=True)
class Turns:
    """What else the own engine does while a campaign goes on, so that both meet the machine in the same states.

    Attributes:
        take: called with the engine, the passes that are over and the most there are, once the trace so far is written.
        num_blocks, block_size: of the KV cache that it needs.
    """

    take: Callable[[OwnEngine, int, int], object]
    num_blocks: int = 0
    block_size: int = BLOCK_SIZE


REPEATS = {"quick": 8, "full": 12}
"""Most passes over the grid, by grid."""

ENOUGH_S = {("cuda", "quick"): 130.0, ("cuda", "full"): 800.0}
"""Seconds after which three visits of a shape do, settled or not, by kind of device and grid; operators and power take
some 30 s after that. A CPU has no such limit."""

_LEAST_VISITS = 3
_PASS_S = 0.25
_MOST_VISITS = 5
_REFINED_AFTER = (1, 2)
_REFINED_SHARE = 0.25
_SAVED_EVERY_S = 30.0
_POWER_PASSES = 3
_OPERATOR_PASSES = 3


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
        enough: when three visits of a shape have to do, by the same clock, whether it is settled or not.
        save: called with the campaign when a pass is over, and every half minute.
        turn: called when a pass is over and saved, with the number of passes gone through.
        passes: passes that are over, all of their visits made.
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
    enough: float = float("inf")
    save: Callable[[Campaign], object] = lambda campaign: None
    turn: Callable[[int], object] = lambda passes: None
    passes: int = field(init=False, default=0)
    _visitor: Visits = field(init=False)
    _seconds: dict[str, float] = field(init=False, default_factory=dict)
    _refinable: int = field(init=False)
    _visited: Counter[tuple[str, str]] = field(init=False)
    _done: int = field(init=False, default=0)
    _saved: float = field(init=False, default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        counted = (
            key[1] for key, rows in self.journal.entries.items() if rows[0].get("energy_j") is not None
        )
        self._visitor = Visits(self.engine, self.meter, self.seed, counted)
        self._visited = Counter(key[:2] for key in self.journal.entries)
        self._refinable = int(len(self.shapes) * _REFINED_SHARE)

    def run(self) -> bool:
        """Measure what the journal lacks; whether all of it is there at the end."""
        self._visitor.warm_up(self.shapes[0])
        for number in range(self.repeats + 1):
            if not self._pass(number):
                return False
            if number < self.repeats:
                self._refine(number)
                self.save(self)
                paused = time.perf_counter()
                self.turn(number + 1)
                self.enough += time.perf_counter() - paused
        self.progress(self._done, self._done, "done", 0.0)
        return True

    def _pass(self, number: int) -> bool:
        """One pass, or after all of them the last visits; False where the time allowed is over."""
        visits, later, whole = self._visits(number), self._later(number), True
        for visited, (key, measure) in enumerate(visits):
            if key in self.journal.entries:
                continue
            now = time.perf_counter()
            if now >= self.deadline:
                return False
            if now >= self.enough and number < self.repeats and self._visited[key[:2]] >= _LEAST_VISITS:
                whole = False
                continue
            left = [key[1] for key, _ in visits[visited:]] + later
            done = self._done + visited
            self.progress(done, done + len(left), key[1], self._seconds_for(left))
            self.journal.add(key, measure())
            self._visited[key[:2]] += 1
            self._seconds[key[1]] = time.perf_counter() - now
            if now - self._saved > _SAVED_EVERY_S:
                self.save(self)
                self._saved = now
        self.passes += whole and number < self.repeats
        self._done += len(visits)
        return True

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
            "lengths": (
                f"contexts of decoding sequences evenly spread from {1 - SPREAD:g} to {1 + SPREAD:g} of their mean, "
                "as far as the longest context allows; prompts of one length"
            ),
            "settled": f"{self.settled()} of {len(self.shapes)} shapes",
            "method": (
                f"up to {self.repeats} passes in random order; on a CPU up to {_MOST_VISITS} visits per pass after the "
                f"first, for {_PASS_S} s of each shape; a shape is settled, and visited no more, once half the "
                f"{LEVEL:.0%} interval of the median over its visits is below {WITHIN:.0%} of it; per visit one "
                f"warm-up call (at first two; later none for calls over {LONG_CALL_S} s), then calls, in the "
                f"first {ENERGY_VISITS} visits as long as the energy counter needs, of which up to {MOST_ROWS}, "
                "evenly spaced, are rows; outliers are flagged and kept; once enough_s are over, "
                "three visits of a shape do"
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
            ((kind, shape.label(), number * _MOST_VISITS + i), partial(self._visitor.iteration, shape))
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
            visit = partial(self._visitor.operators, self.engine, self.shapes)
            visits = [(("kernel", "operators", i), visit) for i in range(min(self.repeats, _OPERATOR_PASSES))]
        if self.meter.note:
            return visits
        powers = range(min(self.repeats, _POWER_PASSES))
        return visits + [
            (("power", "power states", i), partial(self._visitor.power, self.shapes)) for i in powers
        ]

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
    turns: Turns | None = None,
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
        turns: what the own engine does between the passes.

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
    cache = {"num_blocks": turns.num_blocks, "block_size": turns.block_size} if turns else {}
    shapes, heldout = _shapes(kind, architecture, device, dtype, grid, reach, **cache)
    ending = [dtype, *([quantization] if quantization else []), *([engine] if engine != OWN else [])]
    target = Path(output) if output else Path("traces") / name / "-".join([architecture.name, *ending])
    header = {"model": architecture.name, "device": name, "dtype": dtype, "grid": grid, "seed": seed}
    header |= {"engine": kind.label(), "torch": torch.__version__, "threads": torch.get_num_threads()}
    header |= {"reach": list(reach) if reach else None, "quantization": quantization}
    header["block_size"] = turns.block_size if turns else kind.block_size
    common = Together(
        architecture, device, dtype, together, tuple(sharing), threads, meter, progress, reach=reach
    )
    if 1 not in replicas:
        common.measure(target, header)
        return target
    opened = partial(OwnEngine.open, quantization=quantization, **cache) if kind is OwnEngine else kind.open
    subject = opened(architecture, dtype=dtype, device=device, shapes=(*shapes, *heldout), seed=seed)
    header["attention"] = subject.facts()["attention"]
    meter = meter or open_meter(subject.device)
    enough_s = ENOUGH_S.get((subject.device.type, grid), float("inf"))
    extent = {"grid": grid, "reach": reach._asdict() if reach else None}
    extent["enough_s"] = enough_s if enough_s < float("inf") else None
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
        start + enough_s,
        writer.save,
    )
    if turns and isinstance(subject, OwnEngine):
        campaign.turn = lambda passes: turns.take(subject, passes, campaign.repeats)
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
    kind: type[Subject],
    architecture: Architecture,
    device: str,
    dtype: str,
    grid: str,
    reach: Reach | None,
    num_blocks: int = 0,
    block_size: int | None = None,
) -> tuple[list[Shape], list[Shape]]:
    """The grid's shapes and the held-out ones, as far as the device's memory allows and the engine can be made to.

    Raises:
        InfeasibleError: no shape fits, or not ``num_blocks`` KV blocks.
    """
    size = block_size or kind.block_size
    room = affordable_blocks(architecture, device, dtype, size, loads_twice=kind.loads_twice)
    affordable = int(kind.memory_share * room)
    check_affordable(num_blocks, affordable, device)
    shapes = measured_shapes(architecture, device.partition(":")[0], grid, affordable, size, reach)
    if not shapes:
        raise InfeasibleError(
            f"no shape of the grid fits beside the weights of {architecture.name} in {dtype}",
            where=f"device {device}",
            remedy="profile a smaller model or a narrower dtype, or free memory",
        )
    heldout = heldout_shapes(architecture, affordable, size, reach)
    return list(dict.fromkeys(map(kind.possible, shapes))), list(dict.fromkeys(map(kind.possible, heldout)))

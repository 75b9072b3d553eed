"""A measuring campaign of one model on one device, into a trace; :func:`profile` is the entry.

What is finished is on disk at once, and a campaign that was cut off goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from profiler.colocation import Together
from profiler.engine.cache import BLOCK_SIZE
from profiler.engine.engine import open_device, pin_threads, release_freed_memory
from profiler.engines.own import OwnEngine
from profiler.engines.subject import Subject
from profiler.grid import Shape
from profiler.journal import Journal
from profiler.measure.company import Company
from profiler.measure.faults import refusals
from profiler.measure.meters import Meter, open_meter
from profiler.memory import affordable_blocks, check_affordable
from profiler.passes import Passes, Progress
from profiler.provenance import catalogue_device, describe
from profiler.specification import Specification
from profiler.writing import TraceWriter
from simslm.errors import DeviceError, InfeasibleError


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


ENOUGH_S = {("cuda", "quick"): 130.0, ("cuda", "full"): 540.0}
"""Seconds after which three visits of a shape do, settled or not, by kind of device and grid; operators and power take
some 40 s after that. A CPU has no such limit."""


def profile(
    specification: Specification,
    *,
    budget_s: float | None = None,
    command: str = "",
    progress: Progress | None = None,
    meter: Meter | None = None,
    turns: Turns | None = None,
) -> Path:
    """Measure a model on a device and write its trace; resumes a campaign that was cut off.

    Numbers of replicas above 1 are measured after the replica alone, into the same trace; without 1 among them the
    trace must be there already.

    Args:
        specification: what is measured.
        budget_s: stop measuring after this long. What there is becomes a trace that says it is unfinished, and the
            next call goes on from there.
        command: what the provenance says this was run with.
        progress: called before every visit.
        meter: energy counter instead of the device's own.
        turns: what the own engine does between the passes.

    Returns:
        The trace's directory.

    Raises:
        UsageError: the specification makes no sense, another campaign's journal is in the way, or the present trace has
            replicas that were measured together with other settings.
        InfeasibleError: the model does not fit, or the budget did not last for one pass.
        DeviceError: the device, its MPS or the engine's package is not there.
        TraceError: without 1 among the replicas, there is no trace of one alone.
    """
    start = time.perf_counter()
    specification.check()
    pin_threads(specification.threads)
    name = catalogue_device(open_device(specification.device))
    target = specification.target(name)
    header = specification.header(name, turns.block_size if turns else specification.subject.block_size)
    together = Together.of(specification, meter, progress)
    if not specification.alone:
        together.measure(target, header)
        return target
    alone = _Alone(specification, target, header, start, budget_s, command, progress, meter, turns)
    journal, complete = alone.measure()
    if complete:
        if specification.together:
            release_freed_memory(specification.device)
            _measure_together(together, target, alone.header, journal)
        journal.remove()
    return target


@dataclass
class _Alone:
    """The part of a campaign that measures one replica alone.

    Attributes:
        target, header: where the trace goes, and what makes two campaigns the same.
        start: of the campaign, by ``time.perf_counter``.
        specification, budget_s, command, progress, meter, turns: as of :func:`profile`.
    """

    specification: Specification
    target: Path
    header: dict[str, Any]
    start: float
    budget_s: float | None
    command: str
    progress: Progress | None
    meter: Meter | None
    turns: Turns | None

    def measure(self) -> tuple[Journal, bool]:
        """Opens the engine, measures, and writes the trace; returns the journal, and whether all was measured.

        Raises:
            InfeasibleError: the model does not fit, or the budget did not last for one pass.
            DeviceError: the engine does not open, or the device fails.
            UsageError: see :func:`profile`.
        """
        shapes, heldout = self._shapes()
        subject = self._opened([*shapes, *heldout])
        self.header["attention"] = subject.facts()["attention"]
        meter = self.meter or open_meter(subject.device)
        writer = TraceWriter(self.target, self._describer(subject, meter))
        spec = self.specification
        writer.check([(way, count) for way in spec.sharing for count in spec.together])
        journal = Journal(self.target.parent / f"{self.target.name}.journal.partial", self.header)
        passes = Passes(
            engine=subject,
            meter=meter,
            journal=journal,
            shapes=shapes,
            heldout=heldout,
            repeats=spec.passes,
            seed=spec.seed,
            progress=self.progress or (lambda *_: None),
            deadline=self.start + self.budget_s if self.budget_s else float("inf"),
            enough=self.start + _enough_s(subject, spec.grid),
            save=writer.save,
        )
        if self.turns and isinstance(subject, OwnEngine):
            passes.turn = partial(self._take_turn, self.turns, subject)
        return journal, _gone_through(passes, writer)

    def _shapes(self) -> tuple[list[Shape], list[Shape]]:
        """The grid's shapes and held-out ones that fit in the memory that is free now; so must the KV blocks of turns.

        Raises:
            InfeasibleError: no shape fits, or not so many blocks.
        """
        spec, kind = self.specification, self.specification.subject
        size = self.header["block_size"]
        room = affordable_blocks(
            spec.architecture, spec.device, spec.dtype, size, loads_twice=kind.loads_twice
        )
        affordable = int(kind.memory_share * room)
        check_affordable(self.turns.num_blocks if self.turns else 0, affordable, spec.device)
        return spec.shapes(spec.device.partition(":")[0], affordable, size)

    def _opened(self, shapes: list[Shape]) -> Subject:
        spec, kind = self.specification, self.specification.subject
        opened = kind.open
        if kind is OwnEngine:
            cache = (
                {"num_blocks": self.turns.num_blocks, "block_size": self.turns.block_size}
                if self.turns
                else {}
            )
            opened = partial(OwnEngine.open, quantization=spec.quantization, **cache)
        name = spec.architecture.name
        with refusals(
            f"opening {name} on {spec.device}", "free memory of the device, or end other work on it"
        ):
            return opened(
                spec.architecture, dtype=spec.dtype, device=spec.device, shapes=shapes, seed=spec.seed
            )

    def _describer(self, subject: Subject, meter: Meter) -> Callable[[], dict[str, Any]]:
        """A function that gives the provenance; it is called for every writing, as some of it is known late."""
        spec, company = self.specification, Company()
        enough_s = _enough_s(subject, spec.grid)
        extent = {
            "grid": spec.grid,
            "reach": spec.reach._asdict() if spec.reach else None,
            "enough_s": enough_s if enough_s < float("inf") else None,
        }

        def described() -> dict[str, Any]:
            found = describe(subject, meter, command=self.command, seed=spec.seed)
            return found | extent | {"other_load": company.share()}

        return described

    def _take_turn(self, turns: Turns, engine: OwnEngine, passes: int) -> None:
        turns.take(engine, passes, self.specification.passes)


def _enough_s(subject: Subject, grid: str) -> float:
    return ENOUGH_S.get((subject.device.type, grid), float("inf"))


def _gone_through(passes: Passes, writer: TraceWriter) -> bool:
    """Measures all passes and writes the trace; returns whether all of it was measured.

    Raises:
        InfeasibleError: the time allowed ended within the first pass.
    """
    try:
        with refusals("measuring", "run the same command again: it goes on from there"):
            complete = passes.run()
    except BaseException:
        writer.save(passes)
        raise
    if complete:
        writer.write(passes)
        return True
    writer.save(passes)
    if not passes.passes:
        raise InfeasibleError(
            "the time allowed ended within the first pass over the grid",
            where=str(passes.journal.path),
            remedy="run the same command again: it goes on from there",
        )
    return False


def _measure_together(together: Together, target: Path, header: Mapping[str, Any], journal: Journal) -> None:
    """Replicas that share the device; the journal of one alone stays while they are measured, or interrupted.

    Raises:
        DeviceError, InfeasibleError: part of it cannot be measured; the rest is.
    """
    try:
        together.measure(target, header)
    except (DeviceError, InfeasibleError):
        journal.remove()
        raise

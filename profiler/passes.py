"""The passes of a measuring campaign over a grid, from a journal of what is finished.

Each pass visits all shapes in a new random order, so that a drifting machine does not bend one area of the
grid. A visit warms its shape up with one call, then times several; no outlier is dropped. After the second and third
pass the grid becomes finer where it bends, and a shape whose median is known well enough is visited no more.

A shape that the device refuses is noted with the reason, and not tried again; the others are measured. An error after
which the process cannot use the device ends the campaign: what is finished is on disk, and the next run goes on.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from profiler.engine.engine import Engine, release_freed_memory
from profiler.engines.subject import Subject
from profiler.grid import SPREAD, Shape
from profiler.journal import Journal, Key
from profiler.measure.confidence import WITHIN, settled
from profiler.measure.faults import deadly, reason, short_of_memory, survivable
from profiler.measure.meters import Meter
from profiler.refinement import refined
from profiler.visits import ENERGY_VISITS, FEW_ROWS, LONG_CALL_S, MOST_ROWS, Visits
from simslm.errors import DeviceError
from simslm.traces.medians import LEAST, LEVEL

Progress = Callable[[int, int, str, float], None]
"""Called with visits done, visits in all, what was measured, and seconds left."""

Visit = tuple[Key, Callable[[], list[dict[str, Any]]]]
"""Where a visit stands in the journal, and what measures it."""

LEAST_VISITS = 3
"""Visits of a shape that do once the time for more is over."""

POWER_PASSES = 3
OPERATOR_PASSES = 3
"""How often power, and the operators one by one, are measured when all passes are over."""

REFINED_SHARE = 0.25
"""Shapes that may be added where the grid bends, as a share of those it has."""

_PASS_S = 0.25
_MOST_VISITS = 5
_REFINED_AFTER = (1, 2)
_SAVED_EVERY_S = 30.0
_DEAD_TWICE = 2


@dataclass(kw_only=True)
class Passes:
    """The passes of one campaign, those that are over and those to come.

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
        save: called with them when a pass is over, and every half minute.
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
    save: Callable[[Passes], object] = lambda passes: None
    turn: Callable[[int], object] = lambda passes: None
    passes: int = field(init=False, default=0)
    _visitor: Visits = field(init=False)
    _seconds: dict[str, float] = field(init=False, default_factory=dict)
    _refinable: int = field(init=False)
    _visited: Counter[tuple[str, str]] = field(init=False)
    _done: int = field(init=False, default=0)
    _refusals: set[Key] = field(init=False, default_factory=set)
    _saved: float = field(init=False, default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        counted = (
            key[1]
            for key, rows in self.journal.entries.items()
            if rows and rows[0].get("energy_j") is not None
        )
        self._visitor = Visits(self.engine, self.meter, self.seed, counted)
        self._visited = Counter(key[:2] for key in self.journal.entries)
        self._refinable = int(len(self.shapes) * REFINED_SHARE)

    def run(self) -> bool:
        """Measures what the journal lacks; returns whether the journal has all of it at the end.

        Raises:
            DeviceError: the process cannot use the device any more, or no shape of the grid can be measured.
        """
        self._warm_up()
        for number in range(self.repeats + 1):
            if not self._pass(number):
                return False
            if number == 0 and not any(self._visited["iteration", shape.label()] for shape in self.shapes):
                raise self._nothing()
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
            if key in self.journal.entries or self._refused(key[1]):
                continue
            now = time.perf_counter()
            if now >= self.deadline:
                return False
            if now >= self.enough and number < self.repeats and self._visited[key[:2]] >= LEAST_VISITS:
                whole = False
                continue
            left = [key[1] for key, _ in visits[visited:]] + later
            done = self._done + visited
            self.progress(done, done + len(left), key[1], self._seconds_for(left))
            if (rows := self._measured(key, measure)) is not None:
                self.journal.add(key, rows)
                self._visited[key[:2]] += 1
            self._seconds[key[1]] = time.perf_counter() - now
            if now - self._saved > _SAVED_EVERY_S:
                self.save(self)
                self._saved = now
        self.passes += whole and number < self.repeats
        self._done += len(visits)
        return True

    def _warm_up(self) -> None:
        """Warms the device up with the first shape that it does not refuse; refused ones are noted in their visits."""
        for shape in self.shapes:
            try:
                self._visitor.warm_up(shape)
            except Exception as error:
                if not survivable(error):
                    raise
                if deadly(error):
                    raise self._dead("iteration", shape.label(), error) from error
            else:
                return

    def _measured(
        self, key: Key, measure: Callable[[], list[dict[str, Any]]], again: bool = True
    ) -> list[dict[str, Any]] | None:
        """The rows of a visit; None where the device refuses it, which is noted.

        Raises:
            DeviceError: the process cannot use the device any more.
        """
        kind, label, _ = key
        try:
            return measure()
        except Exception as error:
            if not survivable(error):
                raise
            if deadly(error):
                raise self._dead(kind, label, error) from error
            if not (again and short_of_memory(error)):
                self._note(label, error, kind)
                return None
        release_freed_memory(str(self.engine.device))
        return self._measured(key, measure, again=False)

    def _note(self, label: str, error: Exception, kind: str = "kernel") -> None:
        """Puts into the journal that the device refuses something, and why."""
        count = sum(key[:2] == ("refused", label) for key in self.journal.entries)
        row = {"kind": kind, "why": reason(error), "dead": deadly(error), "memory": short_of_memory(error)}
        self.journal.add(("refused", label, count), [row])
        self._refusals.add(("refused", label, count))

    def _refused(self, label: str) -> bool:
        """Whether a label is not tried again: it was refused, or ended two processes.

        What ran out of memory in an earlier process is tried again, as others may have had that memory.
        """
        found = {key: rows[0] for key, rows in self.journal.entries.items() if key[:2] == ("refused", label)}
        final = (
            not row["dead"] and (not row["memory"] or key in self._refusals) for key, row in found.items()
        )
        return any(final) or sum(row["dead"] for row in found.values()) >= _DEAD_TWICE

    def _dead(self, kind: str, label: str, error: Exception) -> DeviceError:
        self._note(label, error, kind)
        return DeviceError(
            f"the device fails this process from {label} on ({reason(error)})",
            remedy="run the same command again: it goes on from there, tries that shape once more, and leaves it out "
            "if it ends so again; if others do too, look at `nvidia-smi` and `dmesg` for Xid errors",
        )

    def _nothing(self) -> DeviceError:
        why = next(rows[0]["why"] for key, rows in self.journal.entries.items() if key[0] == "refused")
        if all(kind == "refused" for kind, *_ in self.journal.entries):
            self.journal.remove()
        return DeviceError(
            f"no shape of the grid can be measured ({why})", remedy="mend that, and run the command again"
        )

    def not_measurable(self) -> list[dict[str, Any]]:
        """What the device refused: ``shape``, ``why``, and how many ``visits`` of it succeeded."""
        refused = {
            key[1]: rows[0]
            for key, rows in self.journal.entries.items()
            if key[0] == "refused" and self._refused(key[1])
        }
        return [
            {"shape": label, "why": row["why"], "visits": self._visited[row["kind"], label]}
            for label, row in refused.items()
        ]

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
                f"later {FEW_ROWS}, evenly spaced, are rows; outliers are flagged and kept; once enough_s are over, "
                "three visits of a shape do"
            ),
            "heldout": [shape._asdict() for shape in self.heldout],
            "not_measurable": self.not_measurable(),
            "counter_step_s": self._visitor.step_s(),
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
            if not self._done_with(kind, shape, number)
            for i in range(self._times(kind, shape, number))
        ]
        order = np.random.default_rng((self.seed, number)).permutation(len(visits))
        return [visits[i] for i in order]

    def _last_visits(self) -> list[Visit]:
        visits: list[Visit] = []
        if isinstance(self.engine, Engine):
            visit = partial(self._visitor.operators, self.engine, self._possible(), self._note)
            visits = [(("kernel", "operators", i), visit) for i in range(min(self.repeats, OPERATOR_PASSES))]
        if self.meter.note:
            return visits
        powers = range(min(self.repeats, POWER_PASSES))
        return visits + [
            (("power", "power states", i), partial(self._visitor.power, self._possible())) for i in powers
        ]

    def _later(self, number: int) -> list[str]:
        """Labels of the visits that passes after this one may hold."""
        labels = [
            shape.label()
            for kind, shapes in self.areas()
            for shape in shapes
            if not self._done_with(kind, shape, number)
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

    def _possible(self) -> list[Shape]:
        """The shapes that the device does not refuse."""
        return [shape for shape in self.shapes if not self._refused(shape.label())]

    def _done_with(self, kind: str, shape: Shape, number: int) -> bool:
        return self._refused(shape.label()) or self._settled(kind, shape, number)

    def _settled(self, kind: str, shape: Shape, number: int) -> bool:
        return settled(self._earlier(kind, shape, number))

    def _times(self, kind: str, shape: Shape, number: int) -> int:
        """Visits of a shape in one pass: more for short ones on a CPU, which other work disturbs."""
        if self.engine.device.type != "cpu" or not (earlier := self._earlier(kind, shape, number)):
            return 1
        return int(np.clip(_PASS_S / earlier[0], 1, _MOST_VISITS))

    def _refine(self, number: int) -> None:
        """After some passes, adds shapes where the grid bends; the journal alone decides which."""
        if number not in _REFINED_AFTER or self.repeats - number - 1 < LEAST:
            return
        earlier = {shape: self._earlier("iteration", shape, number + 1) for shape in self.shapes}
        latency_s = {shape: median(found) for shape, found in earlier.items() if found}
        most = self._refinable // len(_REFINED_AFTER)
        added = map(self.engine.possible, refined(latency_s, self.heldout, most))
        self.shapes = list(dict.fromkeys([*self.shapes, *added]))

    def _seconds_for(self, labels: Sequence[str]) -> float:
        """Seconds that visits will take, judging by earlier ones of the same shapes."""
        known = list(self._seconds.values())
        typical = sum(known) / len(known) if known else 0.0
        return sum(self._seconds.get(label, typical) for label in labels)

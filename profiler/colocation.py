"""Replicas that share a device, measured together: the same iteration in all of them at once, over and over.

Every replica is a worker with an engine of its own: a process, or a thread with a stream of its own. All begin at
one moment and run until it is over; what counts is what they did while all of them ran. The rows join the trace of
the replica alone (``replicas`` above 1), from which cost models learn how much replicas are in each other's way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from profiler.engine.cache import BLOCK_SIZE
from profiler.engine.engine import open_device, threads_each
from profiler.engines.own import OwnEngine
from profiler.grid import Reach, Shape
from profiler.journal import Journal, Key
from profiler.measure.faults import deadly
from profiler.measure.meters import Meter, open_meter
from profiler.measure.window import ROWS, WINDOW_S, Window, run_window
from profiler.memory import affordable_blocks
from profiler.replicas import IN_PROCESS, PARTITIONS, check_ways, running, sm_fraction
from profiler.writing import SETTINGS, flagged
from simslm.catalog.architecture import Architecture
from simslm.errors import DeviceError, InfeasibleError, UsageError
from simslm.traces.files import read_trace, write_trace

if TYPE_CHECKING:
    from profiler.specification import Specification

BATCHES = {"cpu": (1, 8), "cuda": (1, 8, 32, 96, 256)}
"""Decoding sequences of each replica, by kind of device."""

CONTEXTS = {"cpu": (72, 520), "cuda": (520,)}
"""Cached tokens of each sequence, in the mean, by kind of device. A processor is mostly busy with attention at the
longer one, and with reading weights, where replicas are more in each other's way, at the shorter one; on a GPU the
batches alone lead from one to the other."""

REPEATS = 3
"""Windows for each way of sharing, number of replicas and shape."""

Progress = Callable[[int, int, str, float], None]


def shapes(architecture: Architecture, device: str, reach: Reach | None = None) -> list[Shape]:
    """The iterations that are measured together, shortest first.

    Args:
        architecture: whose positions they keep to.
        device: on which.
        reach: where the grid of the replica alone ends; they are compared with its iterations, so they end there too.
    """
    kind, most = device.partition(":")[0], architecture.max_position_embeddings - 1
    seqs = max(BATCHES[kind])
    if reach is not None:
        most, seqs = min(most, max(1, reach.context - 1)), reach.seqs
    batches = sorted({min(batch, seqs) for batch in BATCHES[kind]})
    contexts = sorted({min(context, most) for context in CONTEXTS[kind]})
    return [Shape(decode_seqs=batch, decode_ctx=context) for batch, context in product(batches, contexts)]


@dataclass(frozen=True)
class Together:
    """What is measured of replicas that share a device.

    Attributes:
        architecture, device, dtype: of every replica.
        replicas: numbers of them, each at least 2.
        ways: of :data:`profiler.replicas.WAYS`.
        threads: CPU threads of each replica; None = those of the machine, divided.
        meter: energy counter instead of the device's own.
        progress: called with windows done, windows in all, what is measured, and 0.
        repeats: windows for each way, number and shape.
        reach: where the grid ends; None = as far as the model goes.
        missed: ways and numbers that could not be measured, and why.
    """

    architecture: Architecture
    device: str
    dtype: str
    replicas: Sequence[int]
    ways: Sequence[str]
    threads: int | None = None
    meter: Meter | None = None
    progress: Progress | None = None
    repeats: int = REPEATS
    reach: Reach | None = None
    missed: dict[str, DeviceError | InfeasibleError] = field(init=False, default_factory=dict)

    @classmethod
    def of(cls, specification: Specification, meter: Meter | None, progress: Progress | None) -> Together:
        """What the specification of a campaign says of them."""
        return cls(
            specification.architecture,
            specification.device,
            specification.dtype,
            specification.together,
            tuple(specification.sharing),
            specification.threads,
            meter,
            progress,
            reach=specification.reach,
        )

    def measure(self, target: Path, header: Mapping[str, Any]) -> None:
        """Measures what an interrupted run lacks, and puts all of it into the trace of one replica alone.

        Args:
            target: the trace.
            header: what makes two campaigns the same.

        Raises:
            TraceError: there is no such trace.
            UsageError: it was measured with other settings, whose difference would pass for interference.
            DeviceError: a way of sharing cannot be had; the others were measured.
            InfeasibleError: so many replicas do not fit; the others were measured.
        """
        alone = read_trace(target).provenance
        alike = [name for name in SETTINGS if name in header and name != "threads"]
        if differing := [name for name in alike if alone.get(name) != header[name]]:
            raise UsageError(
                f"the replica alone was measured with another {', '.join(differing)} in this trace",
                where=str(target),
                remedy="measure it again too: --replicas 1,2",
            )
        stated = {"replicas": list(self.replicas), "ways": list(self.ways), "repeats": self.repeats}
        journal = Journal(target.parent / f"{target.name}.colocated.partial", {**header, **stated})
        rows = self.rows(journal, lambda rows: add_to_trace(target, rows))
        add_to_trace(target, rows, self._refused(journal))
        journal.remove()
        if self.missed:
            raise self._missing(target)

    def _refused(self, journal: Journal) -> dict[str, str]:
        """What was not measured, and why."""
        shapes = {key[1]: rows[0]["why"] for key, rows in journal.entries.items() if key[0] == "refused"}
        return shapes | {group: error.message for group, error in self.missed.items()}

    def _missing(self, target: Path) -> DeviceError | InfeasibleError:
        """What was asked for and is not in the trace, as one error."""
        (group, error), *others = self.missed.items()
        more = f", nor were {', '.join(name for name, _ in others)}" if others else ""
        return type(error)(
            f"{group} was not measured{more}; the trace holds the rest ({error.message})",
            where=error.where or str(target),
            remedy=error.remedy,
        )

    def rows(
        self, journal: Journal, keep: Callable[[list[dict[str, Any]]], object] = lambda rows: None
    ) -> list[dict[str, Any]]:
        """Rows of ``iterations.parquet`` for every way, number and shape, but for what the journal has already.

        A shape that replicas fail at is noted and left out; a way that cannot be had, or replicas that do not fit, are
        in :attr:`missed`. The others are measured.

        Args:
            journal: what is finished.
            keep: called with all rows there are when a way and number is finished.
        """
        meter = self.meter or open_meter(open_device(self.device))
        wanted = {shape.label(): shape for shape in shapes(self.architecture, self.device, self.reach)}
        total = len(self.ways) * len(self.replicas) * len(wanted) * self.repeats
        for way, count in product(self.ways, self.replicas):
            try:
                self._measure(journal, meter, wanted, _Group(way, count), total)
            except (DeviceError, InfeasibleError) as error:
                self.missed[f"{way} ×{count}"] = error
            keep(journal.rows("colocated"))
        self._say(total, total, "done")
        return journal.rows("colocated")

    def _measure(
        self, journal: Journal, meter: Meter, wanted: Mapping[str, Shape], group: _Group, total: int
    ) -> None:
        """One way and number; replicas are started anew after they failed at a shape.

        Raises:
            InfeasibleError: so many replicas do not fit, not even at the smallest shape.
            DeviceError: they do not start, or the process they are threads of cannot use the device any more.
        """
        fitting = self._fitting(wanted, group.count)
        threads = self.threads or threads_each(group.count)
        while left := self._left(journal, fitting, group):
            at = ""
            try:
                makers = self._makers(fitting, group.count)
                with running(group.way, makers, self.device, threads) as replicas:
                    for name, key in left:
                        at = key[1]
                        self._say(sum(kind == "colocated" for kind, *_ in journal.entries), total, at)
                        window = run_window(replicas, wanted[name], meter)
                        journal.add(key, _rows(window, wanted[name], group.columns(self.device)))
            except DeviceError as error:
                if not at or (group.way in IN_PROCESS and deadly(error)):
                    raise
                journal.add(("refused", at, 0), [{"why": error.message}])
        labels = {group.label(name) for name in fitting}
        if not any(kind == "colocated" and label in labels for kind, label, _ in journal.entries):
            whys = [
                rows[0]["why"]
                for key, rows in journal.entries.items()
                if key[0] == "refused" and key[1] in labels
            ]
            raise DeviceError(whys[0], remedy="measure fewer --replicas, or free memory")

    def _left(self, journal: Journal, fitting: Mapping[str, Shape], group: _Group) -> list[tuple[str, Key]]:
        """Windows that are not finished, of shapes that replicas have not failed at."""
        keys = [(name, ("colocated", group.label(name), i)) for name in fitting for i in range(self.repeats)]
        return [
            (name, key)
            for name, key in keys
            if key not in journal.entries and ("refused", key[1], 0) not in journal.entries
        ]

    def _fitting(self, wanted: Mapping[str, Shape], count: int) -> dict[str, Shape]:
        """The shapes that each of so many replicas has memory for."""
        room = affordable_blocks(self.architecture, self.device, self.dtype, replicas=count)
        longest = self.architecture.max_position_embeddings
        fitting = {name: shape for name, shape in wanted.items() if shape.blocks(BLOCK_SIZE, longest) <= room}
        if not fitting:
            raise InfeasibleError(
                f"{count} replicas of {self.architecture.name} do not fit beside each other",
                where=f"device {self.device}",
                remedy="measure fewer --replicas, or free memory",
            )
        return fitting

    def _makers(self, fitting: Mapping[str, Shape], count: int) -> list[Callable[[], OwnEngine]]:
        """What makes the engine of each replica, with weights of its own."""
        longest = self.architecture.max_position_embeddings
        blocks = max(shape.blocks(BLOCK_SIZE, longest) for shape in fitting.values())
        made = partial(OwnEngine, self.architecture, dtype=self.dtype, device=self.device, num_blocks=blocks)
        return [partial(made, seed=number) for number in range(count)]

    def _say(self, done: int, total: int, what: str) -> None:
        if self.progress is not None:
            self.progress(done, total, what, 0.0)


def check(device: str, replicas: Sequence[int], ways: Sequence[str]) -> None:
    """Refuses what cannot be measured.

    Raises:
        UsageError: naming it.
    """
    check_ways(device, ways)
    if not replicas or min(replicas) < 1 or max(replicas) > 64:
        raise UsageError("--replicas takes numbers from 1 to 64, e.g. 1,2,4")


@dataclass(frozen=True)
class _Group:
    """A number of replicas that share the device in one way."""

    way: str
    count: int

    def label(self, shape: str) -> str:
        """Name of the group at one shape, in the journal and on a progress bar."""
        return f"{self.way} ×{self.count}, {shape}"

    def columns(self, device: str) -> dict[str, Any]:
        """Columns of ``iterations.parquet`` that are equal in all rows of the group."""
        return {
            "sharing": "sm-partition" if self.way in PARTITIONS else self.way,
            "replicas": self.count,
            "partition": PARTITIONS.get(self.way),
            "sm_fraction": sm_fraction(self.way, self.count, device),
        }


def _rows(window: Window, shape: Shape, group: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of ``iterations.parquet``: replica after replica, each in order of time."""
    common = {
        **group,
        **shape.columns(),
        "other_decode_seqs": shape.decode_seqs,
        "other_decode_ctx_tokens": shape.decode_seqs * shape.decode_ctx,
        "other_prefill_tokens": 0,
        "energy_j": window.energy_j,
        "power_w": window.power_w,
        "sm_clock_mhz": window.clock_mhz,
        "throttle": window.throttle,
    }
    calls = np.concatenate(window.calls).tolist()
    return [
        common | {"latency_s": latency_s, "host_s": min(host_s, latency_s)} for _, latency_s, host_s in calls
    ]


_KINDS = ("sharing", "replicas", "partition")
"""What distinguishes rows of replicas measured together, beside their shapes."""


def add_to_trace(target: Path, rows: list[dict[str, Any]], refused: Mapping[str, str] | None = None) -> None:
    """Puts measured rows into the trace of the replica alone; those of the same sharing and replicas are replaced.

    Args:
        target: the trace.
        rows: of replicas measured together.
        refused: what was not measured, and why; None while it is still being measured.

    Raises:
        TraceError: there is no trace, or it is damaged.
    """
    trace = read_trace(target)
    assert trace.iterations is not None
    new = pa.Table.from_pylist(flagged(rows), schema=trace.iterations.schema.remove_metadata())
    replaced = {tuple(row[name] for name in _KINDS) for row in rows}
    old = zip(*(trace.iterations[name].to_pylist() for name in _KINDS), strict=True)
    kept = trace.iterations.filter(pa.array([each not in replaced for each in old]))
    method = (
        f"each shape that fits, in all replicas at once for at least {WINDOW_S} s; iterations while all ran, up to "
        f"{ROWS} of each replica and window, evenly spaced"
    )
    write_trace(
        target,
        provenance={**trace.provenance, "colocation": method, "colocation_refused": dict(refused or {})},
        iterations=pa.concat_tables([kept.replace_schema_metadata(), new]),
        kernels=trace.kernels,
        power=trace.power,
        heldout=trace.heldout,
    )

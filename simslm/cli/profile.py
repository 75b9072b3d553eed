"""``simslm profile``, and what it would do (``--plan``)."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from simslm.cli import screen
from simslm.cli.destination import free_place
from simslm.cli.report import trace_page
from simslm.errors import DeviceError, UsageError
from simslm.units import bytes_

if TYPE_CHECKING:
    from profiler.plan import Plan
    from profiler.specification import Specification
    from simslm.catalog.devices import Device


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a command line asks to be measured, as it was written.

    Attributes:
        model, device, dtype, grid, quantization, engine, repeats, threads, output: as of
            :class:`profiler.specification.Specification`.
        replicas, sharing, reach: lists in words, ``1,2``, ``mps,time-slice``, ``32,2048,512``.
    """

    model: str
    device: str
    dtype: str
    grid: str
    quantization: str | None
    engine: str
    repeats: int | None
    threads: int | None
    replicas: str
    sharing: str
    reach: str | None
    output: Path | None

    def specification(self, device: str | None = None) -> Specification:
        """The same for the profiler.

        Args:
            device: in place of the one that was asked for.

        Raises:
            UsageError: a list is none.
            DeviceError: torch is not installed.
        """
        counts = _numbers("--replicas", self.replicas, "1,2,4")
        ends = None if self.reach is None else _numbers("--reach", self.reach, "32,2048,512", count=3)
        with _torch():
            from profiler.grid import Reach
            from profiler.specification import Specification
        return Specification(
            model=self.model,
            device=self.device if device is None else device,
            dtype=self.dtype,
            grid=self.grid,
            quantization=self.quantization,
            engine=self.engine,
            reach=None if ends is None else Reach(*ends),
            repeats=self.repeats,
            threads=self.threads,
            replicas=counts,
            sharing=[word.strip() for word in self.sharing.split(",")],
            output=self.output,
        )

    def words(self) -> str:
        """The command line that asks for the same, for the provenance; it names no place."""
        options = {"--model": self.model, "--device": self.device, "--dtype": self.dtype, "--grid": self.grid}
        options |= {"--quantization": self.quantization, "--repeats": self.repeats, "--threads": self.threads}
        if _numbers("--replicas", self.replicas, "1,2,4") != [1]:
            options |= {"--replicas": self.replicas, "--sharing": self.sharing}
        options |= {"--engine": self.engine if self.engine != "simslm" else None, "--reach": self.reach}
        pairs = [(option, str(value)) for option, value in options.items() if value]
        return shlex.join(["simslm", "profile", *(word for pair in pairs for word in pair)])


def profile(asked: Asked, budget_s: float | None, as_json: bool) -> None:
    """Measures, and prints where the trace is."""
    specification = asked.specification()
    if asked.output is not None:
        free_place(asked.output)
    cores = os.cpu_count() or 1
    if asked.threads is not None and asked.threads > cores:
        raise UsageError(f"--threads {asked.threads} is more than the {cores} cores of this machine")
    from profiler.campaign import profile as measure

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with screen.progress("measuring") as update:
        written = measure(
            specification,
            budget_s=budget_s,
            command=asked.words(),
            progress=None if update is None else lambda done, total, label, _eta: update(done, total, label),
        )
    if asked.engine != "simslm":
        screen.note(
            f"note: operators (kernels.parquet) are not measured of {asked.engine}; --engine simslm has them"
        )
    _tell(Path(written))
    with screen.working("drawing the page"):
        page = trace_page(Path(written))
    if as_json:
        screen.show_json({"trace": str(written), "page": str(page)})
    else:
        print(written)
        print(f"page: {page}")


def _tell(trace: Path) -> None:
    """Notes what the trace lacks, and what was read in another way than usual."""
    from simslm.traces.files import read_trace

    provenance = read_trace(trace).provenance
    if provenance.get("power_note"):
        screen.note(f"note: no energy: {provenance['power_note']}")
    if provenance.get("meter_note"):
        screen.note(f"note: {provenance['meter_note']}")
    for each in provenance.get("not_measurable") or []:
        screen.note(f"note: {each['shape']} cannot be measured here ({each['why']})")
    for what, why in (provenance.get("colocation_refused") or {}).items():
        screen.note(f"note: {what} cannot be measured here ({why})")


def plan(asked: Asked, as_json: bool) -> None:
    """Prints what a campaign would measure, how long it takes and what memory it needs.

    Raises:
        InfeasibleError: the model does not fit.
        UsageError: the catalogue does not know the device, or there is no such way of sharing.
    """
    known, kind, free = _named(asked.device)
    specification = asked.specification(device=known.name)
    from profiler import plan as planning
    from simslm.catalog.work import equal_prompts
    from simslm.cost.roofline import Roofline

    cost = Roofline(specification.architecture, known, asked.dtype)
    found = planning.plan(
        specification, kind, free, lambda shape: cost.latency_s(equal_prompts(**shape.columns()))
    )
    if asked.quantization is not None:
        screen.note(
            f"note: planned with weights in {asked.dtype}; in {asked.quantization} they take less memory and time"
        )
    if as_json:
        screen.show_json(planning.facts(found))
    else:
        _show(found)


def _named(device: str) -> tuple[Device, str, int]:
    """The catalogue's entry of a device, its kind, and what of its memory a campaign may have."""
    with _torch():
        from profiler.provenance import memory_bytes
    from simslm.catalog.devices import load_device

    if device == "cpu":
        known = load_device("cpu")
        return known, "cpu", memory_bytes("MemAvailable") or known.memory_bytes
    if device.partition(":")[0] == "cuda":
        from profiler.engine.engine import open_device
        from profiler.provenance import catalogue_device

        try:
            device = catalogue_device(open_device(device))
        except DeviceError as error:
            raise DeviceError(error.message, remedy="name the one to plan for, e.g. --device h200") from None
    known = load_device(device)
    return known, "cuda", known.memory_bytes


def _show(found: Plan) -> None:
    parts = [f"{count} {what}" for what, count in found.areas.items()]
    shapes = f", grid {found.grid}: {sum(found.areas.values())} shapes ({', '.join(parts)}), {found.heldout} held out"
    print(f"{found.model} in {found.dtype} on {found.device}{shapes if parts else ''}")
    limit = "" if found.enough_s is None else f"; once {found.enough_s:.0f} s are over, three visits do"
    if parts:
        print(f"  each is visited until its median is settled, at most {found.most_visits} times{limit}")
    if found.left_out:
        print(f"  {found.left_out} more shapes of the grid do not fit in memory")
    print()
    print(f"time: about {_minutes(found.seconds)}, with iterations as the roofline has them")
    screen.show_facts([(what, _minutes(value)) for what, value in found.steps.items()])
    print()
    print(f"memory: about {bytes_(found.needed_bytes)} of {bytes_(found.memory_bytes)}")
    screen.show_facts(
        [
            ("weights", bytes_(found.weights_bytes)),
            ("KV blocks of the largest shape", bytes_(found.cache_bytes)),
            ("rows of the widest iteration", bytes_(found.rows_bytes)),
        ]
    )


def _minutes(value: float) -> str:
    whole = round(value)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02} s"


@contextmanager
def _torch() -> Iterator[None]:
    """Says what to install where torch is not."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise DeviceError(
            f"{error.name} is not installed", remedy="profiling needs torch: pip install 'simslm[profile]'"
        ) from None


def _numbers(option: str, text: str, example: str, count: int | None = None) -> list[int]:
    """The numbers of a list, ``count`` of them and above 0 where that is given."""
    try:
        found = [int(word) for word in text.split(",")]
    except ValueError:
        found = []
    if not found or (count is not None and (len(found) != count or min(found) < 1)):
        what = "no list of numbers" if count is None else f"not {count} numbers above 0"
        raise UsageError(f"{option} {text!r} is {what}", remedy=f"e.g. {option} {example}")
    return found

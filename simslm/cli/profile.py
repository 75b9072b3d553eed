"""``simslm profile``, and what it would do (``--plan``)."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from simslm.cli import screen
from simslm.cli.destination import free_place
from simslm.cli.report import trace_page
from simslm.errors import DeviceError, UsageError
from simslm.units import bytes_

if TYPE_CHECKING:
    from profiler.plan import Plan
    from simslm.catalog.devices import Device


def profile(
    model: str,
    device: str,
    dtype: str,
    grid: str,
    output: Path | None,
    *,
    repeats: int | None,
    budget_s: float | None,
    threads: int | None,
    replicas: str,
    sharing: str,
    engine: str,
    quantization: str | None,
    reach: str | None,
    as_json: bool,
) -> None:
    """Measures, and prints where the trace is."""
    counts = _numbers("--replicas", replicas, "1,2,4")
    ends = None if reach is None else _numbers("--reach", reach, "32,2048,512", count=3)
    if output is not None:
        free_place(output)
    cores = os.cpu_count() or 1
    if threads is not None and threads > cores:
        raise UsageError(f"--threads {threads} is more than the {cores} cores of this machine")
    with _torch():
        from profiler.campaign import profile as measure
        from profiler.grid import Reach
        from profiler.specification import Specification
    command = ["simslm", "profile", "--model", model, "--device", device, "--dtype", dtype, "--grid", grid]
    command += ["--quantization", quantization] if quantization else []
    command += ["--repeats", str(repeats)] if repeats else []
    command += ["--threads", str(threads)] if threads else []
    command += ["--replicas", replicas, "--sharing", sharing] if counts != [1] else []
    command += ["--engine", engine] if engine != "simslm" else []
    command += ["--reach", reach] if reach else []
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with screen.progress("measuring") as update:
        written = measure(
            Specification(
                model=model,
                device=device,
                dtype=dtype,
                grid=grid,
                quantization=quantization,
                engine=engine,
                reach=None if ends is None else Reach(*ends),
                repeats=repeats,
                threads=threads,
                replicas=counts,
                sharing=[word.strip() for word in sharing.split(",")],
                output=output,
            ),
            budget_s=budget_s,
            command=shlex.join(command),
            progress=None if update is None else lambda done, total, label, _eta: update(done, total, label),
        )
    if engine != "simslm":
        screen.note(
            f"note: operators (kernels.parquet) are not measured of {engine}; --engine simslm has them"
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


def plan(
    model: str,
    device: str,
    dtype: str,
    grid: str,
    *,
    repeats: int | None,
    replicas: str,
    sharing: str,
    engine: str,
    reach: str | None,
    as_json: bool,
) -> None:
    """Prints what a campaign would measure, how long it takes and what memory it needs.

    Raises:
        InfeasibleError: the model does not fit.
        UsageError: the catalogue does not know the device.
    """
    counts = _numbers("--replicas", replicas, "1,2,4")
    ends = None if reach is None else _numbers("--reach", reach, "32,2048,512", count=3)
    with _torch():
        from profiler import plan as planning
        from profiler.grid import Reach
        from profiler.specification import Specification
    from simslm.catalog.work import equal_prompts
    from simslm.cost.roofline import Roofline

    known, kind, free = _named(device)
    specification = Specification(
        model=model,
        device=known.name,
        dtype=dtype,
        grid=grid,
        engine=engine,
        reach=None if ends is None else Reach(*ends),
        repeats=repeats,
        replicas=counts,
        sharing=[word.strip() for word in sharing.split(",")],
    )
    cost = Roofline(specification.architecture, known, dtype)
    found = planning.plan(
        specification, kind, free, lambda shape: cost.latency_s(equal_prompts(**shape.columns()))
    )
    if as_json:
        screen.show_json(planning.facts(found))
    else:
        _show(found)


def _named(device: str) -> tuple[Device, str, int]:
    """The catalogue's entry of a device, its kind, and what of its memory a campaign may have."""
    from simslm.catalog.devices import load_device

    if device == "cpu":
        from profiler.provenance import memory_bytes

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

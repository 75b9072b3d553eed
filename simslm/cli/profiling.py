"""``simslm profile``."""

from __future__ import annotations

import os
import shlex
import signal
from pathlib import Path

from simslm.cli import screen
from simslm.cli.destination import free_place
from simslm.cli.reporting import trace_page
from simslm.errors import DeviceError, UsageError


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
    try:
        from profiler.campaign import profile as measure
        from profiler.grid import Reach
    except ModuleNotFoundError as error:
        raise DeviceError(
            f"{error.name} is not installed", remedy="profiling needs torch: pip install 'simslm[profile]'"
        ) from None
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
            model,
            device,
            dtype,
            grid,
            output,
            quantization=quantization,
            repeats=repeats,
            budget_s=budget_s,
            threads=threads,
            command=shlex.join(command),
            replicas=counts,
            sharing=[word.strip() for word in sharing.split(",")],
            engine=engine,
            reach=None if ends is None else Reach(*ends),
            progress=None if update is None else lambda done, total, label, _eta: update(done, total, label),
        )
    if engine != "simslm":
        screen.note(
            f"note: operators (kernels.parquet) are not measured of {engine}; --engine simslm has them"
        )
    with screen.working("drawing the page"):
        page = trace_page(Path(written))
    if as_json:
        screen.show_json({"trace": str(written), "page": str(page)})
    else:
        print(written)
        print(f"page: {page}")


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

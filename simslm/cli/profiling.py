"""``simslm profile``."""

from __future__ import annotations

import os
import shlex
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
    repeats: int | None,
    threads: int | None,
    replicas: str,
    sharing: str,
    *,
    quantization: str | None,
    as_json: bool,
) -> None:
    """Measures, and prints where the trace is."""
    counts = _numbers(replicas)
    if output is not None:
        free_place(output)
    cores = os.cpu_count() or 1
    if threads is not None and threads > cores:
        raise UsageError(f"--threads {threads} is more than the {cores} cores of this machine")
    try:
        from profiler.campaign import profile as measure
    except ModuleNotFoundError as error:
        raise DeviceError(
            f"{error.name} is not installed", remedy="profiling needs torch: pip install 'simslm[profile]'"
        ) from None
    command = ["simslm", "profile", "--model", model, "--device", device, "--dtype", dtype, "--grid", grid]
    command += ["--quantization", quantization] if quantization else []
    command += ["--repeats", str(repeats)] if repeats else []
    command += ["--threads", str(threads)] if threads else []
    command += ["--replicas", replicas, "--sharing", sharing] if counts != [1] else []
    with screen.progress("measuring") as update:
        written = measure(
            model,
            device,
            dtype,
            grid,
            output,
            quantization=quantization,
            repeats=repeats,
            threads=threads,
            command=shlex.join(command),
            replicas=counts,
            sharing=[word.strip() for word in sharing.split(",")],
            progress=None if update is None else lambda done, total, label, _eta: update(done, total, label),
        )
    with screen.working("drawing the page"):
        page = trace_page(Path(written))
    if as_json:
        screen.show_json({"trace": str(written), "page": str(page)})
    else:
        print(written)
        print(f"page: {page}")


def _numbers(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise UsageError(
            f"--replicas {text!r} is no list of numbers", remedy="e.g. --replicas 1,2,4"
        ) from None

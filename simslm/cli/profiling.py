"""``simslm profile``."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from simslm.cli import screen
from simslm.cli.destination import free_place
from simslm.errors import DeviceError, UsageError


def profile(
    model: str,
    device: str,
    dtype: str,
    grid: str,
    output: Path | None,
    repeats: int | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Measures, and prints where the trace is."""
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
    command += ["--repeats", str(repeats)] if repeats else []
    command += ["--threads", str(threads)] if threads else []
    with screen.progress("measuring") as update:
        written = measure(
            model,
            device,
            dtype,
            grid,
            output,
            repeats=repeats,
            threads=threads,
            command=shlex.join(command),
            progress=None if update is None else lambda done, total, label, _eta: update(done, total, label),
        )
    if as_json:
        screen.show_json({"trace": str(written)})
    else:
        print(written)

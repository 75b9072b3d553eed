"""``simslm calibrate``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simslm.cli import screen
from simslm.cli.destination import free_place
from simslm.cli.validating import signed

if TYPE_CHECKING:
    from simslm.calibration.calibrate import Calibration

SHOWN = ("output_tokens_per_s", "tpot_mean_s", "ttft_mean_s")


def calibrate(
    files: Sequence[Path],
    offline: Path | None,
    model: str,
    device: str,
    dtype: str,
    output: Path,
    where: str | None,
    sets: Sequence[str],
    as_json: bool,
) -> None:
    """Fits the terms to the runs, writes the trace, and prints what came of it.

    Raises:
        SimslmError: the runs cannot be calibrated on.
    """
    from simslm.calibration.calibrate import calibrate as fit
    from simslm.calibration.calibrate import write_calibration
    from simslm.calibration.offline import read_steps
    from simslm.cli.validating import selected_runs

    free_place(output)
    runs = selected_runs(files, where, sets)
    steps = read_steps(offline, model) if offline else []
    with screen.progress("calibrating") as update:
        calibration = fit(runs, model, device, dtype, steps=steps, progress=update)
    command = _command(files, offline, model, device, dtype, output, where, sets)
    trace = write_calibration(output, calibration, runs, model, device, dtype, command)
    if as_json:
        screen.show_json(_values(calibration, str(trace.path)))
    else:
        _show(calibration, str(trace.path))


def _command(
    files: Sequence[Path],
    offline: Path | None,
    model: str,
    device: str,
    dtype: str,
    output: Path,
    where: str | None,
    sets: Sequence[str],
) -> str:
    words = ["simslm", "calibrate", *map(str, files), "--model", model, "--device", device, "--dtype", dtype]
    words += ["--offline", str(offline)] if offline else []
    words += ["--where", where] if where else []
    for text in sets:
        words += ["--set", text]
    return shlex.join([*words, "-o", str(output)]).encode(errors="backslashreplace").decode()


def _values(calibration: Calibration, path: str) -> dict[str, Any]:
    return {
        "trace": path,
        "engine": calibration.cost.engine,
        "terms": _terms(calibration),
        "errors": {run: dict(errors) for run, errors in calibration.errors.items()},
        "power_errors": dict(calibration.power.errors) if calibration.power else {},
        "domain": {name: list(span) for name, span in calibration.domain.items()},
        "warnings": list(calibration.warnings),
    }


def _terms(calibration: Calibration) -> list[dict[str, Any]]:
    from simslm.traces.terms import TERMS

    stderr = calibration.fit.stderr | (calibration.power.stderr if calibration.power else {})
    values = calibration.cost.terms
    return [
        {"term": name, "value": values[name], "stderr": stderr.get(name), "unit": term.unit, "doc": term.doc}
        for name, term in TERMS.items()
        if name in values
    ]


def _show(calibration: Calibration, path: str) -> None:
    rows = [
        (row["term"], f"{row['value']:.4g}", f"{row['stderr']:.1g}" if row["stderr"] else "-", row["unit"])
        for row in _terms(calibration)
    ]
    screen.show_defined(
        ("term", "value", "std error", "unit"), rows, [row["doc"] for row in _terms(calibration)]
    )
    print()
    print(f"the {len(calibration.errors)} runs it was fitted to; error = computed / measured - 1")
    power = calibration.power.errors if calibration.power else {}
    screen.show_table(
        ("run", *SHOWN, "power"),
        [
            (run, *(_error(errors.get(name)) for name in SHOWN), _error(power.get(run)))
            for run, errors in calibration.errors.items()
        ],
    )
    print()
    for warning in calibration.warnings:
        screen.note(f"note: {warning}")
    print(f"engine: {calibration.cost.engine}")
    print(f"trace: {path}")


def _error(value: float | None) -> str:
    return "-" if value is None else signed(value)

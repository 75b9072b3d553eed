"""``simslm calibrate``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simslm.cli import screen
from simslm.cli.destination import free_place
from simslm.cli.validate_recorded import show_skipped, signed
from simslm.errors import SimslmError

if TYPE_CHECKING:
    from simslm.calibration.calibrate import Calibration

SHOWN = (
    "output_tokens_per_s",
    "steady_output_tokens_per_s",
    "tpot_mean_s",
    "tpot_p50_s",
    "itl_mean_s",
    "itl_p50_s",
    "ttft_mean_s",
    "ttft_p50_s",
)
"""Columns of the errors, in this order, where a run has them: all that a calibration is judged by."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What ``simslm calibrate`` is asked.

    Attributes:
        files: tables, result files or folders of them.
        offline: iterations measured without a server.
        model, device, dtype: what ran.
        output: where the trace goes.
        where: a condition on the runs.
        sets: ``column=value``.
        most_residual: largest error of a run that is good enough.
        force: write the trace whatever its error.
    """

    files: Sequence[Path]
    offline: Path | None
    model: str
    device: str
    dtype: str
    output: Path
    where: str | None
    sets: Sequence[str]
    most_residual: float
    force: bool


def calibrate(asked: Request, as_json: bool) -> None:
    """Fits the terms to the runs, writes the trace, and prints what came of it.

    Raises:
        UsageError: the runs cannot be calibrated on.
        SimslmError: the fit misses its own runs by more than what is allowed, and is not forced; nothing is written.
    """
    from simslm.calibration.calibrate import calibrate as fit
    from simslm.calibration.calibrate import write_calibration
    from simslm.calibration.offline import read_steps
    from simslm.catalog.models import named_model
    from simslm.cli.validate_recorded import selected_runs

    free_place(asked.output)
    said = {"model": asked.model, "device": asked.device}
    measured = selected_runs(asked.files, asked.where, asked.sets, said)
    steps = read_steps(asked.offline, named_model(asked.model) or asked.model) if asked.offline else []
    with screen.progress("calibrating") as update:
        found = fit(measured.runs, asked.model, asked.device, asked.dtype, steps=steps, progress=update)
    good = found.quality.good(asked.most_residual)
    path = None
    if good or asked.force:
        trace = write_calibration(
            asked.output, found, asked.dtype, _command(asked), most_residual=asked.most_residual
        )
        path = str(trace.path)
    skipped = [(each.run, each.reason) for each in (*measured.skipped, *found.skipped)]
    if as_json:
        screen.show_json(_values(found, asked, path, skipped))
    else:
        _show(found, asked, path, skipped)
    if path is None:
        worst = found.quality
        raise SimslmError(
            f"the fit misses {worst.metric} of {worst.run} by {signed(worst.error)}, more than --max-residual "
            f"{asked.most_residual:g} allows: no trace is written",
            remedy="check that model, device, dtype and engine limits are those of the runs, leave out with --where "
            "what does not belong, or say --force",
        )


def _command(asked: Request) -> str:
    words = ["simslm", "calibrate", *map(str, asked.files), "--model", asked.model, "--device", asked.device]
    words += ["--dtype", asked.dtype]
    words += ["--offline", str(asked.offline)] if asked.offline else []
    words += ["--where", asked.where] if asked.where else []
    for text in asked.sets:
        words += ["--set", text]
    words += ["--max-residual", f"{asked.most_residual:g}", *(["--force"] if asked.force else [])]
    return shlex.join([*words, "-o", str(asked.output)]).encode(errors="backslashreplace").decode()


def _values(
    found: Calibration, asked: Request, path: str | None, skipped: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    worst = found.quality
    return {
        "trace": path,
        "engine": found.cost.engine,
        "terms": _terms(found),
        "errors": {run: dict(errors) for run, errors in found.errors.items()},
        "power_errors": dict(found.power.errors) if found.power else {},
        "domain": {name: list(span) for name, span in found.domain.items()},
        "residual": {
            "largest": worst.residual,
            "run": worst.run,
            "metric": worst.metric,
            "allowed": asked.most_residual,
            "ttft_median": worst.first_token,
        },
        "flags": worst.flags(asked.most_residual),
        "skipped": [{"run": run, "reason": reason} for run, reason in skipped],
        "notes": {run.run: list(run.notes) for run in found.runs if run.notes},
        "warnings": list(found.warnings),
    }


def _terms(found: Calibration) -> list[dict[str, Any]]:
    from simslm.traces.terms import TERMS

    stderr = found.fit.stderr | (found.power.stderr if found.power else {})
    values = found.cost.terms
    return [
        {"term": name, "value": values[name], "stderr": stderr.get(name), "unit": term.unit, "doc": term.doc}
        for name, term in TERMS.items()
        if name in values
    ]


def _show(found: Calibration, asked: Request, path: str | None, skipped: Sequence[tuple[str, str]]) -> None:
    rows = [
        (row["term"], f"{row['value']:.4g}", f"{row['stderr']:.1g}" if row["stderr"] else "-", row["unit"])
        for row in _terms(found)
    ]
    screen.show_defined(("term", "value", "std error", "unit"), rows, [row["doc"] for row in _terms(found)])
    print()
    _show_errors(found)
    print()
    for flag in found.quality.flags(inf if path is None else asked.most_residual):
        screen.show_text("warning:", flag)
    show_skipped(skipped)
    from simslm.calibration.calibrate import UNNAMED
    from simslm.report.fidelity import notes_of

    for text in (*notes_of({run.run: run.notes for run in found.runs}), *found.warnings):
        screen.note(f"note: {text}")
    hint = " (say it with --set engine=NAME-VERSION)" if found.cost.engine == UNNAMED else ""
    print(f"engine: {found.cost.engine}{hint}")
    if path is not None:
        print(f"trace: {path}")


def _show_errors(found: Calibration) -> None:
    """The errors of each run, and how many of them the fit used."""
    count = len(found.errors)
    words = "the run it was fitted to" if count == 1 else f"the {count} runs it was fitted to"
    print(f"{words}; error = computed / measured - 1")
    power = found.power.errors if found.power else {}
    columns = _columns(found.errors.values())
    rows = [
        (run, *(_error(errors.get(name)) for name in columns), *([_error(power.get(run))] if power else []))
        for run, errors in found.errors.items()
    ]
    screen.show_table(("run", *columns, *(["power"] if power else [])), rows)


def _columns(errors: Any) -> list[str]:
    """What is shown: every figure of some run that the judgement looks at."""
    used = {name for each in errors for name in each}
    return [name for name in SHOWN if name in used]


def _error(value: float | None) -> str:
    return "-" if value is None else signed(value)

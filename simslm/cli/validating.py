"""``simslm validate recorded``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simslm.cli import screen
from simslm.cli.destination import free_place
from simslm.cli.failure import InterruptError
from simslm.cli.interruption import held_back
from simslm.errors import SimslmError, UsageError
from simslm.units import change, number

if TYPE_CHECKING:
    from simslm.condition import Condition
    from simslm.runs.table import MeasuredRun

FIGURES = ("n", "median_abs_error", "p95_abs_error", "max_abs_error", "bias")
WORST = 5
"""Runs that the screen shows, those with the largest errors."""


def recorded(
    files: Sequence[Path],
    traces: Sequence[Path],
    output: Path,
    where: str | None,
    sets: Sequence[str],
    fail_on: Sequence[str],
    jobs: int,
    as_json: bool,
) -> None:
    """Simulates the runs, writes the comparison with its page, and prints the errors.

    Raises:
        UsageError: nothing is left to simulate, or an argument makes no sense.
        SimslmError: a ``fail_on`` condition is true.
    """
    from simslm.condition import Condition
    from simslm.fidelity.files import write_fidelity
    from simslm.fidelity.recorded import read_sources, validate
    from simslm.report.fidelity import write_page
    from simslm.runs.table import MEASURED

    directory = free_place(output)
    gates = [Condition(text, [f"{name}.{figure}" for name in MEASURED for figure in FIGURES], "--fail-on")
             for text in fail_on]  # fmt: skip
    runs = selected_runs(files, where, sets)
    sources = read_sources(traces)
    with held_back() as interruption, screen.progress("simulating") as update:

        def feed(done: int, total: int, name: str) -> None:
            if interruption.asked:
                raise KeyboardInterrupt
            if update is not None:
                update(done, total, f"runs, last {name}")

        fidelity = validate(runs, sources, jobs=jobs, progress=feed)
        interruption.writing = True
        if not fidelity.comparisons:
            raise InterruptError("interrupted; nothing is kept")
        command = _command(files, traces, output, where, sets, fail_on)
        values = write_fidelity(directory, fidelity, command)
        page = write_page(directory)
    if as_json:
        screen.show_json(values["summary"])
    else:
        _show(values, page)
    if fidelity.interrupted:
        raise InterruptError(
            f"interrupted: {directory} holds the {len(fidelity.comparisons)} runs done by then"
        )
    for gate in gates:
        judge(gate, values["summary"])


def selected_runs(files: Sequence[Path], where: str | None, sets: Sequence[str]) -> list[MeasuredRun]:
    """The measured runs that a command asks for.

    Args:
        files: tables and result files.
        where: a condition on the columns; None for all runs.
        sets: ``column=value``, what the files do not say.

    Raises:
        UsageError: a file, the condition or a setting is wrong, or no run is left.
    """
    from simslm.condition import Condition
    from simslm.runs.source import read_measured
    from simslm.runs.table import MEASURED, SETTINGS

    wanted = None if where is None else Condition(where, [*SETTINGS, *MEASURED], "--where")
    return _selected(read_measured(files, _settings(sets)), wanted)


def _selected(runs: list[MeasuredRun], wanted: Condition | None) -> list[MeasuredRun]:
    if wanted is None:
        return runs
    kept = [run for run in runs if wanted.holds(vars(run) | dict(run.measured))]
    if not kept:
        raise UsageError(f"--where {wanted.text!r} holds for none of the {len(runs)} runs")
    return kept


def _settings(sets: Sequence[str]) -> dict[str, str]:
    settings = {}
    for text in sets:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set: expected column=value, got {text!r}")
        settings[name.strip()] = value.strip()
    return settings


def judge(gate: Condition, summary: dict[str, Any]) -> None:
    """Ends the command where a condition is true, or cannot be answered."""
    values = {f"{name}.{figure}": summary[name][figure] for name in summary for figure in FIGURES}
    unknown = [name for name in gate.names() if name not in values]
    if unknown:
        raise UsageError(
            f"--fail-on {gate.text!r}: no run has an error of {unknown[0].partition('.')[0]}",
            remedy="name a metric that was measured and is simulated",
        )
    if gate.holds(values):
        shown = ", ".join(f"{name} is {number(values[name], 4)}" for name in gate.names())
        raise SimslmError(f"--fail-on {gate.text!r}: {shown}")


def _command(
    files: Sequence[Path],
    traces: Sequence[Path],
    output: Path,
    where: str | None,
    sets: Sequence[str],
    fail_on: Sequence[str],
) -> str:
    """The command line that does the same again; the number of jobs changes nothing."""
    words = ["simslm", "validate", "recorded", *map(str, files)]
    for trace in traces:
        words += ["--trace", str(trace)]
    words += ["--where", where] if where else []
    for option, texts in (("--set", sets), ("--fail-on", fail_on)):
        for text in texts:
            words += [option, text]
    return shlex.join([*words, "-o", str(output)]).encode(errors="backslashreplace").decode()


def _show(values: dict[str, Any], page: Path) -> None:
    from simslm.report.fidelity import notes

    rows = [
        (name, f"{each['n']:,}", *(percent(each[figure]) for figure in FIGURES[1:4]), signed(each["bias"]))
        for name, each in values["summary"].items()
    ]
    print(f"{len(values['rows'])} runs simulated as they were run; error = simulated / measured - 1")
    print()
    screen.show_table(("metric", "runs", "median", "p95", "largest", "bias (mean)"), rows)
    worst = _worst(values["rows"])
    if worst:
        print()
        print("furthest off in output tokens/s:")
        screen.show_table(("run", "error"), [(run, signed(error)) for run, error in worst])
    print()
    for text in notes(values):
        screen.note(f"note: {text}")
    for skipped in values["skipped"]:
        screen.note(f"skipped: {skipped['run']}: {skipped['reason']}")
    for trace in values["traces"]:
        print(f"from: {trace['path']}, {trace['source']} on {trace['engine']}")
    print(f"page: {page}")


def _worst(rows: list[dict[str, Any]]) -> list[tuple[str, float]]:
    errors = [(row["run"], row["error"].get("output_tokens_per_s")) for row in rows]
    known = [(run, error) for run, error in errors if error is not None]
    return sorted(known, key=lambda pair: -abs(pair[1]))[:WORST]


def percent(share: float) -> str:
    return f"{number(100 * share)} %"


def signed(share: float) -> str:
    return change(share)

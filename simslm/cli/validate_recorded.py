"""``simslm validate recorded``."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
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
    from simslm.fidelity.recorded import Source
    from simslm.runs.source import Measured

FIGURES = ("n", "median_abs_error", "p95_abs_error", "max_abs_error", "bias")
NAMED = 5
"""Skipped runs that are named with each reason."""

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
    sources = read_sources(traces)
    measured = selected_runs(files, where, sets, _of(sources))
    with held_back() as interruption, screen.progress("simulating") as update:

        def feed(done: int, total: int, name: str) -> None:
            if interruption.asked:
                raise KeyboardInterrupt
            if update is not None:
                update(done, total, f"runs, last {name}")

        fidelity = validate(measured.runs, sources, skipped=measured.skipped, jobs=jobs, progress=feed)
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


def _of(sources: Sequence[Source]) -> dict[str, str]:
    """The model and the device of the traces, for runs that do not name their own."""
    found = {}
    for column in ("model", "device"):
        names = {getattr(source, column) for source in sources}
        found |= {column: names.pop()} if len(names) == 1 else {}
    return found


def selected_runs(
    files: Sequence[Path], where: str | None, sets: Sequence[str], assumed: Mapping[str, str]
) -> Measured:
    """The measured runs that a command asks for.

    Args:
        files: tables and result files.
        where: a condition on the columns; None for all runs.
        sets: ``column=value``, what stands in place of what the files say.
        assumed: texts by column, for what neither says.

    Raises:
        UsageError: a file, the condition or a setting is wrong, or no run is left.
    """
    from simslm.condition import Condition
    from simslm.runs.source import Measured, read_measured
    from simslm.runs.table import MEASURED, SETTINGS

    wanted = None if where is None else Condition(where, [*SETTINGS, *MEASURED], "--where")
    found = read_measured(files, _settings(sets), assumed)
    if wanted is None:
        return found
    kept = tuple(run for run in found.runs if wanted.holds(vars(run) | dict(run.measured)))
    if not kept:
        raise UsageError(f"--where {wanted.text!r} holds for none of the {len(found.runs)} runs")
    return Measured(kept, found.skipped)


def show_skipped(skipped: Sequence[tuple[str, str]]) -> None:
    """Names what was left out, each reason once with the runs it holds for."""
    if not skipped:
        return
    runs: dict[str, list[str]] = {}
    for run, reason in skipped:
        runs.setdefault(reason, []).append(run)
    for reason, names in runs.items():
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        screen.note(f"skipped: {', '.join(names[:NAMED])}{more}: {reason}")
    if len(skipped) > 1:
        screen.note(f"skipped {len(skipped)} in all")


def _settings(sets: Sequence[str]) -> dict[str, str]:
    settings = {}
    for text in sets:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set: expected column=value, got {text!r}")
        settings[name.strip()] = value.strip()
    return settings


def judge(gate: Condition, summary: dict[str, Any]) -> None:
    """Fails the command where a condition is true, or cannot be evaluated."""
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
    count = len(values["rows"])
    print(
        f"{count} run{'s' if count > 1 else ''} simulated as they were run; error = simulated / measured - 1"
    )
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
    show_skipped([(each["run"], each["reason"]) for each in values["skipped"]])
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

"""Simulates measured runs as they were run, in this process or in several; the answers do not depend on which."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from simslm.api import simulate
from simslm.errors import SimslmError, UsageError
from simslm.fidelity.comparison import Comparison
from simslm.runs.replay import scenario_of, simulated
from simslm.runs.table import MeasuredRun, Skipped
from simslm.traces.files import flags_of, read_trace
from simslm.traces.terms import read_terms

INTERRUPTED = "interrupted before it was simulated"

Progress = Callable[[int, int, str], None]
"""Takes runs done, runs in all, and the name of the last one."""


@dataclass(frozen=True)
class Source:
    """A trace that runs are simulated on.

    Attributes:
        path: its directory.
        model, device, dtype: what it is of.
        source, engine: where its figures come from.
        content_hash: of its contents.
        startup_s: what a burst takes to get to the first iteration, where that was calibrated.
        flags: what every answer built on it has to say.
        fitted: names of the runs that it was calibrated on.
    """

    path: str
    model: str
    device: str
    dtype: str
    source: str
    engine: str
    content_hash: str
    startup_s: float = 0.0
    flags: tuple[str, ...] = ()
    fitted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fidelity:
    """The outcome of a validation.

    Attributes:
        sources: the traces, in the order given.
        comparisons: runs that were simulated, in the order of the table.
        skipped: the others, those that could not be read first.
        interrupted: whether it was stopped before the last run.
    """

    sources: tuple[Source, ...]
    comparisons: tuple[Comparison, ...]
    skipped: tuple[Skipped, ...]
    interrupted: bool = False


@dataclass(frozen=True)
class _Task:
    """One run and what it costs: all that a worker needs."""

    run: MeasuredRun
    source: Source


def read_sources(traces: Sequence[Path]) -> tuple[Source, ...]:
    """The traces, at most one of a model and device.

    Raises:
        TraceError: one is missing or damaged.
        UsageError: two are of the same model and device.
    """
    found: dict[tuple[str, str], Source] = {}
    for path in traces:
        trace = read_trace(path)
        origin = trace.provenance
        key = (origin["model"], origin["device"])
        if key in found:
            raise UsageError(
                f"is of {key[0]} on {key[1]} like {found[key].path}",
                where=str(path),
                remedy="give one of them",
            )
        engine = str(origin.get("engine", ""))
        startup_s = read_terms(trace).get("startup", 0.0) if trace.terms is not None else 0.0
        found[key] = Source(
            str(path),
            *key,
            origin["dtype"],
            trace.source,
            engine,
            trace.content_hash,
            startup_s,
            flags_of(origin),
            tuple(origin.get("runs", ())),
        )
    return tuple(found.values())


def validate(
    runs: Sequence[MeasuredRun],
    sources: Sequence[Source],
    *,
    skipped: Sequence[Skipped] = (),
    jobs: int = 1,
    progress: Progress | None = None,
) -> Fidelity:
    """Simulates each run for whose model and device there is a trace.

    A KeyboardInterrupt, from ``progress`` or from the keyboard, ends it early with what is done.

    Args:
        runs: what was measured.
        sources: from :func:`read_sources`.
        skipped: what could not be read.
        jobs: processes; with one, no other is started.
        progress: called after each run.

    Raises:
        UsageError: not one run could be simulated.
    """
    by_key = {(source.model, source.device): source for source in sources}
    tasks = [_Task(run, by_key[key]) for run in runs if (key := (run.model, run.device)) in by_key]
    if not tasks:
        wanted = ", ".join(sorted({f"{run.model} on {run.device}" for run in runs})) or "nothing"
        given = ", ".join(f"{source.model} on {source.device}" for source in sources)
        raise UsageError(
            f"no run can be simulated: they are of {wanted}, the traces of {given}",
            remedy="give a trace of that model and device with --trace",
        )
    outcomes: dict[str, dict[str, float] | str] = {}
    interrupted = False
    try:
        for name, outcome in _outcomes(tasks, jobs):
            outcomes[name] = outcome
            if progress is not None:
                progress(len(outcomes), len(tasks), name)
    except KeyboardInterrupt:
        interrupted = True
    known = {task.run.run for task in tasks}
    comparisons, left_out = [], list(skipped)
    for run in runs:
        outcome = outcomes.get(run.run, INTERRUPTED)
        if run.run not in known:
            left_out.append(Skipped(run.run, f"no trace of {run.model} on {run.device} was given"))
        elif isinstance(outcome, str):
            left_out.append(Skipped(run.run, outcome))
        else:
            comparisons.append(Comparison(run, outcome))
    if not comparisons and not interrupted:
        reason = next(each.reason for each in left_out if each.run in known)
        raise UsageError(f"not one of {len(tasks)} runs could be simulated: {reason}")
    return Fidelity(tuple(sources), tuple(comparisons), tuple(left_out), interrupted)


def _outcomes(tasks: Sequence[_Task], jobs: int) -> Iterator[tuple[str, dict[str, float] | str]]:
    """Each run's name and its answer, or why there is none; in any order."""
    if jobs == 1:
        for task in tasks:
            yield task.run.run, _simulate(task)
        return
    with ProcessPoolExecutor(min(jobs, len(tasks)), get_context("spawn"), _ignore_interrupts) as pool:
        pending: Mapping[Future[Any], _Task] = {pool.submit(_simulate, task): task for task in tasks}
        try:
            left = set(pending)
            while left:
                done, left = wait(left, return_when=FIRST_COMPLETED)
                for future in done:
                    yield pending[future].run.run, future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _ignore_interrupts() -> None:
    """Ctrl-C reaches the whole process group; only the parent answers it."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _simulate(task: _Task) -> dict[str, float] | str:
    try:
        scenario = scenario_of(task.run, {"trace": task.source.path}, dtype=task.source.dtype)
        result = simulate(scenario, with_intervals=False)
    except SimslmError as error:
        return str(error)
    counts = result.summary["requests"]
    if counts["finished"] < counts["arrived"]:
        return (
            f"{counts['arrived'] - counts['finished']} of its {counts['arrived']} requests cannot be served"
        )
    return simulated(result, task.run, task.source.startup_s)

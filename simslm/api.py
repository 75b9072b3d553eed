"""The Python interface: load a scenario, simulate it; the command line is a thin layer on these."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from simslm.comparison.intervals import sampling_of
from simslm.comparison.sampled import Sampled
from simslm.errors import ScenarioError
from simslm.metrics.books import Books, Forget, TableSink
from simslm.metrics.economics import economics_figures
from simslm.metrics.intervals import intervals, sampling, unknown
from simslm.metrics.result import Result, summarize
from simslm.preparation.found import Found
from simslm.preparation.groups import PreparedGroup
from simslm.preparation.manifest import manifest
from simslm.preparation.prepared import Prepared, prepare
from simslm.scenario.load import load_scenario
from simslm.scenario.schema import Scenario
from simslm.sim.log import FINISHED
from simslm.sim.rows import Stream
from simslm.sim.world import OnStart, Progress, run
from simslm.workload.supply import MOST_HELD

__all__ = [
    "Found",
    "Prepared",
    "PreparedGroup",
    "load_scenario",
    "observed",
    "prepare",
    "simulate",
]

MOST_REPEATED = 20_000
"""Requests up to which a run is repeated for its intervals."""


def simulate(
    scenario: Scenario,
    *,
    progress: Progress | None = None,
    jump: bool = True,
    command: str = "",
    sink: TableSink | None = None,
    on_start: OnStart | None = None,
    with_intervals: bool = True,
) -> Result:
    """Runs a scenario.

    Args:
        scenario: from :func:`load_scenario`.
        progress: called every now and then with an :class:`~simslm.sim.world.Underway`.
        jump: False steps through every iteration instead of jumping; the result is the same, to the bit.
        command: what reproduces the run, for the manifest.
        sink: takes iterations, and the requests of a stream, as the run goes on; None keeps them in the result.
        on_start: called with a function that ends the simulation early; the result is what had happened by then.
        with_intervals: repeat the run with costs a standard error lower and higher, where that is known of them and
            requests are no more than :data:`MOST_REPEATED`, and say in the summary how sure its figures are; also what
            other requests of the same kind would change.

    Raises:
        ScenarioError: not one request of the workload can be served.
        SimslmError: see :func:`prepare`.
    """
    begun = time.perf_counter()
    prepared = prepare(scenario)
    result = observed(prepared, progress=progress, jump=jump, sink=sink, on_start=on_start)
    if with_intervals and not result.log.interrupted:
        result.summary["intervals"] = _intervals(prepared, result, on_start, progress)
        result.summary["intervals"]["sampling"] = _sampling(scenario, result)
    result.manifest.update(
        manifest(prepared, result.log.events, result.log.interrupted, time.perf_counter() - begun, command)
    )
    return result


def observed(
    prepared: Prepared,
    *,
    progress: Progress | None = None,
    jump: bool = True,
    sink: TableSink | None = None,
    on_start: OnStart | None = None,
) -> Result:
    """Runs what is prepared; the arguments are those of :func:`simulate`, and the result has no manifest.

    Raises:
        ScenarioError: not one request of the workload can be served.
    """
    scenario = prepared.scenario
    if scenario.metrics is not None and isinstance(prepared.workload, Stream):
        raise ScenarioError(
            f"needs all requests at once, and no more than {MOST_HELD:,} are held; this workload has "
            f"{prepared.workload.count:,}",
            where=scenario.where("metrics"),
            remedy="leave it out: the start of so long a run decides little; or send fewer requests",
        )
    books = Books(prepared.basis, sink)
    log = run(
        prepared.workload,
        prepared.deployment(),
        jump=jump,
        progress=progress,
        sink=books if sink is not None or isinstance(prepared.workload, Stream) else None,
        on_start=on_start,
    )
    result = summarize(books, log)
    result.summary["economics"] = economics_figures(prepared.tariff, result.summary)
    counts = result.summary["requests"]
    if counts["rejected"] == counts["arrived"] and counts["arrived"]:
        raise ScenarioError(
            _none_fits(prepared, counts["arrived"]), where=scenario.where("workload") or scenario.name
        )
    return result


def _intervals(
    prepared: Prepared, result: Result, on_start: OnStart | None, progress: Progress | None
) -> dict[str, Any]:
    """The intervals of a run's figures; unknown when it is too long to repeat, or its repeats were stopped."""
    if len(prepared.workload) > MOST_REPEATED:
        return unknown(f"more than {MOST_REPEATED:,} requests: the run was not repeated")
    pairs = []
    for number, (low, high) in enumerate(prepared.variants()):
        cheaper, dearer = (
            observed(each, progress=_repeating(progress, 2 * number + i), sink=Forget(), on_start=on_start)
            for i, each in enumerate((low, high), 1)
        )
        if cheaper.log.interrupted or dearer.log.interrupted:
            return unknown("the repeats were interrupted")
        pairs.append((cheaper.summary, dearer.summary))
    return intervals(result.summary, pairs)


def _sampling(scenario: Scenario, result: Result) -> dict[str, Any]:
    """What other requests of the same kind would change."""
    if scenario.metrics is not None:
        return sampling({}, "metrics leaves requests out: compare runs under several seeds")
    run = sampled(scenario, result)
    if run is None:
        return sampling(
            {}, "the requests were written while the run went on: compare runs under several seeds"
        )
    return sampling(*sampling_of(run))


def sampled(scenario: Scenario, result: Result) -> Sampled | None:
    """The requests of a run, for the intervals of its figures; None where they were written while it went on, or the
    figures are not of all of them."""
    columns = result.request_columns
    if scenario.metrics is not None or len(columns["status"]) < result.summary["requests"]["arrived"]:
        return None
    requests = {**columns, "finished": columns["status"] == FINISHED}
    return Sampled(requests, result.summary, scenario.slo.bounds() if scenario.slo else {})


def _repeating(progress: Progress | None, number: int) -> Progress | None:
    """Marks the progress of a repeated run as such."""
    if progress is None:
        return None
    return lambda underway: progress(replace(underway, repeat=number))


def _none_fits(prepared: Prepared, count: int) -> str:
    group = prepared.groups[0]
    return (
        f"none of the {count} requests can be served: each has more prompt + output tokens than max_model_len "
        f"({group.max_model_len}) or the KV cache ({group.memory.num_gpu_blocks} blocks) holds, or a prompt beyond "
        "max_num_batched_tokens, or is not let in; shorten the requests, or choose a model or device with more room"
    )

"""``simslm validate live``."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simslm.cli import screen
from simslm.cli.destination import free_place
from simslm.cli.failure import InterruptError
from simslm.cli.interruption import Interruption, held_back
from simslm.cli.simulation import directory_name, overrides
from simslm.cli.validating import FIGURES, judge, signed
from simslm.errors import DeviceError, UsageError
from simslm.units import number, seconds

if TYPE_CHECKING:
    from profiler.serving.live import LiveEngine
    from profiler.serving.log import Served
    from profiler.serving.replica import Limits
    from profiler.serving.together import LiveReplicas
    from simslm.api import Prepared
    from simslm.fidelity.live import Load
    from simslm.scenario.schema import Scenario

SHOWN = ("output_tokens_per_s", "ttft_p50_s", "tpot_p50_s", "itl_p50_s", "e2e_p50_s", "e2e_p99_s")
"""Metrics on the screen; ``fidelity.json`` has all."""


def live(
    path: Path,
    output: Path,
    device: str | None,
    trace: Path | None,
    grid: str,
    loads: str | None,
    repeats: int,
    threads: int | None,
    sets: Sequence[str],
    seed: int | None,
    fail_on: Sequence[str],
    as_json: bool,
) -> None:
    """Measures, serves, simulates, writes the comparison with its page, and prints the errors beside the noise.

    Raises:
        UsageError: the scenario cannot be served live, or an argument makes no sense.
        DeviceError: torch or the device is not there.
        SimslmError: a ``fail_on`` condition is true.
    """
    from simslm.condition import Condition
    from simslm.fidelity import live as both
    from simslm.fidelity.files import write_fidelity
    from simslm.fidelity.recorded import Fidelity, read_sources
    from simslm.fidelity.repeats import repeats as noise
    from simslm.fidelity.repeats import write_load
    from simslm.report.fidelity import write_page
    from simslm.runs.table import MEASURED

    directory, shares = free_place(output), _shares(loads)
    gates = [Condition(text, [f"{name}.{figure}" for name in MEASURED for figure in FIGURES], "--fail-on")
             for text in fail_on]  # fmt: skip
    given = overrides(list(sets), seed)
    words = _words(path, device, trace, grid, loads, repeats, threads, given, fail_on, output)
    _, prepared = _read(path, given, "{roofline: {}}")
    pinned = _pin(threads, len(prepared.priced))
    both.check_servable(prepared, scaled=bool(shares))
    name = device or ("cpu" if prepared.device.name == "cpu" else "cuda:0")
    _check_device(name, prepared)
    if trace is None:
        trace = _measured(prepared, name, grid, directory / "trace", words, pinned)
    cost = f"{{trace: {_quoted(trace.resolve())}}}"
    simulated = both.loads(lambda more: _read(path, [*given, *more], cost)[0], shares, _tell_load)
    with _open_engine(prepared, name, pinned) as engine, held_back() as interruption:
        serve = partial(_serve, engine, interruption)
        runs, ended = both.serve_all(simulated, serve, repeats, engine.name, partial(_tell_run, repeats))
        interruption.writing = True
        if not runs:
            raise ended if isinstance(ended, DeviceError) else InterruptError("interrupted; nothing is kept")
        for load, group in groupby(runs, key=lambda run: run.load.name):
            write_load(directory / directory_name(load), list(group))
        fidelity = Fidelity(
            read_sources([trace]), tuple(run.comparison for run in runs), (), ended is not None
        )
        more = {"repeats": noise(runs), "serving": engine.describe()}
        values = write_fidelity(directory, fidelity, words, more)
        page = write_page(directory)
    if as_json:
        screen.show_json({"summary": values["summary"], "repeats": values["repeats"]})
    else:
        _show(values, page)
    if isinstance(ended, DeviceError):
        screen.note(f"{directory} holds the {len(runs)} runs done by then")
        raise ended
    if ended is not None:
        raise InterruptError(f"interrupted: {directory} holds the {len(runs)} runs done by then")
    for gate in gates:
        judge(gate, values["summary"])


def _read(path: Path, sets: Sequence[str], cost: str) -> tuple[Scenario, Prepared]:
    """The scenario with a cost in place of its own, and everything it names."""
    from simslm.api import load_scenario, prepare

    scenario = load_scenario(path, [*sets, f"cost={cost}"])
    return scenario, prepare(scenario)


def _shares(text: str | None) -> list[float]:
    """The shares of ``0.5,0.8``."""
    try:
        shares = [float(part) for part in text.split(",")] if text is not None else []
    except ValueError:
        shares = [-1.0]
    if not all(0 < share <= 10 for share in shares) or len(set(shares)) < len(shares):
        raise UsageError(
            f"--load {text!r}: expected different shares of capacity, each above 0 and at most 10",
            remedy="give e.g. 0.5,0.8,0.95",
        )
    return shares


def _pin(threads: int | None, replicas: int) -> int:
    """One number of threads for the trace and for serving, of each replica; what it is."""
    cores = os.cpu_count() or 1
    if threads is not None and threads * replicas > cores:
        each = f" for each of {replicas} replicas" if replicas > 1 else ""
        raise UsageError(f"--threads {threads}{each} is more than the {cores} cores of this machine")
    try:
        from profiler.engine.engine import pin_threads, threads_each
    except ModuleNotFoundError as error:
        raise DeviceError(
            f"{error.name} is not installed", remedy="serving live needs torch: pip install 'simslm[profile]'"
        ) from None
    pinned = threads or threads_each(replicas)
    pin_threads(pinned)
    return pinned


def _check_device(name: str, prepared: Prepared) -> None:
    from profiler.engine.engine import open_device
    from profiler.provenance import catalogue_device
    from profiler.replicas import check_ways

    if len(prepared.priced) > 1:
        check_ways(name, [prepared.scenario.deployment.sharing])
    found = catalogue_device(open_device(name))
    if found != prepared.device.name:
        raise UsageError(
            f"the scenario is of {prepared.device.name}, but {name} is {found}",
            where=prepared.scenario.where("device") or prepared.scenario.name,
            remedy=f"serve on another --device, or --set device={found}",
        )


def _measured(prepared: Prepared, device: str, grid: str, place: Path, command: str, threads: int) -> Path:
    """The trace of the scenario's model, measured now, as far as the scenario's batches and contexts go.

    Replicas that share the device are measured together too, in the scenario's way of sharing.
    """
    from profiler.campaign import profile
    from profiler.grid import Reach
    from profiler.provenance import shown_command

    group, requests = prepared.groups[0], prepared.requests
    limits, replicas = group.spec.engine, len(prepared.priced)
    reach = Reach(
        min(limits.max_num_seqs, len(requests)),
        _longest(prepared),
        min(limits.max_num_batched_tokens, group.max_model_len),
    )
    screen.note(f"measuring {group.architecture.name} on {device}")
    with screen.progress("measuring") as update:
        return profile(
            group.architecture,
            device,
            prepared.scenario.dtype,
            grid,
            place,
            command=shown_command(shlex.split(command)),
            progress=None if update is None else lambda done, total, label, _eta: update(done, total, label),
            reach=reach,
            threads=threads,
            replicas=sorted({1, replicas}),
            sharing=[prepared.scenario.deployment.sharing] if replicas > 1 else [],
        )


@contextmanager
def _open_engine(prepared: Prepared, device: str, threads: int) -> Iterator[LiveEngine | LiveReplicas]:
    """What serves, warmed up: an engine in this process, or replicas that share the device."""
    from profiler.serving.live import LiveEngine
    from profiler.serving.together import open_replicas

    group, replicas = prepared.groups[0], len(prepared.priced)
    made = (
        group.architecture,
        prepared.scenario.dtype,
        device,
        group.memory.num_gpu_blocks,
        group.spec.engine.block_size,
        prepared.scenario.seed,
    )
    sharing = prepared.scenario.deployment.sharing
    alone = replicas == 1
    with (
        nullcontext(LiveEngine(*made))
        if alone
        else open_replicas(*made, replicas=replicas, sharing=sharing, threads=threads)
    ) as engine:
        screen.note("warming up")
        engine.warm(_limits(prepared), _longest(prepared))
        yield engine


def _serve(engine: LiveEngine | LiveReplicas, interruption: Interruption, prepared: Prepared) -> Served:
    """The requests that fit, by the policies and limits that the simulation has."""
    from profiler.serving.replica import Policies
    from simslm.fidelity.live import fitting
    from simslm.fidelity.replicas import routed

    kept, requests = fitting(prepared), prepared.requests
    (group,) = prepared.deployment().groups
    names = ("arrival_s", "prompt_tokens", "output_tokens", "max_tokens", "priority")
    columns = {name: None if (all_ := getattr(requests, name)) is None else all_[kept] for name in names}
    columns["replica"] = routed(prepared)[kept]
    made = group.policies()
    return engine.serve(
        columns,
        _limits(prepared),
        Policies(made.batching, made.order, made.admission),
        lambda: interruption.asked,
    )


def _limits(prepared: Prepared) -> Limits:
    from profiler.serving.replica import Limits

    limits = prepared.deployment().groups[0].engine
    return Limits(limits.max_num_seqs, limits.max_num_batched_tokens, limits.watermark_blocks)


def _longest(prepared: Prepared) -> int:
    """The longest prompt and output together that can be served, tokens."""
    requests = prepared.requests
    longest = int((requests.prompt_tokens + requests.output_tokens).max())
    return min(longest, prepared.groups[0].max_model_len)


def _quoted(path: Path) -> str:
    """A path as YAML reads it whatever it holds."""
    import json

    return json.dumps(str(path))


def _tell_load(load: Load) -> None:
    rate = f" at {number(load.rate_rps)} requests/s" if load.rate_rps is not None else ""
    screen.note(f"{load.name}:{rate} about {seconds(load.result.summary['makespan_s'])}, as simulated")


def _tell_run(repeats: int, load: Load, run: int) -> None:
    screen.note(f"serving {load.name}, repeat {run} of {repeats}")


def _words(
    path: Path,
    device: str | None,
    trace: Path | None,
    grid: str,
    loads: str | None,
    repeats: int,
    threads: int | None,
    sets: Sequence[str],
    fail_on: Sequence[str],
    output: Path,
) -> str:
    """The command line that does the same again."""
    words = ["simslm", "validate", "live", str(path)]
    options = {"--device": device, "--trace": trace, "--load": loads, "--threads": threads}
    options |= {"--grid": grid if trace is None else None, "--repeats": repeats}
    for option, value in options.items():
        words += [option, str(value)] if value is not None else []
    for option, texts in (("--set", sets), ("--fail-on", fail_on)):
        for text in texts:
            words += [option, text]
    return shlex.join([*words, "-o", str(output)]).encode(errors="backslashreplace").decode()


def _show(values: dict[str, Any], page: Path) -> None:
    from simslm.report.fidelity import name_of, notes
    from simslm.traces.check import BUSY

    print(f"{len(values['rows'])} runs served in real time and simulated; error = simulated / measured - 1")
    for load in values["repeats"]:
        running = load["mean_running_seqs"]
        rate = f" at {number(load['rate_rps'])} requests/s" if load["rate_rps"] is not None else ""
        print()
        print(
            f"{load['name']}: {load['requests']:,} requests{rate}, {len(load['runs'])} times; on average "
            f"{number(running['measured'])} sequences ran ({number(running['simulated'])} simulated)"
        )
        if cost := load["iterations"]:
            print(
                f"the iterations that ran cost {signed(cost['total_error'])} by the trace in all, "
                f"{signed(cost['median_error'])} in the median"
            )
        if load["replicas"] > 1:
            print(f"{load['replicas']} replicas share the device, their interference {load['interference']}")
        if (others := max((share for share in load["other_load"] if share), default=0.0)) > BUSY:
            print(
                f"others had up to {100 * others:.0f} % of the processors meanwhile: not the engine's times alone"
            )
        metrics = load["metrics"]
        rows = [(name_of(name), *_cells(name, metrics[name])) for name in SHOWN if name in metrics]
        screen.show_table(("metric", "measured", "simulated", "error", "noise of repeats"), rows)
    print()
    for text in notes(values):
        screen.note(f"note: {text}")
    print(
        "error of the mean over repeats; noise: standard deviation of the repeats, as a share of their mean"
    )
    for trace in values["traces"]:
        print(f"from: {trace['path']}, {trace['source']} on {trace['engine']}")
    print(f"page: {page}")


def _cells(name: str, metric: dict[str, float | None]) -> tuple[str, str, str, str]:
    from simslm.report.repeats import figure

    measured, simulated, error, noise = (metric[key] for key in ("measured", "simulated", "error", "noise"))
    assert measured is not None
    assert simulated is not None
    return (
        figure(name, measured),
        figure(name, simulated),
        "–" if error is None else signed(error),
        "–" if noise is None else f"{100 * noise:.3g} %",
    )

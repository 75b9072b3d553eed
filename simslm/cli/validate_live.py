"""``simslm validate live``."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simslm.cli import screen
from simslm.cli.destination import free_place
from simslm.cli.failure import InterruptError
from simslm.cli.interruption import Interruption, held_back
from simslm.cli.simulate import directory_name, overrides
from simslm.cli.validate_recorded import FIGURES, judge, signed
from simslm.errors import DeviceError, UsageError
from simslm.units import number, seconds

if TYPE_CHECKING:
    from profiler.engines.own import OwnEngine
    from profiler.serving.live import LiveEngine
    from profiler.serving.log import Served
    from profiler.serving.replica import Limits
    from profiler.serving.together import LiveReplicas
    from simslm.api import Prepared
    from simslm.fidelity.live import Load, Service
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
    from simslm.runs.table import MEASURED
    from simslm.traces.files import holds_trace, read_trace

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
    place = trace or directory / "trace"
    cost = f"{{trace: {_quoted(place.resolve())}}}"
    if trace is not None:
        _read(path, given, cost)
    elif holds_trace(place) and not read_trace(place).provenance.get("unfinished"):
        raise UsageError(
            f"{place} is a finished trace, and another one would be measured there",
            remedy=f"serve from it with --trace {place}, or write to another place (-o)",
        )

    def read(more: Sequence[str]) -> Scenario:
        return _read(path, [*given, *more], cost)[0]

    service = both.Service(
        read, shares, repeats, lambda load, run: _tell_run(repeats, load, run), _tell_loads
    )
    ended: Exception | None = None
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    with held_back() as interruption:
        waiter = _Waiter(prepared, service, interruption)
        try:
            if trace is None:
                _measure(prepared, name, grid, place, words, pinned, waiter)
            waiter.serve_rest(name, pinned)
        except InterruptError:
            raise
        except KeyboardInterrupt:
            ended = InterruptError(f"interrupted: {_kept(directory, service)}")
        except Exception as error:  # whatever it is, the runs before it were served
            ended = error
        if ended is not None and not service.runs:
            raise ended
        interruption.writing = True
        values, page = _write(directory, place, words, waiter, whole=ended is None)
    if as_json:
        screen.show_json({"summary": values["summary"], "repeats": values["repeats"]})
    else:
        _show(values, page)
    if ended is not None:
        if not isinstance(ended, InterruptError):
            screen.note(_kept(directory, service))
        raise ended
    for gate in gates:
        judge(gate, values["summary"])


def _kept(directory: Path, service: Service) -> str:
    if not service.runs:
        return "no load was served to its end"
    return f"{directory} holds the {service.runs} runs done by then"


def _write(
    directory: Path, trace: Path, words: str, waiter: _Waiter, *, whole: bool
) -> tuple[dict[str, Any], Path]:
    """Simulates what was served, and writes both sides of it with their comparison and its page.

    Returns:
        What ``fidelity.json`` holds, and the page.
    """
    from simslm.fidelity.files import write_fidelity
    from simslm.fidelity.recorded import Fidelity, read_sources
    from simslm.fidelity.repeats import repeats as noise
    from simslm.fidelity.repeats import write_load
    from simslm.report.fidelity import write_page

    assert waiter.engine is not None
    runs = waiter.service.compared(waiter.engine.name)
    for load, group in groupby(runs, key=lambda run: run.load.name):
        write_load(directory / directory_name(load), list(group))
    fidelity = Fidelity(read_sources([trace]), tuple(run.comparison for run in runs), (), not whole)
    more = {"repeats": noise(runs), "serving": waiter.engine.describe()}
    return write_fidelity(directory, fidelity, words, more), write_page(directory)


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
        raise UsageError(
            f"--threads {threads}{each} is more than the {cores} cores of this machine",
            remedy=f"give --threads {cores // replicas}" if replicas <= cores else "serve fewer replicas",
        )
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


def _measure(
    prepared: Prepared, device: str, grid: str, place: Path, command: str, threads: int, waiter: _Waiter
) -> None:
    """Measures the trace of the scenario's model, as far as its batches and contexts go.

    A replica alone serves meanwhile. Replicas that share the device are measured together too, in the scenario's way of
    sharing, and serve when that is over: they need the memory.
    """
    from profiler.campaign import Turns, profile
    from profiler.grid import Reach
    from profiler.memory import affordable_blocks, check_affordable
    from profiler.provenance import shown_command
    from profiler.specification import Specification

    group, requests = prepared.groups[0], prepared.requests
    limits, replicas = group.spec.engine, len(prepared.priced)
    alone = replicas == 1
    if not alone:
        size, dtype = limits.block_size, prepared.scenario.dtype
        room = affordable_blocks(group.architecture, device, dtype, size, replicas)
        check_affordable(group.memory.num_gpu_blocks, room, device, replicas)
    reach = Reach(
        min(limits.max_num_seqs, len(requests)),
        _longest(prepared),
        min(limits.max_num_batched_tokens, group.max_model_len),
    )
    screen.note(f"measuring {group.architecture.name} on {device}")
    with screen.progress("measuring") as update:

        def progress(done: int, total: int, label: str, _eta_s: float) -> None:
            waiter.interruption.obey()
            if update is not None:
                update(done, total, label)

        profile(
            Specification(
                model=group.architecture,
                device=device,
                dtype=prepared.scenario.dtype,
                grid=grid,
                reach=reach,
                threads=threads,
                replicas=sorted({1, replicas}),
                sharing=[] if alone else [prepared.scenario.deployment.sharing],
                output=place,
            ),
            command=shown_command(shlex.split(command)),
            progress=progress,
            turns=Turns(waiter.take_turn, group.memory.num_gpu_blocks, limits.block_size) if alone else None,
        )


class _Waiter:
    """Serves what is due of a service, on an engine that is measured meanwhile or on engines of its own.

    Attributes:
        service: what is due, and what was served.
        engine: what serves; None before the first load.
        interruption: ends a run that is being served.
    """

    def __init__(self, prepared: Prepared, service: Service, interruption: Interruption) -> None:
        self._prepared, self.service, self.interruption = prepared, service, interruption
        self.engine: LiveEngine | LiveReplicas | None = None

    def take_turn(self, engine: OwnEngine, passes: int, most: int) -> None:
        """After a pass of the campaign."""
        from profiler.serving.live import LiveEngine

        if self.engine is None:
            blocks = self._prepared.groups[0].memory.num_gpu_blocks
            self._warm(LiveEngine(engine, blocks, self._prepared.scenario.seed))
        self.service.catch_up(self._serve, passes, most)

    def serve_rest(self, device: str, threads: int) -> None:
        """Serves what was not served between the passes, on engines of its own."""
        if self.engine is None:
            with _opened(self._prepared, device, threads) as engine:
                self._warm(engine)
                self.service.catch_up(self._serve)

    def _warm(self, engine: LiveEngine | LiveReplicas) -> None:
        screen.note("warming up")
        engine.warm(_limits(self._prepared), _longest(self._prepared), lambda: self.interruption.asked)
        self.engine = engine

    def _serve(self, prepared: Prepared) -> Served:
        """The requests that fit, by the policies and limits that the simulation has."""
        from profiler.serving.replica import Policies
        from simslm.fidelity.live import fitting
        from simslm.fidelity.replicas import routed

        assert self.engine is not None
        kept, requests = fitting(prepared), prepared.requests
        names = ("arrival_s", "prompt_tokens", "output_tokens", "max_tokens", "priority")
        columns = {name: None if (all_ := getattr(requests, name)) is None else all_[kept] for name in names}
        columns["replica"] = routed(prepared)[kept]
        made = prepared.deployment().groups[0].policies()
        policies = Policies(
            batching=made.batching, order=made.order, admission=made.admission, preemption=made.preemption
        )
        return self.engine.serve(columns, _limits(prepared), policies, lambda: self.interruption.asked)


@contextmanager
def _opened(prepared: Prepared, device: str, threads: int) -> Iterator[LiveEngine | LiveReplicas]:
    """What serves: an engine in this process, or replicas that share the device."""
    from profiler.serving.live import LiveEngine
    from profiler.serving.together import open_replicas

    group, scenario, replicas = prepared.groups[0], prepared.scenario, len(prepared.priced)
    blocks, size = group.memory.num_gpu_blocks, group.spec.engine.block_size
    made = (group.architecture, scenario.dtype, device, blocks, size, scenario.seed)
    if replicas == 1:
        yield LiveEngine.open(*made)
        return
    sharing = scenario.deployment.sharing
    with open_replicas(*made, replicas=replicas, sharing=sharing, threads=threads) as engine:
        yield engine


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
    """A path quoted for YAML, with any characters in it."""
    import json

    return json.dumps(str(path))


def _tell_loads(loads: Sequence[Load]) -> None:
    for load in loads:
        rate = f" at {number(load.rate_rps)} requests/s" if load.rate_rps is not None else ""
        lasts = seconds(float(load.prepared.requests.arrival_s[-1]))
        screen.note(f"{load.name}:{rate}, arriving within {lasts}")


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
        "–" if noise is None else f"{number(100 * noise)} %",
    )

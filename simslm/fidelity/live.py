"""A scenario served for real and simulated: the same arrivals and lengths, several times, both sides alike.

Figures of both are computed by the same functions, so that a difference is one of times, not of definitions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from simslm.api import Prepared, prepare, simulate
from simslm.errors import UsageError
from simslm.fidelity.comparison import Comparison
from simslm.fidelity.replicas import check_replicas
from simslm.metrics import summary as figures
from simslm.metrics.columns import latencies
from simslm.metrics.iterations import IterationTable
from simslm.metrics.quantiles import spread
from simslm.metrics.result import Result
from simslm.metrics.tally import Tally
from simslm.runs.replay import simulated
from simslm.runs.table import MeasuredRun
from simslm.scenario.schema import Scenario
from simslm.sim.deployment import servable
from simslm.sim.log import FINISHED, REJECTED

AS_STATED = "as stated"
"""Name of the load of a scenario whose own rate is kept."""

TIMES = ("first_scheduled_s", "first_token_s", "finish_s")


class Served(Protocol):
    """What serving a workload left: columns over the requests that fit, and over iterations.

    Attributes:
        requests: ``arrival_s first_scheduled_s first_token_s finish_s preemptions rejected replica``.
        iterations: the columns of ``iterations.parquet`` but ``power_w``, those of a replica in order of time.
        gaps_s: every gap between two output tokens of one request.
        energy_j: of the device meanwhile; None where it was not measured.
        other_load: the part of all cores' time that others had meanwhile; None where it is not known.
    """

    @property
    def requests(self) -> Mapping[str, np.ndarray]: ...
    @property
    def iterations(self) -> Mapping[str, np.ndarray]: ...
    @property
    def gaps_s(self) -> np.ndarray: ...
    @property
    def energy_j(self) -> float | None: ...
    @property
    def other_load(self) -> float | None: ...


Serve = Callable[[Prepared], Served]
"""Serves those requests of a scenario that fit, in real time.

Raises:
    KeyboardInterrupt: it was told to stop.
    DeviceError: the device, or a replica on it, failed.
"""


Read = Callable[[Sequence[str]], Scenario]
"""The scenario with some more overrides, and the trace as it is by then."""


@dataclass(frozen=True)
class Load:
    """A scenario at one arrival rate.

    Attributes:
        name: for reports.
        share: its rate as a share of capacity; None where the scenario's own is kept.
        sets: overrides that make it of the scenario.
        prepared: what is served.
    """

    name: str
    share: float | None
    sets: tuple[str, ...]
    prepared: Prepared

    @property
    def rate_rps(self) -> float | None:
        """Its arrival rate; None where its process has none."""
        return getattr(self.prepared.scenario.workload.arrivals, "rate_rps", None)


@dataclass(frozen=True)
class LiveRun:
    """A load served once.

    Attributes:
        load: with the cost it is simulated at.
        result: of the simulation.
        number: which of the repeats it is, from 1.
        requests: the columns of ``requests.parquet``, as served.
        iterations: of each replica, as they ran.
        comparison: beside the simulation.
        other_load: as in :class:`Served`.
    """

    load: Load
    result: Result
    number: int
    requests: dict[str, np.ndarray]
    iterations: tuple[IterationTable, ...]
    comparison: Comparison
    other_load: float | None


class Service:
    """The loads of a scenario, served several times, and simulated when that is over.

    All loads are served once, then all again, so that drift spreads over them. Measuring may go on between: rates are
    shares of what the trace says when the first load is served, and the simulations are of the trace at the end.

    Args:
        read: the scenario; :func:`check_servable` has been asked.
        shares: of the capacity, which is what the scenario serves per second when all its requests are there at
            once; none for the scenario's own rate.
        repeats: how often each load is served, at least once.
        on_run: called before each run, with its number.
        on_loads: called with the loads, once they are known.
    """

    def __init__(
        self,
        read: Read,
        shares: Sequence[float],
        repeats: int,
        on_run: Callable[[Load, int], None] = lambda load, number: None,
        on_loads: Callable[[Sequence[Load]], None] = lambda loads: None,
    ) -> None:
        self._read, self._shares, self._repeats = read, shares, repeats
        self._on_run, self._on_loads = on_run, on_loads
        self._loads: list[Load] = []
        self._served: list[tuple[Load, int, Served]] = []

    @property
    def runs(self) -> int:
        """How often a load was served to its end."""
        return len(self._served)

    def catch_up(self, serve: Serve, passes: int = 1, most: int = 1) -> None:
        """Serves what is due once so many passes of measuring are over: nothing at first, in the end all repeats.

        Args:
            serve: the engine.
            passes, most: passes that are over, and how many there are at most.

        Raises:
            KeyboardInterrupt: it was told to stop; the runs before stay.
        """
        # Nothing after the first pass: the trace is not whole yet, and rates are shares of what it says.
        due = self._repeats if passes >= most else round(self._repeats * (passes - 1) / (most - 1))
        if due and not self._loads:
            self._loads = self._planned()
            self._on_loads(self._loads)
        while self._loads and self.runs < due * len(self._loads):
            before, which = divmod(self.runs, len(self._loads))
            load = self._loads[which]
            self._on_run(load, before + 1)
            self._served.append((load, before + 1, serve(load.prepared)))

    def compared(self, engine: str) -> list[LiveRun]:
        """Simulates what was served.

        Args:
            engine: name and version of what served.

        Returns:
            The runs, load by load.
        """
        found = []
        for load in self._loads:
            runs = [(number, served) for each, number, served in self._served if each is load]
            if not runs:
                continue
            scenario = self._read(load.sets)
            # Read again: the trace may have been measured further since the load was served.
            priced, result = replace(load, prepared=prepare(scenario)), simulate(scenario)
            found += [_run(priced, result, number, served, engine) for number, served in runs]
        return found

    def _planned(self) -> list[Load]:
        stated = self._read(())
        if not self._shares:
            return [Load(AS_STATED, None, (), prepare(stated))]
        capacity = capacity_rps(self._read, stated)
        found = []
        for share in self._shares:
            sets = (f"workload.arrivals.rate_rps={share * capacity!r}",)
            found.append(Load(f"load {share:g}", share, sets, prepare(self._read(sets))))
        return found


def capacity_rps(read: Read, scenario: Scenario) -> float:
    """Requests per second that a scenario serves when all are there at once."""
    count = len(prepare(scenario).requests)
    at_once = ("workload.arrivals={process: all-at-once}", "workload.duration_s=null")
    result = simulate(read((*at_once, f"workload.num_requests={count}")))
    return result.summary["throughput"]["requests_per_s"]


def check_servable(prepared: Prepared, *, scaled: bool) -> None:
    """Refuses what the serving loop does not do.

    Args:
        prepared: the scenario, with any cost.
        scaled: its rate is to be set.

    Raises:
        UsageError: naming it.
    """
    scenario = prepared.scenario
    if scaled and getattr(scenario.workload.arrivals, "rate_rps", None) is None:
        raise UsageError(
            "--load sets workload.arrivals.rate_rps, and the scenario's arrivals have none",
            where=scenario.where("workload"),
            remedy="use poisson, gamma, deterministic or diurnal arrivals, or leave --load out",
        )
    engine, requests = prepared.groups[0].spec.engine, prepared.requests
    batching = prepared.deployment().groups[0].policies().batching
    lacking = {
        "one device only": scenario.deployment.num_devices > 1,
        "no scaling, migration, faults or power": prepared.deployment().controlled,
        "one group only": len(prepared.groups) > 1,
        "no gateway": scenario.deployment.gateway is not None,
        "no parts of the multiprocessors (sharing sm-partition)": scenario.deployment.sharing
        == "sm-partition",
        "no padding (batching static)": batching.holds_batch,
        "no prefill by layers (batching layered-prefill)": batching.by_layers,
        "no prefix_caching": engine.prefix_caching,
        "no outputs looked at late (disable_async_output_proc false)": not engine.disable_async_output_proc,
        "no preemption by swap": engine.preemption == "swap",
        "no preemption_policy that displaces, and no priorities that change": engine.switches,
        "no spare_block": engine.spare_block,
        "no speculative_config": engine.speculative_config is not None,
        "no clients that leave": requests.patience_s is not None,
        "no closed loop": requests.closed_loop is not None,
        "no requests that wait for others": requests.programs is not None,
    }
    found = [what for what, asked in lacking.items() if asked]
    if found:
        raise UsageError(
            f"cannot be served live: the serving loop has {', '.join(found)}",
            where=scenario.where() or scenario.name,
            remedy="simplify the scenario, or override its keys with --set",
        )
    check_replicas(prepared)


def fitting(prepared: Prepared) -> np.ndarray:
    """Which requests can be served at all, a mask of shape ``(requests,)``."""
    return servable(prepared.requests, prepared.deployment().groups[0])


def mean_running(tables: Sequence[IterationTable]) -> float:
    """Sequences that run on all replicas, averaged over the time in which any do.

    Args:
        tables: of each replica.
    """
    names = ("start_s", "duration_s", "running")
    start_s, duration_s, running = (np.concatenate([each.columns[name] for each in tables]) for name in names)
    order = np.argsort(start_s)
    start_s, end_s = start_s[order], (start_s + duration_s)[order]
    # The union of the replicas' iterations: of each only what lies beyond the latest end before it counts.
    before_s = np.maximum.accumulate(np.concatenate([[-np.inf], end_s[:-1]]))
    busy_s = np.clip(end_s - np.maximum(start_s, before_s), 0.0, None).sum()
    return float(running @ duration_s / busy_s)


def _run(load: Load, result: Result, number: int, served: Served, engine: str) -> LiveRun:
    requests = _request_columns(load.prepared, served)
    iterations = tuple(_iteration_table(served, number) for number in range(len(load.prepared.priced)))
    measured = _measured(load.prepared, requests, iterations, served)
    run = _as_run(load, number, engine, measured)
    comparison = Comparison(run, simulated(result, run))
    return LiveRun(load, result, number, requests, iterations, comparison, served.other_load)


def _request_columns(prepared: Prepared, served: Served) -> dict[str, np.ndarray]:
    """The columns of ``requests.parquet``; those that never fit are rejected, as in a simulation."""
    requests, kept = prepared.requests, fitting(prepared)
    count = len(requests)
    columns = {
        "request_id": np.arange(count),
        "arrival_s": requests.arrival_s,
        "prompt_tokens": requests.prompt_tokens,
        "output_tokens": requests.output_tokens,
        "cached_prompt_tokens": np.zeros(count, dtype=np.int64),
        "energy_j": np.full(count, np.nan),
    }
    for name in TIMES:
        columns[name] = np.full(count, np.nan)
        columns[name][kept] = served.requests[name]
    for name in ("preemptions", "recomputed_tokens"):
        columns[name] = np.zeros(count, dtype=np.int64)
        columns[name][kept] = served.requests[name]
    rejected = ~kept
    rejected[kept] = served.requests["rejected"]
    columns["status"] = np.where(rejected, REJECTED, FINISHED)
    columns["replica"] = np.full(count, -1)
    columns["replica"][kept] = served.requests["replica"]
    columns["replica"][rejected] = -1
    return columns | latencies(columns)


def _iteration_table(served: Served, number: int) -> IterationTable:
    mine = served.iterations["replica"] == number
    columns = {name: column[mine] for name, column in served.iterations.items() if name != "replica"}
    columns["end_s"] = columns["start_s"] + columns["duration_s"]
    count = len(columns["start_s"])
    return IterationTable(columns, None, np.zeros(count), np.ones(count, dtype=bool))


def _measured(
    prepared: Prepared, requests: dict[str, np.ndarray], tables: Sequence[IterationTable], served: Served
) -> dict[str, float]:
    """Every figure of the run, by its column in ``RUNS.csv``."""
    seconds = float(max(table.end_s.max(initial=0.0) for table in tables) - requests["arrival_s"].min())
    blocks, tally = prepared.groups[0].memory.num_gpu_blocks, Tally.of(requests)
    found: dict[str, float | None] = {
        "duration_s": seconds,
        **figures.throughput(tally, seconds),
        "preemptions": float(requests["preemptions"].sum()),
        "kv_peak": float(served.iterations["kv_blocks_used"].max() / blocks),
        "energy_j": served.energy_j,
        "power_mean_w": None if served.energy_j is None else served.energy_j / seconds,
    }
    spreads = tally.spreads() | {"itl_s": spread(served.gaps_s)}
    for name, values in spreads.items():
        latency = name.removesuffix("_s")
        found |= {f"{latency}_{statistic}_s": value for statistic, value in values.items()}
    return {name: value for name, value in found.items() if value is not None}


def _as_run(load: Load, number: int, engine: str, measured: Mapping[str, float]) -> MeasuredRun:
    prepared, group = load.prepared, load.prepared.groups[0]
    limits, requests = group.spec.engine, prepared.requests
    return MeasuredRun(
        run=f"{load.name}, repeat {number}",
        model=group.architecture.name,
        device=prepared.device.name,
        engine=engine,
        workload=prepared.scenario.name,
        prompt_tokens=float(requests.prompt_tokens.mean()),
        output_tokens=float(requests.output_tokens.mean()),
        lengths_file=None,
        num_requests=len(requests),
        arrivals=_arrivals(load),
        max_num_seqs=limits.max_num_seqs,
        max_num_batched_tokens=limits.max_num_batched_tokens,
        batching=limits.batching.policy,
        replicas=len(prepared.priced),
        sharing=prepared.scenario.deployment.sharing,
        num_gpu_blocks=group.memory.num_gpu_blocks,
        sm_clock_mhz=None,
        measured=measured,
    )


def _arrivals(load: Load) -> str:
    """The process and its rate, as a table of runs writes them."""
    arrivals = load.prepared.scenario.workload.arrivals
    parts: list[Any] = ["replay" if arrivals is None else arrivals.process]
    parts += [getattr(arrivals, name) for name in ("rate_rps", "cv") if hasattr(arrivals, name)]
    return ":".join(part if isinstance(part, str) else f"{part:.6g}" for part in parts)

"""A finished run: tables of requests and iterations, a summary, and what is needed to run it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from simslm.cost.model import CostModel
from simslm.errors import ScenarioError
from simslm.metrics import summary as figures
from simslm.metrics.classes import Classes, ClassTallies, fairness_figures
from simslm.metrics.definitions import BY_KEY
from simslm.metrics.intervals import unknown
from simslm.metrics.iterations import IterationTable
from simslm.metrics.ledger import Account, Ledger, Priced
from simslm.metrics.programs import ProgramColumns, program_figures
from simslm.metrics.quantiles import Distribution
from simslm.metrics.steady import STEADY, Counted, Rule, counted
from simslm.metrics.tally import Tally, last_end
from simslm.sim.log import Settled, SimulationLog, Window
from simslm.sim.rows import Requests, Stream
from simslm.sim.world import Deployment, OnStart, Progress, run
from simslm.traces.files import flags_of
from simslm.traces.schema import SOURCES

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Result:
    """What a simulation answers.

    Attributes:
        request_columns: arrays over arrived requests, in order of their numbers; NaN where nothing happened. Those that
            were written while the run went on are not among them.
        summary: the contents of ``summary.json``.
        log: what the simulation left.
        token_gaps: between consecutive output tokens of the same request, all requests pooled, in seconds.
        windows: the iterations of each replica, priced, those of a stream in parts; empty when they were written while
            the run went on.
        manifest: the contents of ``manifest.json``.
    """

    request_columns: dict[str, np.ndarray]
    summary: dict[str, Any]
    log: SimulationLog
    token_gaps: Distribution
    windows: list[tuple[int, Window, IterationTable]]
    manifest: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def requests(self) -> pd.DataFrame:
        """``requests.parquet`` as a frame: one row per arrived request."""
        from simslm.metrics.files import requests_arrow

        return requests_arrow(self.request_columns).to_pandas()

    @cached_property
    def iterations(self) -> pd.DataFrame:
        """``iterations.parquet`` as a frame: one row per iteration, replica by replica."""
        import pyarrow as pa

        from simslm.metrics.files import iterations_arrow

        return pa.concat_tables(
            [iterations_arrow(index, table) for index, _, table in self.windows]
        ).to_pandas()

    @property
    def tables(self) -> list[IterationTable]:
        """The iterations of each replica, in the order of the replicas."""
        return [table for _, _, table in self.windows]


class Sink(Protocol):
    """Takes what a run has come to while it goes on, so that memory does not grow with it."""

    def take(self, replica: int, window: Window, table: IterationTable) -> None:
        """A window of the log of a replica, by number, and the window's iterations with their cost."""
        ...

    def take_requests(self, columns: dict[str, np.ndarray]) -> None:
        """Requests that are over, in order of their numbers; the columns are :attr:`Result.request_columns`."""
        ...


class Forget:
    """A sink that keeps nothing: the summary is all that is wanted."""

    def take(self, replica: int, window: Window, table: IterationTable) -> None:
        """Nothing becomes of it."""

    def take_requests(self, columns: dict[str, np.ndarray]) -> None:
        """Nothing becomes of them."""


class _Books:
    """What becomes of a run's windows and requests as they come.

    Args:
        replicas: how each is priced.
        requests: how many there are; None for a stream.
        bounds: on latencies, for the tally.
        classes: of all requests, None where there are none.
        sink: see :class:`Sink`; None keeps everything.
        rule: which requests count; None = all. Then all are booked at once, at the end.
        escalates: whether requests may be served by several groups.
    """

    def __init__(
        self,
        replicas: list[Priced],
        requests: int | None,
        bounds: Mapping[str, float | None],
        classes: Classes | None,
        sink: Sink | None,
        rule: Rule | None = None,
        *,
        escalates: bool = False,
    ) -> None:
        self.rule, self.escalates = rule, escalates
        self.window: Counted | None = None
        self.windows: list[tuple[int, Window, IterationTable]] = []
        self.parts: list[dict[str, np.ndarray]] = []
        self.tally = Tally(bounds)
        self.tallies = None if classes is None else ClassTallies(classes)
        taken = self._keep if sink is None else sink.take
        self.ledger = Ledger(replicas, requests, taken, timed=rule is not None)
        self._take_requests = self.parts.append if sink is None else sink.take_requests

    def _keep(self, replica: int, window: Window, table: IterationTable) -> None:
        self.windows.append((replica, window, table))

    def settle(self, settled: Settled) -> None:
        """Books requests that are over, and hands them on."""
        columns = self.book(settled)
        self._take_requests(columns)

    def book(self, settled: Settled) -> dict[str, np.ndarray]:
        """Books requests; all windows up to their end have been."""
        columns = _request_columns(settled, self.ledger)
        if not self.escalates:
            del columns["escalations"]
        self.ledger.take_answers(columns)
        if self.rule is not None:
            end_s = figures.end(last_end(columns), self.ledger.accounts)
            series = [columns[name] for name in STEADY]
            self.window = counted(columns["arrival_s"], end_s, self.rule, columns["finish_s"], series)
            columns["counted"] = self.window.mask
        self.tally.take(columns, self.window)
        if self.tallies is not None:
            self.tallies.take(columns, self.window)
            columns["class"] = self.tallies.names(columns["request_id"])
        return columns


def observe(
    name: str,
    requests: Requests | Stream,
    deployment: Deployment,
    replicas: list[Priced],
    *,
    slo: dict[str, float | None],
    classes: Classes | None = None,
    jump: bool = True,
    progress: Progress | None = None,
    sink: Sink | None = None,
    on_start: OnStart | None = None,
    unused_devices: int = 0,
    rule: Rule | None = None,
) -> Result:
    """Simulates a workload and keeps the books.

    Args:
        name: of the scenario.
        requests: the workload.
        deployment: what serves it.
        replicas: how each replica is priced.
        slo: bounds by metric name, None where unbounded.
        classes: of the requests, with bounds of their own in place of those; None where there are none.
        jump, progress, on_start: see :func:`simslm.sim.world.run`.
        sink: takes iterations, and the requests of a stream, as the run goes on; None keeps them in the result.
        unused_devices: devices that idle all the time.
        rule: which requests the figures are of, not with a stream; None = all.

    Raises:
        ScenarioError: the rule leaves no request, or no time.
    """
    streamed = isinstance(requests, Stream)
    count, router = None if streamed else len(requests.prompt_tokens), deployment.group_router
    escalates = router is not None and router().escalates
    books = _Books(replicas, count, slo, classes, sink, rule, escalates=escalates)
    log = run(
        requests,
        deployment,
        jump=jump,
        progress=progress,
        on_window=books.ledger.take if sink or streamed else None,
        on_settled=books.settle,
        on_start=on_start,
    )
    for index, window in enumerate(log.windows):
        books.ledger.take(index, window)
    columns = _joined([*books.parts, *map(books.book, log.held)])
    books.windows.sort(key=lambda window: window[0])
    if books.window is not None and not log.interrupted:
        _check(books.window)
    accounts, gaps, seconds = _over_the_time_that_counts(books)
    summary = _summary(name, books, accounts, gaps, seconds, unused_devices)
    _divide(columns, summary, books.tallies, None if streamed else _programs(requests), seconds)
    return Result(columns, summary, log, gaps, books.windows)


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The columns of requests one part after the other."""
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _programs(requests: Requests) -> ProgramColumns | None:
    """The programs that somebody described."""
    found = requests.programs
    if found is None or not found.described:
        return None
    return ProgramColumns(found.program_of, found.stage, found.parents, found.parent_ends)


def _divide(
    columns: dict[str, np.ndarray],
    summary: dict[str, Any],
    tallies: ClassTallies | None,
    programs: ProgramColumns | None,
    seconds: float,
) -> None:
    """Adds what there is to say by class and by program; ``seconds`` is the time that counts."""
    if programs is not None:
        summary["programs"] = program_figures(columns, programs)
        columns |= programs.columns(columns["request_id"])
    if tallies is not None:
        summary["slo"] = tallies.slo(seconds)
        summary["classes"] = tallies.figures(seconds)
        summary["fairness"] = fairness_figures(summary["classes"])
        if programs is not None:
            mine = tallies.classes.of[columns["request_id"]]
            for number, name in enumerate(tallies.classes.names):
                of_class = {key: column[mine == number] for key, column in columns.items()}
                whole = programs.only(tallies.classes.of == number)
                summary["classes"][name]["programs"] = program_figures(of_class, whole)


def _check(window: Counted) -> None:
    """Something counts.

    Raises:
        ScenarioError: nothing does.
    """
    arrived, left = len(window.mask), int(np.count_nonzero(window.mask))
    if not left:
        raise ScenarioError(
            f"leaves out all {arrived:,} requests that arrived", where="metrics", remedy="leave out fewer"
        )
    if not window.seconds:
        raise ScenarioError(
            "leaves out all of the run's time: the requests that count arrive at the same instant as those of the "
            "cool-down",
            where="metrics",
            remedy="leave the cool-down out",
        )


def _over_the_time_that_counts(books: _Books) -> tuple[list[Account], Distribution, float]:
    """The sums of each replica, the gaps between tokens, and how long that time is: without a window, the makespan."""
    if (window := books.window) is not None:
        return *books.ledger.between(window.begin_s, window.end_s), window.seconds
    accounts = books.ledger.accounts
    return accounts, books.ledger.token_gaps(), figures.makespan(books.tally, accounts)


def _counted(books: _Books) -> dict[str, Any]:
    """What the figures are of; nothing where they are of all requests."""
    window, rule = books.window, books.rule
    if window is None or rule is None:
        return {}
    return {
        "counted": {
            "requests": books.tally.counted,
            "warmup_requests": window.before,
            "cooldown_requests": window.after,
            "begin_s": window.begin_s,
            "end_s": window.end_s,
            "steady": window.steady,
        }
    }


def _summary(
    name: str,
    books: _Books,
    accounts: list[Account],
    gaps: Distribution,
    seconds: float,
    unused_devices: int,
) -> dict[str, Any]:
    ledger, tally = books.ledger, books.tally
    found = tally.distributions() | {"itl_s": gaps}
    latencies = {key: each.spread() for key, each in found.items()}
    cost = _weakest([priced.cost for priced in ledger.replicas])
    return {
        "schema_version": figures.SCHEMA_VERSION,
        "name": name,
        "requests": tally.counts(),
        **_counted(books),
        "makespan_s": figures.makespan(tally, ledger.accounts),
        "throughput": figures.throughput(tally, seconds),
        "ttft_s": latencies["ttft_s"],
        "tpot_s": latencies["tpot_s"],
        "itl_s": latencies["itl_s"],
        "e2e_s": latencies["e2e_s"],
        "queue_s": latencies["queue_s"],
        "population": {key: found[key].count for key in BY_KEY},
        "slo": figures.slo_figures(tally, seconds),
        "energy": figures.energy_figures(ledger.replicas, accounts, tally, seconds, unused_devices),
        "kv": figures.kv_figures(tally, ledger),
        "utilization": figures.utilization(accounts, seconds),
        "coverage": figures.coverage(ledger.accounts),
        "intervals": unknown("the run was not repeated"),
        "cost": {"source": cost.source, "engine": cost.engine} | _flags(ledger.replicas),
    }


def _flags(replicas: Sequence[Priced]) -> dict[str, Any]:
    """What the traces of the costs have to say of themselves, and whether one is not to be relied on; nothing where
    they have nothing to say."""
    found = [flag for priced in replicas for flag in flags_of(priced.cost.provenance)]
    if not found:
        return {}
    forced = any(priced.cost.provenance.get("forced") for priced in replicas)
    return {"flags": list(dict.fromkeys(found)), "forced": forced}


def _weakest(costs: list[CostModel]) -> CostModel:
    """The cost model furthest from a measurement: what the whole answer can be called."""
    return max(costs, key=lambda cost: SOURCES.index(cost.source))


def _request_columns(settled: Settled, ledger: Ledger) -> dict[str, np.ndarray]:
    """The columns of ``requests.parquet``, for those of some consecutive requests that arrived."""
    columns = dict(settled.columns)
    count = len(columns["status"])
    energy_j = ledger.release(settled.first, count)
    columns |= {
        "request_id": settled.first + np.arange(count),
        "energy_j": energy_j if ledger.energy_known else np.full(count, np.nan),
    }
    columns |= latencies(columns)
    arrived = ~np.isnan(columns["arrival_s"])
    return columns if arrived.all() else {name: column[arrived] for name, column in columns.items()}


def latencies(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What follows from the times of requests; NaN for those that never got that far."""
    arrival_s = columns["arrival_s"]
    return {
        "ttft_s": columns["first_token_s"] - arrival_s,
        "e2e_s": columns["finish_s"] - arrival_s,
        "queue_s": columns["first_scheduled_s"] - arrival_s,
        "tpot_s": _time_per_output_token(columns),
    }


def _time_per_output_token(columns: dict[str, np.ndarray]) -> np.ndarray:
    """NaN for requests with one output token."""
    decoded = columns["output_tokens"] - 1
    time = columns["finish_s"] - columns["first_token_s"]
    return np.divide(time, decoded, out=np.full(len(time), np.nan), where=decoded > 0)

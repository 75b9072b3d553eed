"""A finished run: tables of requests and iterations, a summary, and what is needed to run it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import isnan
from typing import TYPE_CHECKING, Any

import numpy as np

from simslm.cost.model import CostModel
from simslm.errors import ScenarioError
from simslm.metrics import summary as figures
from simslm.metrics.books import Books
from simslm.metrics.classes import ClassTallies, fairness_figures
from simslm.metrics.definitions import BY_KEY
from simslm.metrics.dispatch import gateway_figures, group_figures
from simslm.metrics.intervals import unknown
from simslm.metrics.iterations import IterationTable
from simslm.metrics.ledger import Account, Priced
from simslm.metrics.lifetimes import Lifetimes, fleet_figures, lifetimes
from simslm.metrics.programs import ProgramColumns, program_figures
from simslm.metrics.quantiles import Distribution
from simslm.metrics.steady import Counted
from simslm.sim.log import SimulationLog, Window
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
        end_s: when the last iteration or answer ended; 0 where there was none.
    """

    request_columns: dict[str, np.ndarray]
    summary: dict[str, Any]
    log: SimulationLog
    token_gaps: Distribution
    windows: list[tuple[int, Window, IterationTable]]
    manifest: dict[str, Any] = field(default_factory=dict)
    end_s: float = 0.0

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


def summarize(books: Books, log: SimulationLog) -> Result:
    """The result of a run.

    Args:
        books: that took the log while the run went on, as far as it was handed out.
        log: the rest of it.

    Raises:
        ScenarioError: the rule of the books leaves no request, or no time.
    """
    for index, window in enumerate(log.windows):
        books.take_window(index, window)
    columns = _joined([*books.parts, *map(books.book, log.held)])
    books.windows.sort(key=lambda window: window[0])
    if books.window is not None and not log.interrupted:
        _check(books.window)
    accounts, gaps, seconds = _over_the_time_that_counts(books)
    lived = _lived(log, books) if log.lives else None
    summary = _summary(books, log, accounts, gaps, seconds, lived)
    if lived is not None:
        summary["fleet"] = fleet_figures(log, books.basis.replicas, lived, books.basis.unused_devices)
    _divide(columns, summary, books.tallies, books.basis.programs, seconds)
    log = replace(log, moves=(*books.moves, *log.moves)) if books.moves else log
    end_s = figures.end(books.last_s, books.ledger.accounts)
    return Result(columns, summary, log, gaps, books.windows, end_s=0.0 if isnan(end_s) else end_s)


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The columns of requests one part after the other."""
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


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
    """Refuses a rule that leaves no request, or no time.

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


def _over_the_time_that_counts(books: Books) -> tuple[list[Account], Distribution, float]:
    """The sums of each replica, the gaps between tokens, and how long that time is: without a window, the makespan."""
    if (window := books.window) is not None:
        return *books.ledger.between(window.begin_s, window.end_s), window.seconds
    accounts = books.ledger.accounts
    return accounts, books.ledger.token_gaps(), figures.makespan(books.tally.first_s, books.last_s, accounts)


def _lived(log: SimulationLog, books: Books) -> Lifetimes:
    """The lifetimes of the replicas over the time that counts."""
    begin_s, end_s = books.tally.first_s, figures.end(books.last_s, books.ledger.accounts)
    if (window := books.window) is not None:
        begin_s, end_s = window.begin_s, window.end_s
    return lifetimes(log, books.basis.replicas, begin_s, begin_s if isnan(end_s) else end_s)


def _counted(books: Books) -> dict[str, Any]:
    """What the figures are of; nothing where they are of all requests."""
    window = books.window
    if window is None:
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


def _dispatched(books: Books, log: SimulationLog) -> dict[str, Any]:
    """What the gateway answered and what each group was asked, where the scenario states such policies."""
    found: dict[str, Any] = {}
    if books.basis.gateway:
        found["gateway"] = gateway_figures(log, books.tally.arrived)
    if books.basis.group_routing:
        found["group_routing"] = group_figures(log)
    return found


def _summary(
    books: Books,
    log: SimulationLog,
    accounts: list[Account],
    gaps: Distribution,
    seconds: float,
    lived: Lifetimes | None,
) -> dict[str, Any]:
    held_s, up_s = (None, None) if lived is None else (lived.held_s, lived.up_s)
    basis, ledger, tally = books.basis, books.ledger, books.tally
    found = tally.distributions() | {"itl_s": gaps}
    latencies = {key: each.spread() for key, each in found.items()}
    cost = _weakest([priced.cost for priced in ledger.replicas])
    return {
        "schema_version": figures.SCHEMA_VERSION,
        "name": basis.name,
        "requests": tally.counts(),
        **_counted(books),
        **_dispatched(books, log),
        "makespan_s": figures.makespan(tally.first_s, books.last_s, ledger.accounts),
        "throughput": figures.throughput(tally, seconds),
        "ttft_s": latencies["ttft_s"],
        "tpot_s": latencies["tpot_s"],
        "itl_s": latencies["itl_s"],
        "e2e_s": latencies["e2e_s"],
        "queue_s": latencies["queue_s"],
        "population": {key: found[key].count for key in BY_KEY},
        "slo": figures.slo_figures(tally, seconds),
        "energy": figures.energy_figures(
            ledger.replicas, accounts, tally, seconds, basis.unused_devices, held_s
        ),
        "kv": figures.kv_figures(tally, ledger, log.faulted.get("lost_work", 0)),
        "utilization": figures.utilization(accounts, seconds, up_s),
        "coverage": figures.coverage(ledger.accounts),
        "intervals": unknown("the run was not repeated"),
        "cost": {"source": cost.source, "engine": cost.engine} | _flags(ledger.replicas),
    }


def _flags(replicas: Sequence[Priced]) -> dict[str, Any]:
    """The warnings that come with the traces of the costs, and whether one of them was forced; nothing without
    warnings."""
    found = [flag for priced in replicas for flag in flags_of(priced.cost.provenance)]
    if not found:
        return {}
    forced = any(priced.cost.provenance.get("forced") for priced in replicas)
    return {"flags": list(dict.fromkeys(found)), "forced": forced}


def _weakest(costs: list[CostModel]) -> CostModel:
    """The cost model furthest from a measurement; the whole answer is named after its source."""
    return max(costs, key=lambda cost: SOURCES.index(cost.source))

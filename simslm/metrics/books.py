"""The books of a run: its log comes in piece by piece and goes on as tables; sums and distributions stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from simslm.metrics.classes import Classes, ClassTallies
from simslm.metrics.columns import request_columns
from simslm.metrics.iterations import IterationTable
from simslm.metrics.ledger import Ledger, Priced
from simslm.metrics.programs import ProgramColumns
from simslm.metrics.steady import STEADY, Counted, Rule, counted
from simslm.metrics.summary import end
from simslm.metrics.tally import Tally
from simslm.sim.log import FINISHED, Move, Settled, Window


@dataclass(frozen=True, kw_only=True)
class Basis:
    """What the figures of a run are based on, known before it begins.

    Attributes:
        name: of the scenario.
        replicas: how each is priced.
        requests: how many the workload has; None for a stream.
        slo: bounds by metric name, None where unbounded.
        classes: of the requests, with bounds of their own in place of those; None where there are none.
        programs: of the requests, where the scenario describes them; None elsewhere.
        unused_devices: devices that idle all the time.
        rule: which requests the figures are of, not with a stream; None = all.
        gateway: whether a gateway may answer requests.
        group_routing: whether a policy is stated that chooses groups, so that what each was asked is told.
        escalates: whether it may judge answers, so that several groups serve a request.
    """

    name: str
    replicas: list[Priced]
    requests: int | None
    slo: Mapping[str, float | None] = field(default_factory=dict)
    classes: Classes | None = None
    programs: ProgramColumns | None = None
    unused_devices: int = 0
    rule: Rule | None = None
    gateway: bool = False
    group_routing: bool = False
    escalates: bool = False


class TableSink(Protocol):
    """Takes the tables of a run while it goes on, so that memory does not grow with it."""

    def take(self, replica: int, window: Window, table: IterationTable) -> None:
        """A window of the log of a replica, by number, and the window's iterations with their cost."""
        ...

    def take_requests(self, columns: dict[str, np.ndarray]) -> None:
        """Requests that are over, in order of their numbers; the columns are those of ``requests.parquet``."""
        ...

    def take_moves(self, moves: Sequence[Move]) -> None:
        """Moves of requests between replicas, in order."""
        ...


class Forget:
    """A sink that keeps nothing: the summary is all that is wanted."""

    def take(self, replica: int, window: Window, table: IterationTable) -> None:
        """The iterations are dropped."""

    def take_requests(self, columns: dict[str, np.ndarray]) -> None:
        """The requests are dropped."""

    def take_moves(self, moves: Sequence[Move]) -> None:
        """The moves are dropped."""


class Books:
    """Takes the log of a run, see :class:`~simslm.sim.log.LogSink`.

    Args:
        basis: what the figures are based on.
        sink: takes the tables; None keeps them.

    Attributes:
        ledger: sums over the iterations, token gaps, and the energy of each request.
        last_s: end of the last answer, s; -inf before any.
        tally, tallies: counts and latencies of the requests, of all and by class (None without classes).
        window: the requests that count and their time, once they are booked; None where all count. With a rule all
            requests are booked at once, at the end.
        windows: the iterations of each replica with their tables; empty where a sink took them.
        parts: the columns of the requests that are booked; empty where a sink took them.
        moves: of requests between replicas; empty where a sink took them.
    """

    def __init__(self, basis: Basis, sink: TableSink | None = None) -> None:
        self.basis = basis
        self.last_s = float("-inf")
        self.window: Counted | None = None
        self.windows: list[tuple[int, Window, IterationTable]] = []
        self.parts: list[dict[str, np.ndarray]] = []
        self.moves: list[Move] = []
        self.tally = Tally(basis.slo)
        self.tallies = None if basis.classes is None else ClassTallies(basis.classes)
        taken = self._keep if sink is None else sink.take
        self.ledger = Ledger(basis.replicas, basis.requests, taken, timed=basis.rule is not None)
        self._pass_on = self.parts.append if sink is None else sink.take_requests
        self._pass_moves_on = self.moves.extend if sink is None else sink.take_moves

    def take_window(self, replica: int, window: Window) -> None:
        """Books the iterations of a window."""
        self.ledger.take(replica, window)

    def take_requests(self, settled: Settled) -> None:
        """Books requests that are over, and passes them on."""
        self._pass_on(self.book(settled))

    def take_moves(self, moves: Sequence[Move]) -> None:
        """Passes moves on."""
        self._pass_moves_on(moves)

    def book(self, settled: Settled) -> dict[str, np.ndarray]:
        """Books requests whose iterations have all been booked, and gives their columns."""
        columns = request_columns(settled, self.ledger)
        if not self.basis.escalates:
            del columns["escalations"]
        self.ledger.take_answers(columns)
        done = columns["status"] == FINISHED
        self.last_s = max(self.last_s, float(np.max(columns["finish_s"], where=done, initial=-np.inf)))
        if (rule := self.basis.rule) is not None:
            series = [columns[name] for name in STEADY]
            end_s = end(self.last_s, self.ledger.accounts)
            self.window = counted(columns["arrival_s"], end_s, rule, columns["finish_s"], series)
            columns["counted"] = self.window.mask
        self.tally.take(columns, self.window)
        if self.tallies is not None:
            self.tallies.take(columns, self.window)
            columns["class"] = self.tallies.names(columns["request_id"])
        return columns

    def _keep(self, replica: int, window: Window, table: IterationTable) -> None:
        self.windows.append((replica, window, table))

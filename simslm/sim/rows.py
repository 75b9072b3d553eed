"""The requests that a simulation holds: rows of columns, filled a piece of the workload at a time.

Invariants: a row is one request's from when its piece is loaded until the piece is let go, and by then the request is
over; pieces are let go in the order in which they were loaded; a workload in one piece has each request in the row of
its number.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from simslm.sim.log import UNFINISHED, RequestLog, Settled
from simslm.sim.programs import Programs
from simslm.sim.state.sequence import Sequence as InFlight


class ClosedLoop(Protocol):
    """Clients that each send the next request when the last is answered, ``think_time_s`` later, and where they are
    ``paced`` not before it is due, while there are requests and it is not yet ``until_s``."""

    @property
    def concurrency(self) -> int: ...
    @property
    def think_time_s(self) -> float: ...
    @property
    def until_s(self) -> float | None: ...
    @property
    def paced(self) -> bool: ...


class Requests(Protocol):
    """The workload, one entry per request, in order of arrival; None where a column does not apply.

    Attributes:
        priority: the lower, the sooner.
        session_id: the conversation a request belongs to.
        units: hashes of each prompt's prefix, of ``unit_tokens`` tokens each.
        context_units: the same of each prompt and its output together, as far as another prompt may go on from there.
        patience_s: how long a client waits for its last token before it goes.
        closed_loop: how arrivals follow completions; then ``arrival_s`` is when each is due at the earliest.
        programs: how requests follow each other; then neither of the two applies.
    """

    @property
    def arrival_s(self) -> np.ndarray: ...
    @property
    def prompt_tokens(self) -> np.ndarray: ...
    @property
    def output_tokens(self) -> np.ndarray: ...
    @property
    def max_tokens(self) -> np.ndarray: ...
    @property
    def priority(self) -> np.ndarray | None: ...
    @property
    def session_id(self) -> np.ndarray | None: ...
    @property
    def units(self) -> Sequence[Sequence[int]] | None: ...
    @property
    def unit_tokens(self) -> int: ...
    @property
    def context_units(self) -> Sequence[Sequence[int]] | None: ...
    @property
    def patience_s(self) -> np.ndarray | None: ...
    @property
    def closed_loop(self) -> ClosedLoop | None: ...
    @property
    def programs(self) -> Programs | None: ...


@runtime_checkable
class Stream(Protocol):
    """A workload that is too long to hold.

    Attributes:
        count: requests of all pieces.
        most: of one piece.
        closed_loop: see :class:`Requests`; requests that follow each other otherwise have no pieces.
    """

    @property
    def count(self) -> int: ...
    @property
    def most(self) -> int: ...
    @property
    def closed_loop(self) -> ClosedLoop | None: ...

    def pieces(self) -> Iterator[Requests]:
        """The requests in order of arrival, from the first; the same columns are None in all pieces."""
        ...


@dataclass(frozen=True, slots=True)
class _Piece:
    """Requests that were loaded together: the number of the first, its row, and how many they are."""

    first: int
    row: int
    count: int

    @property
    def rows(self) -> slice:
        return slice(self.row, self.row + self.count)


_WHOLE, _REAL = ("prompt_tokens", "output_tokens", "max_tokens"), ("due_s", "arrived_s")
_PERHAPS = ("priority", "session_id", "patience_s", "units", "context_units")
_GIVEN = ("program", "stage", "allowed_s", "able")


class RequestRows:
    """The rows, as Python's own arrays: one element is read several times faster than from numpy's.

    Args:
        most: requests of one piece.

    Attributes:
        prompt_tokens, output_tokens, max_tokens: of each request.
        due_s: when it arrives, as the workload says.
        arrived_s: when it did, NaN before.
        servable: whether any group that it may go to can serve it at all.
        able: number of the set of groups that can; None where all go to one group.
        priority, session_id, patience_s, units, context_units: see :class:`Requests`.
        program, stage: the program it belongs to, and how far it is from its start; None without programs.
        allowed_s: from its first arrival to when its last token is due; None where none is.
        described: whether there is one of those that policies see.
        log: what became of it.
        row, stop: the rows from which on, and before which, requests of the last piece have not been sent.
        ahead: number of a request of the last piece minus its row.
        loaded: requests of all pieces so far.
    """

    __slots__ = (
        "_free", "_most", "_pieces", "able", "ahead", "allowed_s", "arrived_s", "context_units", "described", "due_s",
        "loaded", "log", "max_tokens", "output_tokens", "patience_s", "priority", "program", "prompt_tokens", "row",
        "servable", "session_id", "stage", "stop", "unit_tokens", "units",
    )  # fmt: skip

    def __init__(self, most: int) -> None:
        self.prompt_tokens, self.output_tokens, self.max_tokens = array("q"), array("q"), array("q")
        self.due_s, self.arrived_s = array("d"), array("d")
        self.servable = bytearray()
        self.able: list[int] | None = None
        self.program: list[int] | None = None
        self.stage: list[int] | None = None
        self.allowed_s: list[float] | None = None
        self.priority: list[int] | None = None
        self.session_id: list[int] | None = None
        self.patience_s: list[float] | None = None
        self.units: list[Sequence[int]] | None = None
        self.context_units: list[Sequence[int]] | None = None
        self.unit_tokens = 0
        self.described = False
        self.log = RequestLog()
        self.row = self.stop = self.ahead = 0
        self._most = most
        self.loaded = 0
        self._pieces: deque[_Piece] = deque()
        self._free: list[int] = []

    def __len__(self) -> int:
        """Rows, taken or free."""
        return len(self.arrived_s)

    def load(self, requests: Requests, servable: np.ndarray, **given: np.ndarray | None) -> None:
        """A piece of the workload takes rows; all requests of the one before have been sent.

        Args:
            requests: of the piece.
            servable: see above, shape ``(requests,)``.
            given: ``program``, ``stage``, ``allowed_s`` and ``able``, where there are such.
        """
        row = self._free.pop() if self._free else self._more()
        piece = _Piece(self.loaded, row, len(requests.prompt_tokens))
        self._pieces.append(piece)
        self.loaded += piece.count
        self.row, self.stop, self.ahead = row, piece.rows.stop, piece.first - row
        for name in _WHOLE:
            _view(getattr(self, name))[piece.rows] = getattr(requests, name)
        _view(self.due_s)[piece.rows] = requests.arrival_s
        _view(self.arrived_s)[piece.rows] = np.nan
        self.servable[piece.rows] = servable.tobytes()
        self.log.clear(piece.rows)
        self.unit_tokens = requests.unit_tokens
        for name in _PERHAPS:
            self._put(name, piece.rows, getattr(requests, name))
        for name in _GIVEN:
            self._put(name, piece.rows, given.get(name))
        shown = (*_PERHAPS, *_GIVEN[:-1])
        self.described = any(getattr(self, name) is not None for name in shown)

    def describe(self, sequence: InFlight) -> None:
        """Tells a request that is about to be served what its row says beside its lengths."""
        row = sequence.row
        if self.priority is not None:
            sequence.priority = self.priority[row]
        if self.session_id is not None:
            sequence.session_id = self.session_id[row]
        if self.units is not None:
            sequence.units, sequence.unit_tokens = self.units[row], self.unit_tokens
            if self.context_units is not None:
                sequence.context_units = self.context_units[row]
        if self.program is not None and self.stage is not None:
            sequence.program, sequence.stage = self.program[row], self.stage[row]
        if self.allowed_s is not None:
            sequence.deadline_s = self.arrived_s[row] + self.allowed_s[row]

    def over(self, lingering: Iterable[int] = ()) -> int:
        """How many pieces, from the oldest on, have no request that is still to be sent or answered, or has a row of
        ``lingering``: an iteration for it is still to come."""
        status = _view(self.log.status)
        busy = set(lingering)
        count = 0
        for piece in self._pieces:
            rows = range(piece.rows.start, piece.rows.stop)
            if (status[piece.rows] == UNFINISHED).any() or any(row in rows for row in busy):
                break
            count += 1
        return count

    def let_go(self) -> Settled:
        """What became of the oldest piece, whose rows are free from now on."""
        piece = self._pieces.popleft()
        self._free.append(piece.row)
        return Settled(piece.first, {name: column.copy() for name, column in self._columns(piece).items()})

    def held(self) -> tuple[Settled, ...]:
        """What has become of the pieces that are still there, as arrays that share their memory."""
        return tuple(Settled(piece.first, self._columns(piece)) for piece in self._pieces)

    def gone(self, request: int) -> bool:
        """Whether the request of a number has been let go."""
        return not self._pieces or request < self._pieces[0].first

    def _columns(self, piece: _Piece) -> dict[str, np.ndarray]:
        own = {"arrival_s": self.arrived_s} | {name: getattr(self, name) for name in _WHOLE[:2]}
        return {
            name: column[piece.rows]
            for name, column in (self.log.columns() | {n: _view(c) for n, c in own.items()}).items()
        }

    def _more(self) -> int:
        """Room for one more piece, and the row where it begins."""
        row = len(self)
        for name in (*_WHOLE, *_REAL):
            column = getattr(self, name)
            column.frombytes(bytes(self._most * column.itemsize))
        rows = slice(row, row + self._most)
        _view(self.arrived_s)[rows] = np.nan
        self.servable.extend(bytes(self._most))
        self.log.extend(self._most)
        self.log.clear(rows)
        return row

    def _put(self, name: str, rows: slice, values: Any) -> None:
        """Fills in a column that not every workload has; that of a whole workload is taken as it is."""
        if values is None:
            return
        column, values = getattr(self, name), values.tolist() if isinstance(values, np.ndarray) else values
        if column is None and rows == slice(0, self._most):
            setattr(self, name, values)
            return
        if column is None:
            setattr(self, name, column := [])
        column.extend([None] * (rows.stop - len(column)))
        column[rows] = values


def _view(column: array[Any]) -> np.ndarray:
    """A column as a numpy array that shares its memory; while it is there the column cannot grow."""
    return np.asarray(column)

"""The requests of a run as columns: when each arrives, how long it is, and what it declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """Arrivals that wait for completions: the simulator sends them, as no array can know when.

    Attributes:
        concurrency: clients; each sends its first request at time 0, or when it is due.
        think_time_s: pause of a client between a completion and its next request.
        until_s: no request is sent at or after this time; None = until the requests run out.
        paced: whether a request is not sent before it is due either.
    """

    concurrency: int
    think_time_s: float = 0.0
    until_s: float | None = None
    paced: bool = False


@dataclass(frozen=True, slots=True)
class ProgramClients(ClosedLoop):
    """Clients that each start a program when their last one is over.

    Attributes:
        programs: the programs they start, int64, in this order.
    """

    programs: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


@dataclass(frozen=True, slots=True)
class ProgramArrays:
    """Which requests wait for which; see :class:`simslm.sim.programs.Programs`.

    Attributes:
        program_of: the program of each request, int64, never decreasing, from 0 without gaps.
        start_s: when each program starts, float64, seconds; NaN where clients start it.
        parents: the requests each request depends on, one request after the other, int64, each smaller than it.
        parent_ends: where the parents of each request end in ``parents``, int64.
        delay_s: pause of each request after the last of those, or after its program's start, float64, seconds.
        clients: who starts the programs without a time.
        described: whether the workload describes programs; otherwise each request is a program by itself, because
            clients of several kinds send them.
    """

    program_of: np.ndarray
    start_s: np.ndarray
    parents: np.ndarray
    parent_ends: np.ndarray
    delay_s: np.ndarray
    clients: tuple[ProgramClients, ...] = ()
    described: bool = True

    @property
    def stage(self) -> np.ndarray:
        """Requests on the longest way from a program's start to each request, itself not counted, int64."""
        stages = [0] * len(self.parent_ends)
        parents, begin = self.parents.tolist(), 0
        for request, end in enumerate(self.parent_ends.tolist()):
            stages[request] = max((stages[parent] + 1 for parent in parents[begin:end]), default=0)
            begin = end
        return np.array(stages, dtype=np.int64)


COLUMNS = (
    "arrival_s",
    "prompt_tokens",
    "output_tokens",
    "max_tokens",
    "priority",
    "session_id",
    "units",
    "context_units",
    "patience_s",
    "elapsed_s",
    "pause_s",
    "class_of",
)
"""What has an element for each request."""


@dataclass(frozen=True, slots=True)
class RequestArrays:
    """The requests of a run in order of arrival, one element per request.

    Attributes:
        arrival_s: seconds, float64, never decreasing; under ``closed_loop`` when each is due, before which its client
            does not send it, 0 without a rate; the start of each request's program where there are ``programs``, 0
            where clients start it.
        prompt_tokens: int64, at least 1.
        output_tokens: int64, at least 1: the true length, which policies never see.
        max_tokens: int64, at least 1: the declared limit on the output, which they do.
        source: where the requests come from, for reports.
        dropped: rows of a trace that are no requests, counted by reason.
        notes: what a reader of the results should know about the workload.
        closed_loop: how arrivals follow completions; None when ``arrival_s`` says it all.
        priority: int64, the lower the sooner; None when all are equal.
        session_id: int64, the conversation a request belongs to, -1 for none; None where it is not known.
        units: hashes of each prompt's prefix, one per ``unit_tokens`` tokens, the last perhaps of fewer; equal
            hashes mean equal prompts up to there. None when they are not known.
        unit_tokens: tokens of one unit, 0 without units.
        context_units: units of each prompt and its output together, full ones only, as far as another prompt may go on
            from there; None when none does.
        patience_s: how long each client waits for its last token before it goes, inf for ever; None = all do.
        elapsed_s: how long each answer took when the trace was recorded, NaN where that is not known; None where none
            is known.
        pause_s: from the answer before it in its session to each request, as the trace states it, NaN where it does
            not; None where it states none.
        programs: how requests follow each other; None when ``arrival_s`` or ``closed_loop`` says it all.
        class_of: the class of each request by its place in ``classes``, int64; None where there are no classes.
        classes: their names.
    """

    arrival_s: np.ndarray
    prompt_tokens: np.ndarray
    output_tokens: np.ndarray
    max_tokens: np.ndarray
    source: str
    dropped: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    closed_loop: ClosedLoop | None = None
    priority: np.ndarray | None = None
    session_id: np.ndarray | None = None
    units: Sequence[Sequence[int]] | None = None
    unit_tokens: int = 0
    context_units: Sequence[Sequence[int]] | None = None
    patience_s: np.ndarray | None = None
    elapsed_s: np.ndarray | None = None
    pause_s: np.ndarray | None = None
    programs: ProgramArrays | None = None
    class_of: np.ndarray | None = None
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def columns(self) -> dict[str, Any]:
        """What is known of each request, by name."""
        found = {name: getattr(self, name) for name in COLUMNS}
        return {name: column for name, column in found.items() if column is not None}

    def part(self, rows: slice) -> RequestArrays:
        """Some of the requests, none of which waits for others."""
        return replace(self, **{name: _part(column, rows) for name, column in self.columns.items()})

    @property
    def mean_tokens(self) -> tuple[float, float]:
        """Mean tokens of a prompt and of an output."""
        return float(np.mean(self.prompt_tokens)), float(np.mean(self.output_tokens))

    @property
    def arrival_rate_rps(self) -> float | None:
        """Requests per second between the first and the last arrival, of programs between the first and the last start;
        None where that is no rate, or clients of a closed loop send some of them."""
        if self.programs is not None and self.programs.clients:
            return None
        span_s = float(self.arrival_s[-1] - self.arrival_s[0]) if len(self) > 1 else 0.0
        return (len(self) - 1) / span_s if span_s > 0 else None


def _part(column: Sequence[Any], rows: slice) -> Sequence[Any]:
    """A part of a column, which may be made on demand."""
    if isinstance(column, np.ndarray | list):
        return column[rows]
    return [column[row] for row in range(*rows.indices(len(column)))]

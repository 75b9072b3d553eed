"""The requests of a run as columns: when each arrives, how long it is, and what it declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """Arrivals that wait for completions: the simulator sends them, as no array can know when.

    Attributes:
        concurrency: clients; each sends its first request at time 0.
        think_time_s: pause of a client between a completion and its next request.
        until_s: no request is sent at or after this time; None = until the requests run out.
    """

    concurrency: int
    think_time_s: float = 0.0
    until_s: float | None = None


@dataclass(frozen=True, slots=True)
class RequestArrays:
    """The requests of a run in order of arrival, one element per request.

    Attributes:
        arrival_s: seconds, float64, never decreasing; all 0 under ``closed_loop``, where they do not apply.
        prompt_tokens: int64, at least 1.
        output_tokens: int64, at least 1: the true length, which policies never see.
        max_tokens: int64, at least 1: the declared limit on the output, which they do.
        source: where the requests come from, for reports.
        dropped: rows of a trace that are no requests, counted by reason.
        notes: what a reader of the results should know about the workload.
        closed_loop: how arrivals follow completions; None when ``arrival_s`` says it all.
        priority: int64, the lower the sooner; None when all are equal.
        session_id: int64, the conversation a request belongs to, -1 for none; None when nobody says.
        units: hashes of each prompt's prefix, one per ``unit_tokens`` tokens, the last perhaps of fewer; equal
            hashes mean equal prompts up to there. None when they are not known.
        unit_tokens: tokens of one unit, 0 without units.
        patience_s: how long each client waits for its last token before it goes, inf for ever; None = all do.
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
    units: Sequence[tuple[int, ...]] | None = None
    unit_tokens: int = 0
    patience_s: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def arrival_rate_rps(self) -> float | None:
        """Requests per second between the first and the last arrival; None where that is no rate."""
        span_s = float(self.arrival_s[-1] - self.arrival_s[0]) if len(self) > 1 else 0.0
        return (len(self) - 1) / span_s if span_s > 0 else None

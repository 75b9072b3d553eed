"""What the figures of some requests follow from, counted a part of the requests at a time.

Memory does not grow with the requests: latencies are kept one by one up to :data:`MOST_LATENCIES` of a kind, and beyond
that those are merged that agree in 13 binary digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from simslm.metrics.quantiles import Pool, pooled
from simslm.sim.log import FINISHED, STATUS

MOST_LATENCIES = 1 << 20
"""Requests up to which each latency is kept; of more, percentiles are right to 0.013 %."""

LATENCY_COLUMNS = ("ttft_s", "tpot_s", "e2e_s", "queue_s")

Columns = Mapping[str, np.ndarray]
Bounds = Mapping[str, float | np.ndarray | None]


@dataclass(slots=True)
class Tally:
    """Counts and sums over requests that arrived.

    Attributes:
        bounds: on each latency, of all requests; None where there is none.
        statuses: requests by status, see :data:`~simslm.sim.log.STATUS`.
        first_s: the earliest arrival, inf before any.
        prompt_tokens, output_tokens, cached_tokens, in_system_s: of those that finished: tokens, prompt tokens that
            were cached, and seconds from arrival to end.
        preemptions, recomputed_tokens: of all.
        good, good_tokens: those that finished within every bound, and their output tokens.
        latencies: by name, of those that got that far.
    """

    bounds: Bounds = field(default_factory=dict)
    statuses: np.ndarray = field(default_factory=lambda: np.zeros(len(STATUS), dtype=np.int64))
    first_s: float = float("inf")
    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    in_system_s: float = 0.0
    preemptions: int = 0
    recomputed_tokens: int = 0
    good: int = 0
    good_tokens: int = 0
    latencies: dict[str, Pool] = field(default_factory=lambda: {name: Pool() for name in LATENCY_COLUMNS})

    @classmethod
    def of(cls, columns: Columns, bounds: Bounds | None = None) -> Tally:
        """That of some requests alone, each held to bounds of its own where those are arrays."""
        tally = cls(bounds or {})
        tally.take(columns)
        return tally

    def take(self, columns: Columns) -> None:
        """Counts some more requests; the columns are those of ``requests.parquet``, ``status`` in numbers."""
        status, output = columns["status"], columns["output_tokens"]
        if not len(status):
            return
        done = status == FINISHED
        self.statuses += np.bincount(status, minlength=len(STATUS))
        self.prompt_tokens += int(columns["prompt_tokens"][done].sum())
        self.output_tokens += int(output[done].sum())
        self.in_system_s += float(columns["e2e_s"][done].sum())
        for name, pool in self.latencies.items():
            known = columns[name]
            pool.add(known[~np.isnan(known)], MOST_LATENCIES)
        self.first_s = min(self.first_s, float(np.min(columns["arrival_s"])))
        self.preemptions += int(columns["preemptions"].sum())
        self.recomputed_tokens += int(columns["recomputed_tokens"].sum())
        self.cached_tokens += int(columns["cached_prompt_tokens"][done].sum())
        self._judge(columns, done)

    def _judge(self, columns: Columns, done: np.ndarray) -> None:
        """A request with one output token meets ``tpot_s``."""
        good = done.copy()
        for name, bound in self.bounds.items():
            if bound is not None:
                good &= ~(columns[name] > bound)
        self.good += int(np.count_nonzero(good))
        self.good_tokens += int(columns["output_tokens"][good].sum())

    @property
    def arrived(self) -> int:
        return int(self.statuses.sum())

    @property
    def finished(self) -> int:
        return int(self.statuses[FINISHED])

    def counts(self) -> dict[str, int]:
        return {"arrived": self.arrived} | dict(zip(STATUS, self.statuses.tolist(), strict=True))

    def spreads(self) -> dict[str, Any]:
        """Of each latency; requests that never got that far do not count."""
        return {name: pooled([pool]).spread() for name, pool in self.latencies.items()}

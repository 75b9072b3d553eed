"""What the figures of some requests follow from, counted a part of the requests at a time.

Memory does not grow with the requests: latencies are kept one by one up to :data:`MOST_LATENCIES` of a kind, and beyond
that those are merged that agree in 13 binary digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from simslm.metrics.quantiles import Distribution, Pool, pooled
from simslm.metrics.steady import Counted
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
        statuses: all requests by status, see :data:`~simslm.sim.log.STATUS`.
        first_s: the earliest arrival, inf before any.
        preemptions, recomputed_tokens: of all.
        processed_tokens, computed_tokens, cached_tokens: of all that finished, on every replica that served them:
            prompt tokens, prompt and output tokens that were computed, and prompt tokens that were cached.
        counted: requests that the latencies and the SLO are of; all of them where nothing is left out.
        done, prompt_tokens, output_tokens, in_system_s: of those that finished in the time that counts:
            how many, tokens, and seconds from arrival to end.
        good, good_tokens: those that count and finished within every bound, and their output tokens.
        latencies: by name, of those that count and got that far.
    """

    bounds: Bounds = field(default_factory=dict)
    statuses: np.ndarray = field(default_factory=lambda: np.zeros(len(STATUS), dtype=np.int64))
    first_s: float = float("inf")
    counted: int = 0
    done: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    processed_tokens: int = 0
    computed_tokens: int = 0
    cached_tokens: int = 0
    in_system_s: float = 0.0
    preemptions: int = 0
    recomputed_tokens: int = 0
    good: int = 0
    good_tokens: int = 0
    latencies: dict[str, Pool] = field(default_factory=lambda: {name: Pool() for name in LATENCY_COLUMNS})

    @classmethod
    def of(cls, columns: Columns, bounds: Bounds | None = None) -> Tally:
        """A tally of some of the requests; where bounds are arrays, each request has a bound of its own."""
        tally = cls(bounds or {})
        tally.take(columns)
        return tally

    def take(self, columns: Columns, window: Counted | None = None) -> None:
        """Counts some more requests.

        Args:
            columns: those of ``requests.parquet``, ``status`` in numbers; with a window also ``counted``, which of them
                its mask has.
            window: the time that counts; None = all of it.
        """
        status = columns["status"]
        if not len(status):
            return
        self.statuses += np.bincount(status, minlength=len(STATUS))
        self.first_s = min(self.first_s, float(np.min(columns["arrival_s"])))
        self.preemptions += int(columns["preemptions"].sum())
        self.recomputed_tokens += int(columns["recomputed_tokens"].sum())
        done = status == FINISHED
        served = done & (columns["replica"] >= 0) if "replica" in columns else done
        times = 1 + columns["escalations"][served] if "escalations" in columns else 1
        prompts, outputs = (
            int((columns[name][served] * times).sum()) for name in ("prompt_tokens", "output_tokens")
        )
        cached = int(columns["cached_prompt_tokens"][served].sum())
        self.processed_tokens += prompts
        self.cached_tokens += cached
        self.computed_tokens += prompts - cached + outputs
        self._add_up(columns, done if window is None else done & window.within(columns["finish_s"]))
        counts = np.ones(len(status), dtype=bool) if window is None else columns["counted"]
        self.counted += int(np.count_nonzero(counts))
        for name, pool in self.latencies.items():
            values = columns[name]
            pool.add(values[counts & ~np.isnan(values)], MOST_LATENCIES)
        self._judge(columns, done & counts)

    def _add_up(self, columns: Columns, done: np.ndarray) -> None:
        """Adds the requests that finished to the sums."""
        self.done += int(np.count_nonzero(done))
        self.prompt_tokens += int(columns["prompt_tokens"][done].sum())
        self.output_tokens += int(columns["output_tokens"][done].sum())
        self.in_system_s += float(columns["e2e_s"][done].sum())

    def _judge(self, columns: Columns, good: np.ndarray) -> None:
        """A request with one output token meets ``tpot_s``."""
        for name, bound in self.bounds.items():
            if bound is not None:
                # Not ``<=``: a latency that does not exist (TPOT of one token) is NaN and keeps every bound.
                good = good & ~(columns[name] > bound)
        self.good += int(np.count_nonzero(good))
        self.good_tokens += int(columns["output_tokens"][good].sum())

    @property
    def arrived(self) -> int:
        return int(self.statuses.sum())

    @property
    def finished(self) -> int:
        """Requests that finished, with those that are left out of the figures."""
        return int(self.statuses[FINISHED])

    def counts(self) -> dict[str, int]:
        return {"arrived": self.arrived} | dict(zip(STATUS, self.statuses.tolist(), strict=True))

    def distributions(self) -> dict[str, Distribution]:
        """The distribution of each latency, over the requests that have it."""
        return {name: pooled([pool]) for name, pool in self.latencies.items()}

    def spreads(self) -> dict[str, Any]:
        """The statistics of those distributions."""
        return {name: found.spread() for name, found in self.distributions().items()}

"""What a simulated run did, kept such that another cost model re-prices it without simulating again.

A run's schedule (which iterations, of what shape, in what order) hardly depends on what iterations cost; with all
requests there at once it does not at all. Its mean latencies are then sums of iteration latencies: each metric is a
row of weights over the distinct shapes of the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from simslm.api import prepare
from simslm.catalog.work import IterationShape
from simslm.cost.model import CostModel
from simslm.errors import UsageError
from simslm.runs.replay import scenario_of
from simslm.runs.table import MeasuredRun
from simslm.sim.log import FINISHED
from simslm.sim.world import run as simulate

METRICS = ("duration_s", "itl_mean_s", "tpot_mean_s", "ttft_mean_s")
"""Metrics that are sums over iterations."""


@dataclass(frozen=True)
class Schedule:
    """The iterations of one run.

    Attributes:
        measured: what was measured.
        shapes: its distinct iterations, columns of shape ``(n,)``.
        order: the number of the shape of every iteration, shape ``(iterations,)``.
        weights: by metric, how much a second of each shape adds to it, shape ``(n,)``.
        waits: by metric, the seconds in which nothing ran.
        output_tokens: of the finished requests.
        preemptions: how many there were.
    """

    measured: MeasuredRun
    shapes: IterationShape
    order: np.ndarray
    weights: Mapping[str, np.ndarray]
    waits: Mapping[str, float]
    output_tokens: int
    preemptions: int

    def metrics(self, latency_s: np.ndarray, startup_s: float = 0.0) -> dict[str, float]:
        """The run's metrics when its distinct iterations take ``latency_s``.

        Args:
            latency_s: of each of ``shapes``.
            startup_s: before the first iteration of a burst.
        """
        found = {name: float(self.weights[name] @ latency_s) + self.waits[name] for name in METRICS}
        if self.measured.arrivals == "all-at-once":
            found["duration_s"] += startup_s
            found["ttft_mean_s"] += startup_s
        found["output_tokens_per_s"] = self.output_tokens / found["duration_s"]
        return found


def schedule(run: MeasuredRun, cost: CostModel, dtype: str) -> Schedule:
    """Simulates a measured run with a cost model, and keeps what it did.

    Raises:
        UsageError: the run has several replicas, or requests that cannot be served.
        SimslmError: the run cannot be simulated.
    """
    if run.replicas > 1:
        raise UsageError(
            f"run {run.run!r} has {run.replicas} replicas on the device: what an iteration costs is fitted to "
            "replicas that have it to themselves",
            where=run.where,
            remedy="leave such runs out: --where 'replicas == 1'",
        )
    prepared = prepare(scenario_of(run, {"roofline": {}}, dtype=dtype))
    prepared = replace(prepared, groups=(replace(prepared.groups[0], cost=cost),))
    log = simulate(prepared.requests, prepared.deployment())
    requests, columns = log.requests.columns(), log.windows[0].columns
    if (requests["status"] != FINISHED).any():
        raise UsageError(
            f"run {run.run!r} has requests that its engine cannot serve",
            where=run.where,
            remedy="check its lengths",
        )
    tokens = np.asarray(prepared.requests.output_tokens)
    ends = columns["end_s"]
    first = np.searchsorted(ends, requests["first_token_s"])
    last = np.searchsorted(ends, requests["finish_s"])
    table = np.column_stack([columns[name] for name in IterationShape._fields])
    distinct, order = np.unique(table, axis=0, return_inverse=True)
    order = order.ravel().astype(np.int32)
    weights = _weights(first, last, tokens, len(ends))
    gaps = np.maximum(columns["start_s"] - np.concatenate([[0.0], ends[:-1]]), 0.0)
    waits = {name: float(weight @ gaps) for name, weight in weights.items()}
    waits["ttft_mean_s"] -= float(log.arrival_s.mean())
    waits["duration_s"] -= float(log.arrival_s.min())
    return Schedule(
        run,
        IterationShape(*distinct.T),
        order,
        {name: np.bincount(order, weight, len(distinct)) for name, weight in weights.items()},
        waits,
        int(tokens.sum()),
        int(requests["preemptions"].sum()),
    )


def _weights(first: np.ndarray, last: np.ndarray, tokens: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """How much a second more of each iteration adds to each metric, shape ``(count,)``.

    Args:
        first, last: the iterations of each request's first and last token.
        tokens: it puts out.
        count: iterations of the run.
    """
    decoded = np.maximum(tokens - 1, 1)
    several = tokens > 1
    between = np.where(several, 1.0 / max(int((tokens - 1).sum()), 1), 0.0)
    each = np.where(several, 1.0 / decoded / max(int(several.sum()), 1), 0.0)
    alike = np.full(len(tokens), 1.0 / len(tokens))
    return {
        "duration_s": (np.arange(count) <= last.max()).astype(float),
        "itl_mean_s": _covered(first, last, between, count),
        "tpot_mean_s": _covered(first, last, each, count),
        "ttft_mean_s": _covered(np.full_like(first, -1), first, alike, count),
    }


def _covered(after: np.ndarray, until: np.ndarray, weight: np.ndarray, count: int) -> np.ndarray:
    """Sum of the weights of those for whom an iteration comes after ``after`` and not after ``until``."""
    steps = np.zeros(count + 1)
    np.add.at(steps, after + 1, weight)
    np.add.at(steps, until + 1, -weight)
    return np.cumsum(steps)[:-1]

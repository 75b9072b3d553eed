"""What a simulated run did, kept such that another cost model re-prices it without simulating again.

Every metric of a run is a sum over iterations: a time to first token is the iterations between a request's arrival and
its first token, a gap those between two tokens, a duration all of them. So each metric is a row of weights over the
shapes of the run's iterations, and other costs re-price it at once.

When iterations take longer, the schedule changes too. In a burst or a closed loop nothing but iterations takes time, so
all times grow alike. Where arrivals keep their own times, queues grow faster than iterations, and a low rate keeps its
throughput: how much a metric follows is then simulated, with all iterations slower by :data:`SLOWER`. Re-priced metrics
hold near the costs that were simulated with; the calibration simulates again where it goes further.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from simslm.api import Found, prepare
from simslm.calibration.observed import PER_TOKEN, Observed, observed
from simslm.catalog.work import IterationShape
from simslm.cost.physical import PhysicalCost
from simslm.errors import UsageError
from simslm.runs.replay import scenario_of
from simslm.runs.table import MeasuredRun
from simslm.sim.deployment import servable
from simslm.sim.log import FINISHED
from simslm.sim.world import run as simulate

SLOWER = 1.1
"""Factor on all iterations from which is learnt how much a metric follows them."""

KEEPS_UP = 0.2
"""An engine keeps up with its arrivals while the duration follows its iterations by no more than that."""

MOST_FOLLOWED = 20.0
"""The most that a metric is taken to follow the iterations: at the edge of overload, waiting grows without bound."""

REQUESTS, FEWEST_DRAWS, MOST_DRAWS = 1500, 3, 8
"""Random arrivals are drawn again until there are so many requests in all, because those of the measurement are not
known."""

MOST_SHAPES = 1500
"""Shapes of a run beyond which alike ones are taken together."""

BIN = 0.05
"""Width of such a class in context and prompt tokens, as a share."""


@dataclass(frozen=True)
class Schedule:
    """The iterations of one run.

    Attributes:
        measured: what was measured.
        shapes: its distinct iterations, columns of shape ``(n,)``.
        weights: by metric, how much a second of each shape adds to it, shape ``(n,)``.
        simulated: the metrics, in seconds, at the cost simulated with.
        priced: what the weights make of that cost.
        follows: by metric, the relative change per relative change of all iterations.
        chance: by metric, by how much it differs from one drawing of the arrivals to the next, relative.
        output_tokens: of the finished requests.
        preemptions: how many there were.
        timeline: of the first drawing: number of the shape, start and end in seconds of each iteration.
    """

    measured: MeasuredRun
    shapes: IterationShape
    weights: Mapping[str, np.ndarray]
    simulated: Mapping[str, float]
    priced: Mapping[str, float]
    follows: Mapping[str, float]
    chance: Mapping[str, float]
    output_tokens: int
    preemptions: float
    timeline: tuple[np.ndarray, np.ndarray, np.ndarray]

    @property
    def burst(self) -> bool:
        """Whether all requests were there at once."""
        return self.measured.arrivals == "all-at-once"

    def metrics(self, latency_s: np.ndarray, startup_s: float = 0.0) -> dict[str, float]:
        """The run's metrics when its distinct iterations take ``latency_s``.

        Args:
            latency_s: of each of ``shapes``.
            startup_s: before the first iteration of a burst.
        """
        found = {
            name: value * (float(self.weights[name] @ latency_s) / self.priced[name]) ** self.follows[name]
            for name, value in self.simulated.items()
        }
        if self.burst:
            for name in ("duration_s", "ttft_mean_s", "ttft_p50_s"):
                found[name] += startup_s
        for rate, seconds in PER_TOKEN.items():
            if seconds in found:
                found[rate] = 1.0 / found[seconds]
        if self.measured.window is None:
            found["output_tokens_per_s"] = self.output_tokens / found["duration_s"]
        return found


def schedule(run: MeasuredRun, cost: PhysicalCost, dtype: str, found: Found | None = None) -> Schedule:
    """Simulates a measured run with a cost model, and keeps what it did.

    Random arrivals are drawn several times, and the metrics are means over the drawings.

    Args:
        run: what was measured.
        cost: prices its iterations.
        dtype: of weights and KV cache.
        found: what was looked up for other runs.

    Raises:
        SimslmError: see :func:`check`.
    """
    draws, lookups = range(_draws(run)), found or Found()
    observations = [_simulated(run, cost, dtype, seed, lookups) for seed in draws]
    simulated = _mean([each.metrics for each in observations])
    paced = run.paced
    slow = slowed(cost, SLOWER)
    # The same draws again with all iterations longer: how much a metric follows them is a difference under the same
    # arrivals. In a burst or a closed loop every time grows alike, and the second run would show 1.
    slower = [_simulated(run, slow, dtype, seed, lookups).metrics for seed in draws] if paced else []
    tables, weights = _joined(observations)
    distinct, order = _distinct(tables)
    weights = {name: np.bincount(order, each, len(distinct)) for name, each in weights.items()}
    shapes = IterationShape(*distinct.T)
    latency = cost.evaluate(shapes).latency_s
    first = observations[0]
    return Schedule(
        run,
        shapes,
        weights,
        simulated,
        {name: float(each @ latency) for name, each in weights.items()},
        _followed(simulated, _mean(slower)) if paced else dict.fromkeys(simulated, 1.0),
        _chance([each.metrics for each in observations], simulated),
        first.output_tokens,
        float(np.mean([each.preemptions for each in observations])),
        (order[: len(first.start_s)].astype(np.int32), first.start_s, first.end_s),
    )


def check(run: MeasuredRun, dtype: str) -> None:
    """Whether a run can be simulated.

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
    group = prepared.deployment().groups[0]
    if not servable(prepared.requests, group).all():
        raise _unserved(run)


def _unserved(run: MeasuredRun) -> UsageError:
    return UsageError(
        f"run {run.run!r} has requests that its engine cannot serve",
        where=run.where,
        remedy="check its lengths",
    )


def paced_as_measured(each: Schedule, measured_tokens_per_s: float | None) -> MeasuredRun:
    """The run with the arrival rate that its throughput tells, where its engine keeps up.

    So many random arrivals take longer or shorter than their mean says. Where throughput is that of the arrivals and
    not the engine's, it tells how long these took; as far as chance goes, which is two standard deviations.
    """
    run = each.measured
    if not run.drawn or measured_tokens_per_s is None or each.follows["duration_s"] > KEEPS_UP:
        return run
    process, rate, *cv = run.arrivals.split(":")
    simulated = each.output_tokens / each.simulated["duration_s"]
    reach = 2 * (run.spread_of_arrivals or 0.0)
    # Clipped: a throughput further off than chance is an error of the model, which the fit has to see.
    factor = float(np.clip(measured_tokens_per_s / simulated, 1 / (1 + reach), 1 + reach))
    return replace(run, arrivals=":".join([process, repr(float(rate) * factor), *cv]))


def slowed(cost: PhysicalCost, factor: float) -> PhysicalCost:
    """The same with every iteration longer by a factor."""
    times = ("host", "host_per_seq", "layer", "launch", "key")
    shares = ("weight_bandwidth", "kv_bandwidth", "compute", "prefill_attention")
    return cost.with_terms(
        {name: cost.terms[name] * factor for name in times}
        | {name: cost.terms[name] / factor for name in shares}
    )


def _draws(run: MeasuredRun) -> int:
    if not run.drawn:
        return 1
    return int(np.clip(REQUESTS // run.num_requests, FEWEST_DRAWS, MOST_DRAWS))


def _simulated(run: MeasuredRun, cost: PhysicalCost, dtype: str, seed: int, found: Found) -> Observed:
    prepared = prepare(scenario_of(run, {"roofline": {}}, dtype=dtype, seed=seed), found)
    prepared = replace(prepared, groups=(replace(prepared.groups[0], cost=cost),))
    log = simulate(prepared.requests, prepared.deployment())
    if (log.requests.columns()["status"] != FINISHED).any():
        raise _unserved(run)
    return observed(run, log, np.asarray(prepared.requests.output_tokens))


def _mean(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = [name for name in found[0] if all(name in each for each in found)] if found else []
    return {name: float(np.mean([each[name] for each in found])) for name in names}


def _followed(simulated: Mapping[str, float], slower: Mapping[str, float]) -> dict[str, float]:
    """How much each metric follows the iterations; one that does not follow at all still says a little."""
    changed = {name: slower.get(name, value) / value for name, value in simulated.items()}
    return {
        name: float(np.clip(np.log(ratio) / np.log(SLOWER), 1e-3, MOST_FOLLOWED))
        for name, ratio in changed.items()
    }


def _chance(found: Sequence[Mapping[str, float]], mean: Mapping[str, float]) -> dict[str, float]:
    """Relative standard deviation of a measured metric from the mean of several drawings."""
    if len(found) == 1:
        return dict.fromkeys(mean, 0.0)
    spread = {name: float(np.std([each[name] for each in found], ddof=1)) for name in mean}
    # The measurement is one drawing and the mean is not exact either: their variances add.
    return {name: spread[name] / mean[name] * (1 + 1 / len(found)) ** 0.5 for name in mean}


def _joined(found: Sequence[Observed]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The iterations of all drawings one after the other, and the weights of their mean."""
    names = [name for name in found[0].weights if all(name in each.weights for each in found)]
    return np.concatenate([each.table for each in found]), {
        name: np.concatenate([each.weights[name] for each in found]) / len(found) for name in names
    }


def _distinct(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct shapes, and the number of each iteration's; where they are many, alike ones are one, of their mean.

    Latency is a straight line in context but at few places, so the mean stands for a class.
    """
    distinct, order = np.unique(table, axis=0, return_inverse=True)
    if len(distinct) <= MOST_SHAPES:
        return distinct, order.ravel()
    named = IterationShape(*table.T)
    rounded = named._replace(
        decode_ctx_tokens=_class(named.decode_ctx_tokens),
        prefill_tokens=_class(named.prefill_tokens),
        prefill_ctx_tokens=_class(named.prefill_ctx_tokens),
        # Pairs follow from the other columns but for rounding: as a key they would split every class again.
        prefill_pairs=np.zeros(len(table)),
    )
    _, order = np.unique(np.column_stack(rounded), axis=0, return_inverse=True)
    order = order.ravel()
    count = np.bincount(order)
    return np.column_stack([np.bincount(order, column) / count for column in table.T]), order


def _class(values: np.ndarray) -> np.ndarray:
    return np.round(np.log1p(values) / BIN)

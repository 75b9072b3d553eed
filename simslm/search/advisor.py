"""The Batching Configuration Advisor (Recasens et al. 2025, arXiv:2503.08311): the batch limit beyond which throughput
no longer pays for latency, the KV memory that it leaves free, and replicas in that memory.

One replica for each device is simulated at every batch limit; B_opt follows from them as
:func:`simslm.runs.derived.best_batch` says. Each replica is then given the KV blocks that B_opt filled at most, and as
many replicas as fit are simulated at B_opt. Everything here is under the scenario's own seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, isfinite
from typing import Any

from simslm.api import prepare
from simslm.errors import ScenarioError
from simslm.runs.derived import MEMORY_EPSILON, REFERENCE_BATCH, best_batch, memory_freed, throughput
from simslm.scenario.schema import Scenario
from simslm.scenario.search import BATCH_LIMIT, Advisor
from simslm.search.frontier import Point
from simslm.search.objectives import ADVISED, Goals
from simslm.search.space import Parameters, Space, overridden, plain
from simslm.search.trial import FINISHED, Outcome

REPLICAS, SHARING, BLOCKS = (
    "deployment.replicas_per_device",
    "deployment.sharing",
    "deployment.engine.num_gpu_blocks",
)
MOST_REPLICAS = 64
"""On one device: the largest ``replicas_per_device`` of a scenario."""

COLUMNS = dict(
    zip(("total_tokens_per_s", "itl_mean_s", "tpot_mean_s", "kv_peak", "kv_blocks"), ADVISED, strict=True)
)
"""What an advice is made of: its figures, and their paths in a summary."""


@dataclass(frozen=True, slots=True)
class Room:
    """The memory that B_opt leaves on a device.

    Attributes:
        batch: B_opt.
        num_gpu_blocks: that a replica needs at B_opt: those it filled at most, and the watermark's.
        freed_bytes: of the KV cache that it had.
        replica_bytes: weights, activations, overhead and those blocks.
        share_bytes: what the replicas of a device have together.
        block_bytes: of one KV block.
        device_bytes: the device's memory.
        replicas: that fit.
    """

    batch: int
    num_gpu_blocks: int
    freed_bytes: int
    replica_bytes: int
    share_bytes: int
    block_bytes: int
    device_bytes: int
    replicas: int

    @property
    def counts(self) -> list[int]:
        """The numbers of replicas to simulate: 2, 4, 8, ... and the most that fit."""
        powers = [2**i for i in range(1, self.replicas.bit_length()) if 2**i <= self.replicas]
        return sorted({*powers, self.replicas} - {1})


def check(scenario: Scenario) -> None:
    """Checks that the advisor can answer for this scenario.

    Raises:
        ScenarioError: replicas differ, or span devices.
    """
    deployment, where = scenario.deployment, scenario.where("search", "method")
    if deployment.groups is not None:
        raise ScenarioError("search.method: the advisor has no answer for deployment.groups", where=where)
    if deployment.tensor_parallel_size > 1:
        raise ScenarioError(
            "search.method: the advisor puts replicas on one device, and these span "
            f"{deployment.tensor_parallel_size}",
            where=where,
            remedy="set deployment.tensor_parallel_size to 1",
        )


def batches(scenario: Scenario, space: Space) -> list[int]:
    """The batch limits to try: those of the space, else 1, 2, 4, ... up to the scenario's; and 1 and 32, which all are
    compared with."""
    stated = space.axes.get(BATCH_LIMIT, ())
    most = scenario.deployment.engine.max_num_seqs
    chosen = stated if isinstance(stated, tuple) and stated else (*_powers(most), most)
    return sorted({1, REFERENCE_BATCH, *chosen})


def _powers(most: int) -> list[int]:
    return [2**i for i in range(most.bit_length())]


def single(scenario: Scenario, batch: int) -> Parameters:
    """One replica on each device, with the memory that the scenario gives it."""
    deployment = scenario.deployment
    return _point(batch, 1, deployment.sharing, deployment.engine.num_gpu_blocks)


def shared(scenario: Scenario, room: Room) -> list[Parameters]:
    """Several replicas on each device at B_opt, each with the blocks that it needs there."""
    sharing = scenario.deployment.sharing
    way = "mps" if sharing == "none" else sharing
    return [_point(room.batch, count, way, room.num_gpu_blocks) for count in room.counts]


def _point(batch: int, replicas: int, sharing: str, blocks: int | None) -> Parameters:
    return {BATCH_LIMIT: batch, REPLICAS: replicas, SHARING: sharing, BLOCKS: blocks}


def room(method: Advisor, scenario: Scenario, singles: Mapping[int, Outcome]) -> Room | None:
    """What B_opt leaves of a device; None where there is no B_opt.

    Args:
        method: with epsilon and the latency factor.
        scenario: that is searched around.
        singles: of one replica, by batch limit.
    """
    curve = _curve(singles)
    batch = best_batch(curve, method.epsilon, method.latency_factor)
    if batch is None:
        return None
    prepared = prepare(overridden(plain(scenario), single(scenario, batch)))
    memory = prepared.groups[0].memory
    filled = round(curve[batch]["kv_peak"] * memory.num_gpu_blocks)
    watermark = scenario.deployment.engine.watermark
    needed = min(max(ceil(filled / (1 - watermark)), 1), memory.num_gpu_blocks)
    replica = memory.weights + memory.activations + memory.process + needed * memory.block
    fitting = min(max(memory.share // replica, 1), MOST_REPLICAS)
    freed = (memory.num_gpu_blocks - needed) * memory.block
    return Room(
        batch,
        needed,
        freed,
        replica,
        memory.share,
        memory.block,
        prepared.device.memory_bytes,
        fitting,
    )


def _curve(singles: Mapping[int, Outcome]) -> dict[int, dict[str, float]]:
    """The figures of each batch limit under which every request was served: only those compare."""
    return {
        batch: {name: outcome.values[path] for name, path in COLUMNS.items()}
        for batch, outcome in sorted(singles.items())
        if outcome.status == FINISHED and _served(outcome)
    }


def _served(outcome: Outcome) -> bool:
    return all(isfinite(outcome.values[path]) for path in ADVISED)


def advice(method: Advisor, scenario: Scenario, goals: Goals, known: Sequence[Point]) -> dict[str, Any]:
    """What ``frontier.json`` says of B_opt, of the memory that it frees, and of replicas in that memory.

    Args:
        method: with epsilon and the latency factor.
        scenario: that was searched around.
        goals: whose constraints what is recommended keeps.
        known: every point of the search.
    """
    able = [point for point in known if point.outcomes]
    singles = {point.parameters[BATCH_LIMIT]: point for point in able if point.parameters[REPLICAS] == 1}
    outcomes = {batch: point.outcomes[0] for batch, point in singles.items()}
    curve = _curve(outcomes)
    found: dict[str, Any] = {
        "epsilon": method.epsilon,
        "latency_factor": method.latency_factor,
        "curve": _rows(curve),
        "best_batch": None,
        "memory": None,
        "best_single": None,
        "largest_batch": None,
        "replicas": [],
        "recommended": None,
    }
    space = room(method, scenario, outcomes)
    if space is None:
        return found | {"reason": _why_none(curve)}
    rates = throughput(curve)
    best = max(rates, key=lambda batch: rates[batch])
    choices = [
        point for point in able if point.parameters[BATCH_LIMIT] == space.batch and _served(point.outcomes[0])
    ]
    rows = [_gained(goals, point, rates[best], rates[max(rates)], curve) for point in choices]
    rows.sort(key=lambda row: row["replicas"])
    keeping = [row for row in rows if row["keeps_constraints"]]
    chosen = max(keeping, key=lambda row: row["total_tokens_per_s"], default=None)
    return found | {
        "reason": "",
        "best_batch": space.batch,
        "memory": _memory(method, curve, space),
        "best_single": {"max_num_seqs": best, "total_tokens_per_s": rates[best]},
        "largest_batch": {"max_num_seqs": max(rates), "total_tokens_per_s": rates[max(rates)]},
        "replicas": rows,
        "recommended": None if chosen is None else chosen["point"],
    }


def _rows(curve: Mapping[int, Mapping[str, float]]) -> list[dict[str, Any]]:
    """The curve of one replica, and what B_opt is found by."""
    alone, reference = curve.get(1), curve.get(REFERENCE_BATCH)
    return [
        {
            "max_num_seqs": batch,
            **figures,
            "efficiency": None
            if alone is None
            else figures["total_tokens_per_s"] / (batch * alone["total_tokens_per_s"]),
            "latency_ratio": None if reference is None else figures["itl_mean_s"] / reference["itl_mean_s"],
        }
        for batch, figures in curve.items()
    ]


def _why_none(curve: Mapping[int, Any]) -> str:
    missing = [batch for batch in (1, REFERENCE_BATCH) if batch not in curve]
    if missing:
        return (
            f"B_opt is relative to batch limits 1 and {REFERENCE_BATCH}, and {missing[0]} could not be simulated, or "
            "rejected requests"
        )
    return "no batch limit pays off within the latency that is allowed"


def _memory(method: Advisor, curve: Mapping[int, Mapping[str, float]], space: Room) -> dict[str, Any]:
    """Where the memory goes; the share freed is the study's figure, with B by mean TPOT and epsilon 0.1."""
    batch = best_batch(curve, MEMORY_EPSILON, method.latency_factor, "tpot_mean_s")
    cache = 0.0 if batch is None else curve[batch]["kv_blocks"] * space.block_bytes
    return {
        "num_gpu_blocks": space.num_gpu_blocks,
        "freed_bytes": space.freed_bytes,
        "replica_bytes": space.replica_bytes,
        "share_bytes": space.share_bytes,
        "device_bytes": space.device_bytes,
        "replicas_fit": space.replicas,
        "freed_share": memory_freed(curve, method.latency_factor, cache, space.device_bytes),
        "freed_share_batch": batch,
    }


def _gained(
    goals: Goals, point: Point, best: float, largest: float, curve: Mapping[int, Mapping[str, float]]
) -> dict[str, Any]:
    """One number of replicas, and what it gains over one replica."""
    values = point.outcomes[0].values
    rate, latency = values[COLUMNS["total_tokens_per_s"]], values[COLUMNS["itl_mean_s"]]
    return {
        "replicas": point.parameters[REPLICAS],
        "point": point.number,
        "total_tokens_per_s": rate,
        "itl_mean_s": latency,
        "latency_ratio": latency / curve[REFERENCE_BATCH]["itl_mean_s"],
        "gain_over_best_single": rate / best - 1,
        "gain_over_largest_batch": rate / largest - 1,
        "keeps_constraints": goals.violation(values) == 0,
    }

"""The table of iterations: what ran, what it cost, and how that cost divides between prefill and decode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simslm.catalog.work import IterationShape
from simslm.cost.model import CostModel, Costs
from simslm.sim.log import Window

SHAPE = IterationShape._fields


@dataclass(frozen=True, slots=True)
class IterationTable:
    """Iterations of one replica, each column of shape ``(n,)``.

    Attributes:
        columns: those of ``iterations.parquet`` but ``replica``; ``power_w`` is missing when energy is unknown.
        energy_j: the replica's part of the device's energy, or None: what its work adds to idling, and its share
            of the idle power for as long as the iteration takes.
        prefill_share: part of the iteration's energy that prefill is charged with.
        in_domain: whether the cost was measured there.
        speculates: whether any replica of the run does; then drafted and accepted tokens are of interest.
    """

    columns: dict[str, np.ndarray]
    energy_j: np.ndarray | None
    prefill_share: np.ndarray
    in_domain: np.ndarray
    speculates: bool = False

    def __len__(self) -> int:
        return len(self.columns["start_s"])

    @property
    def end_s(self) -> np.ndarray:
        return self.columns["end_s"]


def iteration_table(
    window: Window,
    cost: CostModel,
    sharers: int,
    *,
    speculates: bool = False,
    levels: Sequence[CostModel] = (),
) -> IterationTable:
    """Prices the iterations of a window.

    Work costs the same energy however long others make it take, so a shared device draws its idle power once,
    divided equally, plus what each replica's iterations add to it.

    Args:
        window: of a replica's log.
        cost: of an iteration that has the device to itself.
        sharers: replicas on the device.
        speculates: whether any replica of the run does.
        levels: the cost at each level of the clock, where clocks change during the run; ``cost`` is that of the first.
    """
    columns = dict(window.columns)
    shapes = IterationShape(*(columns[name] for name in SHAPE))
    costs, share = _priced(shapes, _stretches(window, cost, levels))
    duration = columns["end_s"] - columns["start_s"]
    columns |= {"duration_s": duration, "host_s": costs.host_s}
    energy = None
    if costs.energy_j is not None and cost.idle_w is not None:
        # ``latency_s`` is the iteration alone, ``duration`` as others stretched it: the work keeps its energy, the
        # idle power is paid for as long as it took.
        energy = costs.energy_j - cost.idle_w * costs.latency_s + cost.idle_w / sharers * duration
        columns["power_w"] = energy / duration
    return IterationTable(columns, energy, share, costs.in_domain, speculates)


def _stretches(window: Window, cost: CostModel, levels: Sequence[CostModel]) -> list[tuple[slice, CostModel]]:
    """The iterations of a window in stretches of one clock each, with what they cost then."""
    starts = [(0, cost), *((first, levels[level]) for first, level in window.levels)]
    ends = [first for first, _ in starts[1:]]
    found = [
        (slice(first, end), priced) for (first, priced), end in zip(starts, [*ends, len(window)], strict=True)
    ]
    return [each for each in found if each[0].start < each[0].stop] or found[:1]


def _priced(shapes: IterationShape, stretches: list[tuple[slice, CostModel]]) -> tuple[Costs, np.ndarray]:
    """The costs of iterations, and the part of each that is charged to its prompts."""
    if len(stretches) == 1:
        (_, cost), *_ = stretches
        return cost.evaluate(shapes), prefill_share(shapes, cost)
    parts, shares = [], []
    for rows, cost in stretches:
        some = IterationShape(*(column[rows] for column in shapes))
        parts.append(cost.evaluate(some))
        shares.append(prefill_share(some, cost))
    energies = [part.energy_j for part in parts if part.energy_j is not None]
    costs = Costs(
        np.concatenate([part.latency_s for part in parts]),
        np.concatenate([part.host_s for part in parts]),
        np.concatenate(energies) if len(energies) == len(parts) else None,
        np.concatenate([part.in_domain for part in parts]),
    )
    return costs, np.concatenate(shares)


def prefill_share(shapes: IterationShape, cost: CostModel) -> np.ndarray:
    """What part of each iteration belongs to its prompts: 0 and 1 where only one kind runs.

    In a mixed iteration it is the prompts' latency alone over the sum of both kinds' latencies alone: each kind
    is charged in proportion to what it would have taken by itself.
    """
    share = (shapes.decode_seqs == 0).astype(float)
    mixed = np.flatnonzero((shapes.decode_seqs > 0) & (shapes.prefill_tokens > 0))
    if len(mixed):
        parts = IterationShape(*(column[mixed] for column in shapes))
        nothing = np.zeros(len(mixed))
        without = {name: nothing for name in SHAPE if name.startswith("prefill")}
        # Without prompts the share of layers is the neutral 1, as in a shape that never had any.
        without["prefill_layers"] = nothing + 1.0
        decode = cost.evaluate(parts._replace(unread_seqs=nothing, **without)).latency_s
        prefill = cost.evaluate(
            parts._replace(decode_seqs=nothing, decode_ctx_tokens=nothing, draft_tokens=nothing)
        ).latency_s
        share[mixed] = prefill / (prefill + decode)
    return share

"""The table of iterations: what ran, what it cost, and how that cost divides between prefill and decode."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simslm.catalog.work import IterationShape
from simslm.cost.model import CostModel
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
    window: Window, cost: CostModel, sharers: int, *, speculates: bool = False
) -> IterationTable:
    """Prices the iterations of a window.

    Work costs the same energy however long others make it take, so a shared device draws its idle power once,
    divided equally, plus what each replica's iterations add to it.

    Args:
        window: of a replica's log.
        cost: of an iteration that has the device to itself.
        sharers: replicas on the device.
        speculates: whether any replica of the run does.
    """
    columns = dict(window.columns)
    shapes = IterationShape(*(columns[name] for name in SHAPE))
    costs = cost.evaluate(shapes)
    duration = columns["end_s"] - columns["start_s"]
    columns |= {"duration_s": duration, "host_s": costs.host_s}
    energy = None
    if costs.energy_j is not None and cost.idle_w is not None:
        # ``latency_s`` is the iteration alone, ``duration`` as others stretched it: the work keeps its energy, the
        # idle power is paid for as long as it took.
        energy = costs.energy_j - cost.idle_w * costs.latency_s + cost.idle_w / sharers * duration
        columns["power_w"] = energy / duration
    return IterationTable(columns, energy, prefill_share(shapes, cost), costs.in_domain, speculates)


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

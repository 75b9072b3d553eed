"""What a replica is made of."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass

from simslm.cost.model import CostModel
from simslm.cost.sharing import DemandModel
from simslm.sim.clock import Clock
from simslm.sim.device import Device
from simslm.sim.engine import EngineConfig, Policies
from simslm.sim.log import RequestLog, Window
from simslm.sim.state.blocks import BlockStore

UNBOUNDED = 1 << 60
"""Iterations of a jump without a limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """All that a replica is told at its construction.

    Attributes:
        index: its number, written into the log.
        clock: the simulation's clock.
        device: runs its iterations.
        engine: its limits.
        cost: seconds of an iteration.
        demand: what an iteration asks of a shared device; None on a device of its own.
        policies: who runs next, who waits where, who is let in.
        output_tokens: true output length by row; the policies do not see it.
        requests: where the fate of each request is noted, by row.
        on_done: called with a request's row when its last token is out or its client has gone, if there is one.
        most_iterations: longest jump; 1 steps through every iteration.
        on_window: takes the log whenever it is full; None leaves it to grow.
        role: ``both | prefill | decode``: the phases it runs.
        store: the KV memory it takes from together with others; None = its own.
        control: the mechanisms of the control plane that it is under, of :data:`~simslm.mechanisms.CONTROL`.
    """

    index: int
    clock: Clock
    device: Device
    engine: EngineConfig
    cost: CostModel
    demand: DemandModel | None
    policies: Policies
    output_tokens: array[int]
    requests: RequestLog
    on_done: Callable[[int], None] | None = None
    most_iterations: int = UNBOUNDED
    on_window: Callable[[int, Window], None] | None = None
    role: str = "both"
    store: BlockStore | None = None
    control: frozenset[str] = frozenset()

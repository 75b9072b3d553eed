"""The power governor: all devices change their clock as a policy says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simslm.catalog.work import IterationShape
from simslm.cost.model import CostModel
from simslm.errors import SimslmError
from simslm.policies.fleet import GONE
from simslm.policies.power import PowerView
from simslm.sim.fleet import Fleet, Member

if TYPE_CHECKING:
    from simslm.sim.deployment import Deployment


class Governor:
    """Sets the clock of all devices.

    Args:
        fleet: of their replicas.
        deployment: with ``power``, and the cost at each clock in each group.

    Attributes:
        level: of the clock now, from 0, the highest.
        clocks: the clocks so far, MHz, and since when, s.
    """

    def __init__(self, fleet: Fleet, deployment: Deployment) -> None:
        assert deployment.power is not None
        self._fleet = fleet
        self._clocks_mhz = deployment.power.clocks_mhz
        self._policy = deployment.power.policy()
        self._levels = [group.levels for group in deployment.groups]
        self._devices = [device for group in deployment.groups for device in group.devices]
        self.level = 0
        self.clocks = [(fleet.clock.now, self._clocks_mhz[0])]

    def look(self) -> None:
        """Asks for the clock, and sets it where it is another."""
        power_w = tuple(self._power_w(level) for level in range(len(self._clocks_mhz)))
        seen = PowerView(self._fleet.clock.now, self.level, self._clocks_mhz, power_w)
        level = self._policy.level(seen)
        if not 0 <= level < len(self._clocks_mhz):
            raise SimslmError(
                f"the power policy chose level {level} of {len(self._clocks_mhz)} clocks",
                remedy="a policy chooses among the levels that it is shown",
            )
        if level == self.level:
            return
        self.level = level
        self.clocks.append((self._fleet.clock.now, self._clocks_mhz[level]))
        for member in self._fleet.members:
            self._set(member)

    def _set(self, member: Member) -> None:
        cost = self._levels[member.group][self.level]
        level = self.level
        member.membership.between(lambda: member.replica.reprice(cost, level))

    def _power_w(self, level: int) -> float:
        """Power of all devices, W, if what runs now ran at a level.

        A device draws its idle power while any replica holds it, and what each iteration adds: its mean power above
        idle, times the speed that other replicas leave it.
        """
        idle: dict[int, float] = {}
        above_w = 0.0
        for member, device in zip(self._fleet.members, self._devices, strict=True):
            if member.state == GONE:
                continue
            cost = self._levels[member.group][level]
            idle_w = cost.idle_w or 0.0
            idle[device] = max(idle.get(device, 0.0), idle_w)
            replica = member.replica
            if replica.busy:
                above_w += _above_w(cost, replica.shape_now()) * replica.device.speed(replica)
        return sum(idle.values()) + above_w


def _above_w(cost: CostModel, shape: IterationShape) -> float:
    """Mean power of an iteration above idle, W."""
    costs = cost.evaluate(IterationShape(*(np.array([value], dtype=float) for value in shape)))
    if costs.energy_j is None:
        return 0.0
    return max(float(costs.energy_j[0] / costs.latency_s[0]) - (cost.idle_w or 0.0), 0.0)

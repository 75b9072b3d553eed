"""The control plane of a run: when each of its policies is asked, and what becomes of the answers.

Invariant: all it has are background alarms, so that a run ends when its requests are done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from simpy.events import Event

from simslm.policies.faults import Fault
from simslm.sim.clock import Clock
from simslm.sim.control.governor import Governor
from simslm.sim.control.mover import Mover
from simslm.sim.control.scaler import Scaler
from simslm.sim.control.spec import Faults
from simslm.sim.fleet import Fleet

if TYPE_CHECKING:
    from simslm.sim.deployment import Deployment


class Control:
    """Starts what a deployment asks for.

    Args:
        clock: the simulation's clock.
        fleet: of its replicas.
        deployment: see :class:`~simslm.sim.deployment.Deployment`.
    """

    def __init__(self, clock: Clock, fleet: Fleet, deployment: Deployment) -> None:
        self._clock, self._fleet = clock, fleet
        self._governor: Governor | None = None
        for number, group in enumerate(deployment.groups):
            if group.scaling is not None:
                self._every(group.scaling.every_s, Scaler(fleet, number, group.scaling).look)
            if group.migration is not None:
                self._every(group.migration.every_s, Mover(fleet, number, group.migration).look)
            if group.faults is not None:
                Outages(clock, fleet, number, group.faults)
        if deployment.power is not None:
            self._governor = Governor(fleet, deployment)
            self._every(deployment.power.every_s, self._governor.look)

    @property
    def clocks(self) -> tuple[tuple[float, float], ...]:
        """The clock of all devices, MHz, and since when, s; empty where it does not change."""
        return () if self._governor is None else tuple(self._governor.clocks)

    def _every(self, every_s: float, look: Callable[[], None]) -> None:
        """Looks at every multiple of ``every_s``, as long as there is anything to look at."""
        clock, fleet, number = self._clock, self._fleet, 1

        def due(_event: Event) -> None:
            nonlocal number
            if fleet.over:
                return
            look()
            number += 1
            clock.background(number * every_s, due)

        clock.background(every_s, due)


class Outages:
    """Lets the replicas of a group fail when its policy says so.

    Args:
        clock: the simulation's clock.
        fleet: of its replicas.
        group: by number.
        spec: what it is set to.
    """

    def __init__(self, clock: Clock, fleet: Fleet, group: int, spec: Faults) -> None:
        self._clock, self._fleet, self._recompute = clock, fleet, spec.recompute
        self._members = fleet.teams[group].members
        self._coming = spec.policy().faults(len(self._members))
        self._next()

    def _next(self) -> None:
        fault = next(self._coming, None)
        if fault is None:
            return

        def due(_event: Event, fault: Fault = fault) -> None:
            if self._fleet.over:
                return
            self._fleet.fail(self._members[fault.replica], fault.down_s, recompute=self._recompute)
            self._next()

        self._clock.background(max(fault.at_s, self._clock.now), due)

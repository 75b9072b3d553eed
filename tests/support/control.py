"""A control plane at random: replicas that start, drain, sleep and fail, requests that move, clocks that change."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from simslm.policies.faults import Fault
from simslm.policies.fleet import SERVING, GroupView
from simslm.policies.migration import Transfer
from simslm.policies.power import PowerView
from simslm.sim.control.spec import Faults, Migration, Power, Scaling
from simslm.sim.deployment import Deployment, Group
from support.synthetic import LinearCost

CONTROL = ("scaling", "migration", "faults", "power")


@dataclass
class Whims:
    """Policies of all four kinds that decide at random, by a stream of their own, whatever they see."""

    seed: int

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)

    def wanted(self, seen: GroupView) -> int:
        return int(self._rng.integers(0, len(seen.members) + 2))

    def moves(self, seen: GroupView) -> Sequence[Transfer]:
        orders, targets = [], [member.replica for member in seen.of(SERVING)]
        for member in seen.members:
            for request in member.requests:
                if targets and self._rng.random() < 0.5:
                    target = targets[int(self._rng.integers(len(targets)))]
                    orders.append(Transfer(request.request_id, member.replica, target))
        return orders

    def faults(self, replicas: int) -> Iterator[Fault]:
        at_s = 0.0
        for _ in range(40):
            at_s += float(self._rng.exponential(0.1))
            down_s = float(self._rng.choice([1e-3, 0.05, 0.5]))
            yield Fault(at_s, int(self._rng.integers(replicas)), down_s)

    def level(self, seen: PowerView) -> int:
        return int(self._rng.integers(len(seen.clocks_mhz)))


@st.composite
def controlled(
    draw: st.DrawFn, served: Deployment, kinds: Collection[str] = CONTROL, **chosen: Any
) -> Deployment:
    """The same under a control plane.

    Args:
        served: without one.
        kinds: what it does.
        chosen: by kind, what makes a policy; of the others the policies decide at random.
    """
    groups = tuple(draw(_controlled(group, kinds, chosen)) for group in served.groups)
    power = None
    if "power" in kinds:
        clocks = (1980.0, 1400.0, 900.0)
        groups = tuple(
            replace(group, levels=tuple(_slower(group.cost, clock) for clock in clocks)) for group in groups
        )
        made = chosen.get("power") or _whims(draw)
        power = Power(policy=made, every_s=draw(PERIODS), clocks_mhz=clocks)
    return replace(served, groups=groups, power=power)


PERIODS = st.sampled_from([2.0**-7, 0.02, 0.1, 1.0])


def _whims(draw: st.DrawFn) -> Any:
    seed = draw(st.integers(0, 2**32 - 1))
    return lambda: Whims(seed)


@st.composite
def _controlled(draw: st.DrawFn, group: Group, kinds: Collection[str], chosen: dict[str, Any]) -> Group:
    count = len(group.devices)
    made: dict[str, Any] = {"waits": draw(st.booleans())}
    if "scaling" in kinds:
        least = draw(st.integers(1, count))
        most = draw(st.integers(least, count))
        made["scaling"] = Scaling(
            policy=chosen.get("scaling") or _whims(draw),
            every_s=draw(PERIODS),
            min_replicas=least,
            max_replicas=most,
            initial_replicas=draw(st.integers(least, most)),
            start_s=draw(st.sampled_from([0.0, 2.0**-6, 0.3])),
            wake_s=draw(st.sampled_from([0.0, 2.0**-8])),
            sleeps=draw(st.booleans()),
            keep_cache=draw(st.booleans()),
        )
    if "migration" in kinds:
        made["migration"] = Migration(policy=chosen.get("migration") or _whims(draw), every_s=draw(PERIODS))
        transfer_s = draw(st.sampled_from([0.0, 1e-4, 3e-3]))
        made["engine"] = replace(group.engine, transfer_s_per_block=transfer_s)
    if "faults" in kinds:
        made["faults"] = Faults(policy=chosen.get("faults") or _whims(draw), recompute=draw(st.booleans()))
    return replace(group, **made)


def _slower(cost: LinearCost, clock_mhz: float) -> LinearCost:
    """The same at a lower clock."""
    slower = 1980.0 / clock_mhz
    terms = {
        name: getattr(cost, name) * slower
        for name in ("fixed", "per_seq", "per_context", "per_token", "per_pair")
    }
    return replace(cost, **terms, watts=None if cost.watts is None else cost.watts / slower)

"""What a scenario's control plane must agree on: replicas that come and go, fail, and change their clocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simslm.scenario.schema import Deployment, Replicas, Scenario

KEYS = ("scaling", "migration", "faults")
"""The keys of a group that put it under a control plane."""


def check_control(deployment: Deployment) -> None:
    """Holds the control plane of each group to the replicas that it has.

    Raises:
        ValueError: what is wrong, and where.
    """
    if deployment.groups:
        for key in KEYS:
            if getattr(deployment, key) is not None:
                raise ValueError(f"{key}: with groups, state it in the group that it is for")
    for group in deployment.groups or (deployment,):
        name = getattr(group, "name", None)
        _check_group(group, replicas_of(deployment, group), "" if name is None else f"group {name!r}: ")
    check_clocks(deployment)


def is_controlled(deployment: Deployment) -> bool:
    """Whether anything is under a control plane."""
    groups = deployment.groups or (deployment,)
    return deployment.power is not None or any(
        getattr(group, key) is not None for group in groups for key in KEYS
    )


def replicas_of(deployment: Deployment, group: Replicas) -> int:
    """How many replicas a group may ever have."""
    devices = getattr(group, "devices", None) or range(deployment.num_devices)
    return len(devices) // group.tensor_parallel_size * group.replicas_per_device


def _check_group(group: Replicas, count: int, where: str) -> None:
    scaling = group.scaling
    for name in ("min_replicas", "initial_replicas", "max_replicas") if scaling is not None else ():
        asked = getattr(scaling, name)
        if asked is not None and asked > count:
            raise ValueError(
                f"{where}scaling.{name} is {asked}, but the devices have room for {count} replicas: raise num_devices "
                "or replicas_per_device, or lower it"
            )
    if group.migration is not None and count < 2:
        raise ValueError(f"{where}migration needs two replicas at least")
    if group.faults is not None:
        for fault in getattr(group.faults, "at", ()):
            if fault.replica >= count:
                raise ValueError(
                    f"{where}faults: replica {fault.replica} does not exist: there are {count}, counted from 0"
                )


def check_clocks(deployment: Deployment) -> None:
    """Clocks are stated from the highest to the lowest.

    Raises:
        ValueError: they are not.
    """
    clocks = () if deployment.power is None else deployment.power.clocks_mhz
    if any(clock <= 0 for clock in clocks) or list(clocks) != sorted(set(clocks), reverse=True):
        raise ValueError("power.clocks_mhz must be positive, each once, the highest first")


def check_power(scenario: Scenario) -> None:
    """Clocks that change need costs that were measured at several clocks.

    Raises:
        ValueError: the costs of a group are not.
    """
    if scenario.deployment.power is None:
        return
    for group in scenario.deployment.groups or (None,):
        cost = (None if group is None else group.cost) or scenario.cost
        if cost.trace is None:
            raise ValueError(
                "deployment.power needs cost: {trace: ...}, measured at several clocks; a roofline has none"
            )
        if cost.sm_clock_mhz is not None or cost.power_cap_w is not None:
            raise ValueError(
                "deployment.power changes the clock during the run: leave cost.sm_clock_mhz and cost.power_cap_w out"
            )

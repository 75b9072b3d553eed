"""What the control plane of a group, and of all devices, is set to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from simslm.policies.faults import FaultPolicy
from simslm.policies.migration import MigrationPolicy
from simslm.policies.power import PowerPolicy
from simslm.policies.scaling import ScalingPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """How the replicas of a group come and go; the fields are those of
    :class:`~simslm.policies.scaling.ScalingOptions`.

    Attributes:
        policy: makes the policy; two runs share no state.
        sleeps: a replica that has drained sleeps; else it is gone.
    """

    policy: Callable[[], ScalingPolicy]
    every_s: float
    min_replicas: int
    max_replicas: int
    initial_replicas: int
    start_s: float
    wake_s: float = 0.0
    sleeps: bool = False
    keep_cache: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """How requests move between the replicas of a group: who says which, and how often it is asked, s."""

    policy: Callable[[], MigrationPolicy]
    every_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How replicas of a group fail.

    Attributes:
        policy: says when.
        recompute: the requests of one that fails are computed again elsewhere; else they fail.
    """

    policy: Callable[[], FaultPolicy]
    recompute: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """How the clocks of all devices change: who says so, how often it is asked, s, and the clocks, highest first."""

    policy: Callable[[], PowerPolicy]
    every_s: float
    clocks_mhz: tuple[float, ...]

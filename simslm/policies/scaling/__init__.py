"""Scaling policies: how many replicas of a group should serve.

A policy is a class with one method, ``wanted(seen) -> int``, asked every ``every_s`` seconds. The fleet keeps the
answer within ``min_replicas`` and ``max_replicas`` and carries it out: of more it takes back those that drain, then
wakes those that sleep, then starts others; of fewer it gives up those that start, then drains those with the fewest
requests.
"""

from __future__ import annotations

from typing import Literal, Protocol

from pydantic import Field, model_validator

from simslm.policies.fleet import GroupView
from simslm.policies.registry import PolicyOptions


class ScalingOptions(PolicyOptions):
    """What every scaling policy has."""

    every_s: float = Field(default=15.0, gt=0, le=1e6, description="seconds between two looks")
    min_replicas: int = Field(
        default=1, ge=0, description="fewest replicas that serve or start; 0 = none while no request comes"
    )
    max_replicas: int | None = Field(
        default=None, ge=1, description="most of them; null = all that the group's devices have"
    )
    initial_replicas: int | None = Field(
        default=None, ge=0, description="replicas that serve from the beginning; null = min_replicas"
    )
    start_s: float = Field(
        default=60.0, ge=0, le=1e6, description="from the order to start a replica until it serves, s"
    )
    idle: Literal["stop", "sleep"] = Field(
        default="stop",
        description="what becomes of a replica that has drained: it gives its device back, or keeps it and sleeps",
    )
    wake_s: float = Field(
        default=2.0, ge=0, le=1e6, description="from the order to wake a sleeping replica until it serves, s"
    )
    keep_cache: bool = Field(
        default=False, description="a sleeping replica keeps its prefix cache and the turns on its host"
    )

    @model_validator(mode="after")
    def _bounds_agree(self) -> ScalingOptions:
        most = self.max_replicas
        if most is not None and self.min_replicas > most:
            raise ValueError(f"min_replicas ({self.min_replicas}) is more than max_replicas ({most})")
        first = self.initial_replicas
        if first is not None and (first < self.min_replicas or (most is not None and first > most)):
            raise ValueError(f"initial_replicas ({first}) must lie between min_replicas and max_replicas")
        return self


class ScalingPolicy(Protocol):
    """Says how many replicas should serve."""

    def wanted(self, seen: GroupView) -> int:
        """Replicas that should serve or be on their way to it, see :attr:`GroupView.coming`.

        Called in order of time; it may remember what it said.
        """
        ...

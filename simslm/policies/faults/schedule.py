"""Faults at stated times."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, Field

from simslm.policies.faults import Fault, FaultOptions
from simslm.policies.registry import policy


class StatedFault(BaseModel):
    """One fault."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    at_s: float = Field(ge=0, description="when the replica fails, s")
    replica: int = Field(default=0, ge=0, description="which of the group's, from 0")
    down_s: float = Field(default=60.0, gt=0, le=1e6, description="until it serves again, s")


class ScheduleOptions(FaultOptions):
    at: tuple[StatedFault, ...] = Field(default=(), description="the faults: {at_s, replica, down_s} of each")


@policy("faults", "schedule", ScheduleOptions)
class Schedule:
    """The faults that are stated, each at its time (fault injection; Basiri et al., Chaos Engineering, 2016)."""

    def __init__(self, options: ScheduleOptions) -> None:
        self._at = options.at

    def faults(self, replicas: int) -> Iterator[Fault]:
        found = [Fault(each.at_s, each.replica, each.down_s) for each in self._at if each.replica < replicas]
        return iter(sorted(found))

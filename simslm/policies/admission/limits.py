"""Limits on what a replica takes in."""

from __future__ import annotations

from pydantic import Field

from simslm.policies.registry import PolicyOptions, policy
from simslm.policies.route import ArrivingRequest, ReplicaLoad


class LimitsOptions(PolicyOptions):
    max_queue: int | None = Field(default=None, ge=0, description="most requests waiting; null = no limit")
    max_kv_utilization: float = Field(
        default=1.0, gt=0, le=1, description="share of KV blocks in use above which requests are rejected"
    )


@policy("admission", "limits", LimitsOptions)
class Limits:
    """Rejects requests beyond a queue length or a KV utilisation (load shedding; Welsh & Culler, USITS 2003)."""

    def __init__(self, options: LimitsOptions) -> None:
        self.max_queue = options.max_queue
        self.max_kv_utilization = options.max_kv_utilization

    def admits(self, request: ArrivingRequest, replica: ReplicaLoad) -> bool:
        if self.max_queue is not None and replica.queued >= self.max_queue:
            return False
        return replica.kv_utilization <= self.max_kv_utilization

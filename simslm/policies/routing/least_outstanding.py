"""Least-outstanding routing."""

from __future__ import annotations

from collections.abc import Sequence

from simslm.policies.registry import PolicyOptions, policy
from simslm.policies.route import ArrivingRequest, ReplicaLoad


@policy("routing", "least-outstanding")
class LeastOutstanding:
    """The replica with the fewest requests waiting or running, the first of equals (Winston, 1977)."""

    looks_at_replicas = True

    def __init__(self, options: PolicyOptions) -> None:
        del options

    def choose(self, request: ArrivingRequest, replicas: Sequence[ReplicaLoad]) -> int:
        loads = [replica.outstanding for replica in replicas]
        return loads.index(min(loads))

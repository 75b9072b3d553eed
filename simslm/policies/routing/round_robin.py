"""Round-robin routing."""

from __future__ import annotations

from collections.abc import Sequence

from simslm.policies.registry import PolicyOptions, policy
from simslm.policies.route import ArrivingRequest, ReplicaLoad


@policy("routing", "round-robin")
class RoundRobin:
    """Each replica in turn, whatever its load (Nagle, RFC 970, 1985)."""

    looks_at_replicas = False

    def __init__(self, options: PolicyOptions) -> None:
        del options
        self.next = 0

    def choose(self, request: ArrivingRequest, replicas: Sequence[ReplicaLoad]) -> int:
        chosen = self.next % len(replicas)
        self.next = chosen + 1
        return chosen

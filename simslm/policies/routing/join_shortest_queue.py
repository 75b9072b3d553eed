"""Join-the-shortest-queue routing."""

from __future__ import annotations

from collections.abc import Sequence

from simslm.policies.registry import PolicyOptions, policy
from simslm.policies.route import ArrivingRequest, ReplicaLoad


@policy("routing", "join-shortest-queue")
class JoinShortestQueue:
    """The replica with the fewest requests waiting, of equals the one with the fewest in all (Haight, 1958).

    Requests that run do not count at first: with continuous batching they share a replica, they do not block it.
    Of replicas that are equal in both, the first.
    """

    looks_at_replicas = True

    def __init__(self, options: PolicyOptions) -> None:
        del options

    def choose(self, request: ArrivingRequest, replicas: Sequence[ReplicaLoad]) -> int:
        loads = [(replica.queued, replica.outstanding) for replica in replicas]
        return loads.index(min(loads))

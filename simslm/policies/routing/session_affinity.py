"""Session-affinity routing."""

from __future__ import annotations

from collections.abc import Sequence

from simslm.policies.registry import PolicyOptions, policy
from simslm.policies.route import ArrivingRequest, ReplicaOutlook


@policy("routing", "session-affinity")
class SessionAffinity:
    """Where the session's first request went, which was the least outstanding then (sticky sessions; Envoy, nginx).

    Remembered, not hashed, so that sessions spread evenly; requests of no session, and of one whose replica does not
    serve now, go to the least outstanding.
    """

    looks_at_replicas = True

    def __init__(self, options: PolicyOptions) -> None:
        del options
        self.home: dict[int, int] = {}

    def choose(self, request: ArrivingRequest, replicas: Sequence[ReplicaOutlook]) -> int:
        home = self.home.get(request.session_id)
        if home is not None:
            for i, replica in enumerate(replicas):
                if replica.index == home:
                    return i
        loads = [replica.outstanding for replica in replicas]
        chosen = loads.index(min(loads))
        if request.session_id >= 0:
            self.home[request.session_id] = replicas[chosen].index
        return chosen

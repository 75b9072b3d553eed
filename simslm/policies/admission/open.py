"""No admission limit."""

from __future__ import annotations

from simslm.policies.registry import PolicyOptions, policy
from simslm.policies.route import ArrivingRequest, ReplicaLoad


@policy("admission", "open")
class Open:
    """Lets every request in (vLLM's default)."""

    def __init__(self, options: PolicyOptions) -> None:
        del options

    def admits(self, request: ArrivingRequest, replica: ReplicaLoad) -> bool:
        return True

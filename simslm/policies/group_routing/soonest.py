"""The group with the soonest answer."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from simslm.policies.group_routing import GroupLoad, GroupRouting
from simslm.policies.registry import PolicyOptions, policy
from simslm.policies.route import ReplicaOutlook, RoutedRequest


@policy("group-routing", "soonest")
class Soonest(GroupRouting):
    """Where the first token is expected first, then the others (minimum completion time; Maheswaran et al., 1999)."""

    def __init__(self, options: PolicyOptions) -> None:
        del options

    def choose(self, request: RoutedRequest, groups: Sequence[GroupLoad]) -> int:
        def expected(replica: ReplicaOutlook) -> tuple[float, float]:
            return replica.ttft_estimate_s(request), replica.tpot_estimate_s(request)

        return min(groups, key=lambda group: min(map(expected, group.replicas), default=(inf, inf))).number

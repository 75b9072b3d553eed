"""The least loaded group."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from simslm.policies.group_routing import GroupLoad, GroupRouting
from simslm.policies.registry import PolicyOptions, policy
from simslm.policies.route import RoutedRequest


@policy("group-routing", "least-loaded")
class LeastLoaded(GroupRouting):
    """The group with the fewest requests per replica, the first of equals (weighted least-connection; LVS, 1998)."""

    def __init__(self, options: PolicyOptions) -> None:
        del options

    def choose(self, request: RoutedRequest, groups: Sequence[GroupLoad]) -> int:
        return min(groups, key=_load).number


def _load(group: GroupLoad) -> float:
    if not group.replicas:
        return inf
    return sum(replica.outstanding for replica in group.replicas) / len(group.replicas)

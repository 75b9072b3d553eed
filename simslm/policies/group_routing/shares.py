"""Groups by drawn shares."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence

import numpy as np

from simslm.policies.draws import Numbered
from simslm.policies.group_routing import GroupLoad, GroupRouting
from simslm.policies.registry import PolicyOptions, policy
from simslm.policies.route import RoutedRequest


@policy("group-routing", "shares")
class Shares(GroupRouting):
    """A group drawn by the groups' shares, one for a whole program (weighted random; Envoy, weighted clusters).

    The draw is the request's own, by its number or that of its program: it does not depend on the order of arrival. A
    request that the drawn group cannot serve is drawn again, with the same number, among those that can.
    """

    looks_at_groups = False

    def __init__(self, options: PolicyOptions, *, stream: np.random.Generator) -> None:
        del options
        self._draws = Numbered(stream)
        self._groups: list[int] = []
        self._ends: list[float] = []

    def begin(self, groups: Sequence[GroupLoad]) -> Collection[int]:
        self._groups, self._ends = [group.number for group in groups], _ends(groups)
        return ()

    def choose(self, request: RoutedRequest, groups: Sequence[GroupLoad]) -> int:
        draw = self._draws[request.request_id if request.program < 0 else request.program]
        drawn = self._groups[bisect_right(self._ends, draw)]
        if len(groups) == len(self._groups) or any(group.number == drawn for group in groups):
            return drawn
        return groups[bisect_right(_ends(groups), draw)].number


def _ends(groups: Sequence[GroupLoad]) -> list[float]:
    """Where the part of each group but the last ends in [0, 1)."""
    shares = np.array([group.share for group in groups])
    return np.cumsum(shares / shares.sum())[:-1].tolist()

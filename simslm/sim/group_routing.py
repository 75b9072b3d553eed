"""Groups as a group-routing policy sees them, and the choice among those that can serve a request."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from simslm.errors import SimslmError
from simslm.policies.group_routing import GroupAnswer, GroupRouter
from simslm.policies.route import ReplicaOutlook
from simslm.sim.rows import RequestRows
from simslm.sim.state.sequence import Sequence as InFlight


class Serving(Protocol):
    """Whose replicas serve now."""

    @property
    def serving(self) -> Sequence[ReplicaOutlook]: ...


@dataclass(frozen=True, slots=True)
class GroupView:
    """A :class:`~simslm.policies.group_routing.GroupLoad`."""

    number: int
    name: str
    share: float
    team: Serving

    @property
    def replicas(self) -> Sequence[ReplicaOutlook]:
        return self.team.serving


class GroupChoice:
    """Asks a policy which of the groups that can serve a request does.

    Args:
        policy: that is asked.
        groups: to which requests may go, in the order of the scenario.
        rows: of the requests; which groups can serve each is noted there.

    Attributes:
        judged: numbers of the groups whose answers are judged.
        verdict_s: how long a verdict takes, s.
    """

    def __init__(self, policy: GroupRouter, groups: Sequence[GroupView], rows: RequestRows) -> None:
        self._policy, self._groups, self._rows = policy, tuple(groups), rows
        self._sets: list[tuple[GroupView, ...]] = []
        self._numbers: dict[bytes, int] = {}
        self.judged = frozenset(policy.begin(self._groups))
        self.verdict_s = policy.verdict_s

    def sets(self, masks: np.ndarray) -> np.ndarray:
        """The number of the set of groups that can serve each request, shape ``(requests,)``.

        Args:
            masks: whether each group, in order, can serve each request, bool, shape ``(groups, requests)``.
        """
        found, inverse = np.unique(np.packbits(masks, axis=0), axis=1, return_inverse=True)
        numbers = np.array([self._number(column) for column in found.T], dtype=np.int64)
        return numbers[inverse.reshape(-1)]

    def _number(self, packed: np.ndarray) -> int:
        key = packed.tobytes()
        if key not in self._numbers:
            self._numbers[key] = len(self._sets)
            can = np.unpackbits(packed, count=len(self._groups))
            self._sets.append(tuple(group for group, able in zip(self._groups, can, strict=True) if able))
        return self._numbers[key]

    def choose(self, request: InFlight) -> int:
        """The number of the group that a request goes to; at least one can serve it."""
        groups = self._able(request)
        return (
            groups[0].number
            if len(groups) == 1
            else self._named(self._policy.choose(request, groups), groups)
        )

    def escalate(self, request: InFlight, answer: GroupAnswer, tried: Collection[int]) -> int | None:
        """The number of the group that answers a request anew; None = its answer goes out.

        Args:
            request: that was answered.
            answer: to judge.
            tried: numbers of the groups that have answered it.
        """
        groups = tuple(group for group in self._able(request) if group.number not in tried)
        target = self._policy.escalate(request, answer, groups) if groups else None
        return None if target is None else self._named(target, groups)

    def _able(self, request: InFlight) -> tuple[GroupView, ...]:
        assert self._rows.able is not None
        return self._sets[self._rows.able[request.row]]

    def _named(self, number: int, groups: Sequence[GroupView]) -> int:
        if all(group.number != number for group in groups):
            raise SimslmError(
                f"the group-routing policy {type(self._policy).__name__} named group {number}, which is not among "
                f"those it was offered: {', '.join(str(group.number) for group in groups)}",
                remedy="return the number of one of the groups it is given",
            )
        return number

"""Group-routing policies: which group of replicas a request goes to, and whether its answer is good enough.

A policy is a class with up to three methods: ``begin(groups)``, told once which groups there are;
``choose(request, groups)``, asked of every request; and ``escalate(request, answer, groups)``, asked of every finished
request of a group that the policy ``judges``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from simslm.policies.route import ReplicaOutlook, RoutedRequest


class GroupLoad(Protocol):
    """A group to which requests may go.

    Attributes:
        number: its place among the scenario's groups, from 0.
        name: the scenario's.
        share: its share of the requests as the scenario states it, relative to the other groups.
        replicas: those to which requests come, as far as they serve now; perhaps none.
    """

    @property
    def number(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def share(self) -> float: ...
    @property
    def replicas(self) -> Sequence[ReplicaOutlook]: ...


@dataclass(frozen=True, slots=True)
class GroupAnswer:
    """A finished answer that is to be judged.

    Attributes:
        group: number of the group that gave it.
        tokens: its length.
        at_s: when its last token was computed, s.
    """

    group: int
    tokens: int
    at_s: float


class GroupRouter(Protocol):
    """Chooses among groups.

    Attributes:
        looks_at_groups: its choice depends on what the groups' replicas do; else on the request alone, so that all
            choices can be made ahead.
        escalates: it may judge answers.
        verdict_s: from the last token of an answer that is judged to the verdict, s.
    """

    looks_at_groups: bool
    escalates: bool
    verdict_s: float

    def begin(self, groups: Sequence[GroupLoad]) -> Collection[int]:
        """Told, before the first request, of all groups to which requests may go, in the order of the scenario.

        Returns:
            The numbers of the groups whose answers it judges: they are held back until the verdict, and go out whole.
        """
        ...

    def choose(self, request: RoutedRequest, groups: Sequence[GroupLoad]) -> int:
        """The number of the group that serves ``request``, one of ``groups``: those that can serve it, several."""
        ...

    def escalate(
        self, request: RoutedRequest, answer: GroupAnswer, groups: Sequence[GroupLoad]
    ) -> int | None:
        """The number of the group that serves a finished request anew; None = the answer goes out.

        Args:
            request: as it arrived at the group that answered.
            answer: what that group answered.
            groups: those that can serve it and have not yet; at least one.
        """
        ...


class GroupRouting:
    """What most group-routing policies are like: no answer is judged."""

    looks_at_groups = True
    escalates = False
    verdict_s = 0.0

    def begin(self, groups: Sequence[GroupLoad]) -> Collection[int]:
        del groups
        return ()

    def escalate(
        self, request: RoutedRequest, answer: GroupAnswer, groups: Sequence[GroupLoad]
    ) -> int | None:
        del request, answer, groups
        return None

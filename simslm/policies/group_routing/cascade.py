"""A cascade of models."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from simslm.policies.draws import Numbered
from simslm.policies.group_routing import GroupAnswer, GroupLoad, GroupRouting
from simslm.policies.registry import PolicyOptions, policy
from simslm.policies.route import RoutedRequest


class CascadeOptions(PolicyOptions):
    acceptance: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(
        default=(0.7,),
        min_length=1,
        description="probability that an answer is accepted, of each group in their order; the last one stated holds "
        "for all further groups, and the answer of the last group is always accepted",
    )
    verdict_s: float = Field(
        default=0.0, ge=0, le=60, description="from the last token of an answer to the verdict on it, s"
    )


@policy("group-routing", "cascade", CascadeOptions)
class Cascade(GroupRouting):
    """The first group, and the next one while the answer is not accepted (FrugalGPT, arXiv:2305.05176, §3).

    The groups are tried in the order of the scenario, the cheapest first. FrugalGPT scores the whole answer and
    accepts it above a threshold; here it is accepted with a stated probability, drawn for each request and group, for
    what a model says is not simulated. The answers of all groups but the last are held back until the verdict.
    """

    looks_at_groups = False
    escalates = True

    def __init__(self, options: CascadeOptions, *, stream: np.random.Generator) -> None:
        self.verdict_s = options.verdict_s
        self._acceptance = options.acceptance
        self._draws = Numbered(stream)
        self._order: list[int] = []

    def begin(self, groups: Sequence[GroupLoad]) -> Collection[int]:
        self._order = [group.number for group in groups]
        return self._order[:-1]

    def choose(self, request: RoutedRequest, groups: Sequence[GroupLoad]) -> int:
        return groups[0].number

    def escalate(
        self, request: RoutedRequest, answer: GroupAnswer, groups: Sequence[GroupLoad]
    ) -> int | None:
        place = self._order.index(answer.group)
        draw = self._draws[request.request_id * len(self._order) + place]
        if draw < self._acceptance[min(place, len(self._acceptance) - 1)]:
            return None
        return next((group.number for group in groups if group.number > answer.group), None)

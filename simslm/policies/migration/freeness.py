"""Llumnix's load balancing by migration."""

from __future__ import annotations

from math import inf

from pydantic import Field

from simslm.policies.fleet import DRAINING, SERVING, GroupView, MemberView
from simslm.policies.migration import MigrationOptions, Transfer
from simslm.policies.registry import policy


class FreenessOptions(MigrationOptions):
    source_below: float = Field(
        default=50.0,
        description="a replica gives a request away while its freeness is below that, iterations",
    )
    target_above: float = Field(
        default=100.0, description="a replica takes a request while its freeness is above that, iterations"
    )


@policy("migration", "freeness", FreenessOptions)
class Freeness:
    """From the least free replica to the freest, the shortest request of the lowest priority (arXiv:2406.03243, §4.4).

    Freeness is how many iterations the running requests can go on in the KV blocks that are free: ``(free blocks -
    blocks wanted by the first waiting request) x block size / running requests``. A replica that drains has none at
    all (its virtual usage is infinite), so its requests leave it. Sources and targets are paired, the extremes first;
    each pair moves one request, and the policy is asked again after ``every_s``.
    """

    def __init__(self, options: FreenessOptions) -> None:
        self._source_below, self._target_above = options.source_below, options.target_above

    def moves(self, seen: GroupView) -> list[Transfer]:
        free = {member.replica: _freeness(member) for member in seen.of(SERVING, DRAINING)}
        members = sorted(seen.of(SERVING, DRAINING), key=lambda each: (free[each.replica], each.replica))
        sources = [each for each in members if free[each.replica] < self._source_below]
        targets = [
            each for each in members if each.state == SERVING and free[each.replica] > self._target_above
        ]
        orders: list[Transfer] = []
        for source, target in zip(sources, reversed(targets), strict=False):
            running = [request for request in source.requests if request.running]
            if running and source.replica != target.replica:
                moved = min(running, key=lambda each: (-each.priority, each.tokens, each.request_id))
                orders.append(Transfer(moved.request_id, source.replica, target.replica))
        return orders


def _freeness(member: MemberView) -> float:
    if member.state == DRAINING:
        return -inf
    return (member.free_blocks - member.wanted_blocks) * member.block_size / max(member.running, 1)

"""What the policies of the control plane are shown of the fleet."""

from __future__ import annotations

from simslm.policies.fleet import GroupView, MemberView, RequestView
from simslm.sim.fleet import Fleet, Member
from simslm.sim.replica import Replica


def seen_of(fleet: Fleet, group: int, *, requests: bool = False) -> GroupView:
    """A group as it is now.

    Args:
        fleet: of its replicas.
        group: by number.
        requests: whether the requests that can be moved are shown too.
    """
    team = fleet.teams[group]
    members = tuple(_member(fleet, member, requests) for member in team.members)
    return GroupView(fleet.clock.now, members, len(team.held))


def _member(fleet: Fleet, member: Member, requests: bool) -> MemberView:
    replica = member.replica
    replica.catch_up()
    first = next(iter(replica.queue), None)
    return MemberView(
        replica=replica.index,
        state=member.state,
        outstanding=replica.outstanding,
        queued=replica.queued,
        running=len(replica.batch.running),
        free_blocks=replica.pool.free,
        num_blocks=replica.pool.num_blocks,
        block_size=replica.pool.block_size,
        wanted_blocks=0 if first is None else replica.pool.blocks(first.prefill_tokens),
        requests=_requests(fleet, replica, member) if requests else (),
    )


def _requests(fleet: Fleet, replica: Replica, member: Member) -> tuple[RequestView, ...]:
    """Those that decode, and those that wait with nothing computed; not those that are on their way already."""
    membership, moving = member.membership, fleet.migrating
    running = [each for each in replica.batch.running if membership.decodes(each) and each not in moving]
    waiting = [each for each in replica.queue if membership.waits_here(each)]
    found = [
        RequestView(
            each.request_id,
            membership.tokens(each) if is_running else each.prompt_tokens,
            membership.blocks(each) if is_running else 0,
            each.priority,
            is_running,
        )
        for is_running, sequences in ((True, running), (False, waiting))
        for each in sequences
    ]
    return tuple(sorted(found, key=lambda request: request.request_id))

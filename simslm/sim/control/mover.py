"""Migration: requests of a group go on at other replicas as its policy says.

A request that decodes is moved live (Llumnix, arXiv:2406.03243, §4.2): its blocks are copied while it goes on, stage by
stage, each stage the blocks that were filled during the one before. When a single block is left it is taken off, and
goes on at the other replica when that block has been copied.
"""

from __future__ import annotations

from simpy.events import Event

from simslm.policies.fleet import SERVING
from simslm.policies.migration import Transfer
from simslm.sim.clock import URGENT
from simslm.sim.control.seen import seen_of
from simslm.sim.control.spec import Migration
from simslm.sim.fleet import Fleet, Member
from simslm.sim.parts.membership import Membership
from simslm.sim.state.sequence import Sequence

LAST_BLOCKS = 1
"""Blocks that the last stage copies at most, while the request stands still."""


class Mover:
    """Moves requests of a group.

    Args:
        fleet: of its replicas.
        group: by number.
        spec: what it is set to.
    """

    def __init__(self, fleet: Fleet, group: int, spec: Migration) -> None:
        self._fleet, self._group = fleet, group
        self._members = {member.replica.index: member for member in fleet.teams[group].members}
        self._policy = spec.policy()

    def look(self) -> None:
        """Asks which requests should move, and begins to move them."""
        for order in self._policy.moves(seen_of(self._fleet, self._group, requests=True)):
            self._move(order)

    def _move(self, order: Transfer) -> None:
        source, target = self._members.get(order.source), self._members.get(order.target)
        if source is None or target is None or source is target or target.state != SERVING:
            return
        replica, membership = source.replica, source.membership
        for sequence in replica.queue:
            if sequence.request_id == order.request_id and membership.waits_here(sequence):
                membership.let_wait_elsewhere(sequence)
                self._fleet.note(sequence, target.replica, "migration")
                target.replica.arrive(sequence)
                membership.settle()
                return
        for sequence in replica.batch.running:
            known = sequence not in self._fleet.migrating and membership.decodes(sequence)
            if known and sequence.request_id == order.request_id:
                LiveMigration(self._fleet, sequence, source, target).begin()
                return


class LiveMigration:
    """One request on its way.

    Args:
        fleet: of the replicas.
        sequence: that decodes at the source.
        source, target: of one group.
    """

    def __init__(self, fleet: Fleet, sequence: Sequence, source: Member, target: Member) -> None:
        self._fleet, self._sequence = fleet, sequence
        self._source, self._target = source, target
        self._from: Membership = source.membership
        self._to: Membership = target.membership
        self._began = sequence.decode_from
        self._copied = self._reserved = 0
        self._common = source.replica.store is not None and source.replica.store is target.replica.store

    def begin(self) -> None:
        """Copies what there is; nothing where both replicas take their blocks from one store."""
        self._fleet.migrating.add(self._sequence)
        if self._common:
            self._from.between(self._change_over)
        else:
            self._copy(self._held())

    def _held(self) -> int:
        """Blocks of its tokens so far."""
        return self._from.blocks(self._sequence)

    def _copy(self, blocks: int) -> None:
        """Begins a stage of so many blocks, if there is room for them."""
        if not self._reserve():
            self._give_up()
            return
        self._copied += blocks
        clock = self._fleet.clock

        def over(_event: Event) -> None:
            self._stage_over(blocks)

        clock.alarm(self._from.link.begin(clock.now, blocks), URGENT, over)

    def _stage_over(self, blocks: int) -> None:
        if not self._goes_on():
            self._give_up()
            return
        left = self._held() - self._copied
        if left <= LAST_BLOCKS:
            self._from.between(self._change_over)
        elif left < blocks:
            self._copy(left)
        else:  # blocks are filled as fast as they are copied
            self._give_up()

    def _change_over(self) -> None:
        """Between two iterations of the source: the request leaves it."""
        if not self._goes_on() or not (self._common or self._reserve()):
            self._give_up()
            return
        fleet, sequence = self._fleet, self._sequence
        left = max(self._held() - self._copied, 0)
        held = self._from.take_off(sequence)
        fleet.migrating.discard(sequence)
        fleet.note(sequence, self._target.replica, "migration")
        if self._common:
            self._to.receive(sequence)
        else:
            at_s = self._from.link.begin(fleet.clock.now, left)
            self._to.bring(sequence, at_s, lambda: self._from.give_up(sequence, held))
        self._from.settle()

    def _goes_on(self) -> bool:
        """Whether it still decodes at the source, since the copy began, and the target still serves."""
        sequence = self._sequence
        same = sequence.decode_from == self._began and self._from.decodes(sequence)
        return same and self._target.state == SERVING

    def _reserve(self) -> bool:
        """Room at the target for all that is held at the source now."""
        more = self._from.held(self._sequence) - self._reserved
        if more > 0 and not self._to.reserve(more):
            return False
        self._reserved += max(more, 0)
        return True

    def _give_up(self) -> None:
        self._fleet.migrating.discard(self._sequence)
        if self._reserved:
            self._to.release(self._reserved)

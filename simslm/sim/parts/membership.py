"""Membership: what a replica does with its requests when it fails, drains, or hands one to another replica.

Orders come at any moment and are carried out between two iterations: tokens of the iteration under way still come out.

Invariants: a replica that has been emptied holds no sequence and no block but those that are under way to it; a
sequence is in one place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from simslm.sim.parts.part import Part
from simslm.sim.parts.swap import Swap
from simslm.sim.state.sequence import PAUSED, Sequence
from simslm.sim.transit import Link, Transit

if TYPE_CHECKING:
    from simslm.sim.replica import Replica


class Membership(Part):
    """The replica's side of the fleet.

    Args:
        replica: whose part it is.
        transit: what is on its way to it and from it; None where nothing moves.
        swap: its host memory, or None.
        transfer_s_per_block: time for one block to reach another replica.

    Attributes:
        link: to other replicas, for sequences that migrate.
        on_empty: called when the replica has nothing more to do; None where that does not matter.
        transit: as above.
    """

    name: ClassVar[str] = ""

    def __init__(
        self, replica: Replica, transit: Transit | None, swap: Swap | None, transfer_s_per_block: float
    ) -> None:
        super().__init__(replica)
        self.transit = transit
        self.link = Link(transfer_s_per_block)
        self.on_empty: Callable[[], None] | None = None
        self._swap = swap
        self._due: list[Callable[[], None]] = []

    def between(self, then: Callable[[], None]) -> None:
        """Calls ``then`` as soon as no iteration is under way."""
        if self.replica.busy:
            self._due.append(then)
            self.replica.cut()
        else:
            then()

    def before(self) -> None:
        """Carries out the orders that came during the last iteration."""
        while self._due:
            self._due.pop(0)()
        self.settle()

    def gives_up(self, sequence: Sequence) -> None:
        self.settle()

    def settle(self) -> None:
        """Says so if there is nothing left to do."""
        if self.on_empty is not None and self.empty:
            self.on_empty()

    @property
    def empty(self) -> bool:
        """Whether no sequence is here or under way, and no block is held."""
        replica = self.replica
        if (
            replica.outstanding
            or replica.batch.running
            or (self.transit is not None and self.transit.arriving)
        ):
            return False
        return not replica.pool.used or (replica.store is not None and replica.store.shared)

    # ---- sequences leave ------------------------------------------------------------------------------------

    def evacuate(self) -> list[Sequence]:
        """All sequences that want more tokens leave, with nothing of what was computed but the tokens that are out.

        Called between two iterations. What has all its tokens is done with. Sequences whose blocks are under way to the
        replica come later, see :attr:`Transit.turned_away`.

        Returns:
            them, in order of their numbers.
        """
        replica = self.replica
        batch, now = replica.batch, replica.clock.now
        gone: list[Sequence] = []
        for sequence in list(batch.lingering):
            replica.dismiss(sequence)
        padded = set(batch.padded)
        for sequence in [each for each in batch.running if each not in padded]:
            replica.depart(sequence)
            gone.append(sequence)
        for sequence in batch.clear() if padded else ():
            replica.give_back(sequence, 0)
            if replica.answers_together:
                replica.answer(sequence, now)
        gone += self._waiting()
        for sequence in gone:
            replica.move_on(sequence)
        return sorted(gone, key=lambda sequence: sequence.request_id)

    def _waiting(self) -> list[Sequence]:
        """Those that wait leave."""
        replica = self.replica
        waiting = [*replica.queue, *replica.paused]
        replica.queue.clear()
        replica.paused.clear()
        replica.promised.clear()
        replica.landed = 0
        for sequence in waiting:
            if sequence.here:
                sequence.lost = sequence.prefill_tokens - sequence.remaining
                replica.give_back(sequence, 0)
            sequence.here, sequence.held = False, ()  # what was found cached for it here was not held yet
            if sequence.phase == PAUSED:
                sequence.phase = -1
        return waiting

    def turn_away(self, sequence: Sequence) -> None:
        """A sequence whose blocks have just come leaves without them."""
        sequence.lost = sequence.prefill_tokens - sequence.remaining
        self.replica.give_back(sequence, 0)
        self.replica.move_on(sequence)

    def forget(self) -> None:
        """What the replica keeps for later requests is lost: its prefix cache and the turns on its host."""
        replica, prefix = self.replica, self.replica.pool.prefix
        if prefix is not None and not (replica.store is not None and replica.store.shared):
            while prefix.evictable:
                prefix.evict()
        turns = None if self._swap is None else self._swap.turns
        while turns is not None and turns.blocks:
            turns.drop_oldest()

    # ---- sequences are moved --------------------------------------------------------------------------------

    def waits_here(self, sequence: Sequence) -> bool:
        """Whether a sequence waits with nothing computed, so that it may as well wait elsewhere."""
        replica = self.replica
        fresh = not sequence.here and not sequence.lost and not sequence.generated
        return fresh and sequence not in replica.promised and sequence in replica.queue

    def let_wait_elsewhere(self, sequence: Sequence) -> None:
        """A sequence of :meth:`waits_here` leaves the queue."""
        self.replica.queue.remove(sequence)
        sequence.held = ()  # what was found cached for it here was not held yet
        self.replica.move_on(sequence)
        self.replica.cut()

    def decodes(self, sequence: Sequence) -> bool:
        """Whether a sequence decodes here, with tokens to go and a client that waits for them."""
        return sequence.decode_from >= 0 and not sequence.cancelled and sequence in self.replica.batch.running

    def tokens(self, sequence: Sequence) -> int:
        """Tokens that a sequence which decodes has in the cache now, also in the middle of a jump."""
        return sequence.prefill_tokens + self.replica.steps_so_far(sequence)

    def blocks(self, sequence: Sequence) -> int:
        """KV blocks that those tokens take."""
        return self.replica.pool.blocks(self.tokens(sequence))

    def held(self, sequence: Sequence) -> int:
        """KV blocks that a sequence which decodes holds now: those of its tokens, or all that are reserved for it."""
        return max(self.blocks(sequence), sequence.reserved)

    def reserve(self, blocks: int) -> bool:
        """Takes blocks for a sequence that is to come; False where the running ones would lack them."""
        if blocks > self.replica.room_now():
            return False
        self.replica.pool.allocate(blocks)
        return True

    def release(self, blocks: int) -> None:
        """Blocks that were reserved are free."""
        self.replica.pool.release(blocks)
        self.replica.rouse()
        self.replica.stir()

    def take_off(self, sequence: Sequence) -> int:
        """A decoding sequence stops between two iterations and keeps its blocks here; returns how many those are."""
        replica = self.replica
        blocks = replica.detach(sequence)
        replica.move_on(sequence)
        return blocks

    def give_up(self, sequence: Sequence, blocks: int) -> None:
        """The blocks of a sequence that was taken off have been copied."""
        self.replica.give_up(sequence, blocks)
        self.replica.rouse()
        self.replica.stir()

    def receive(self, sequence: Sequence) -> None:
        """A sequence comes whose blocks are those of the common store."""
        assert self.transit is not None
        self.replica.outstanding += 1
        self.transit.land(sequence)

    def bring(self, sequence: Sequence, at_s: float, then: Callable[[], None]) -> None:
        """A sequence for which blocks are reserved is here at ``at_s``."""
        assert self.transit is not None
        self.replica.outstanding += 1
        self.replica.cut()
        self.transit.carry(sequence, at_s, then)


def membership_of(replica: Replica) -> Membership:
    """The part; only replicas of a fleet that changes have it."""
    return next(part for part in replica.parts if isinstance(part, Membership))

"""Roles: a prefill replica hands every sequence on after its first token, a decode replica takes it over.

Where both take their KV blocks from one store, nothing is copied (semi-PD, arXiv:2504.19867: disaggregated computation,
unified storage). Else the blocks cross a link, one sequence after another; they are held at both ends meanwhile
(DistServe, arXiv:2401.09670).

Invariants: a decode replica never prefills; a block is held by one sequence, or by the two copies of one while it is
transferred.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar

from simslm.sim.engine import EngineConfig
from simslm.sim.partition import Partitioner
from simslm.sim.parts.part import Part
from simslm.sim.state.sequence import Sequence
from simslm.sim.transit import Link, Transit

if TYPE_CHECKING:
    from simslm.sim.replica import Replica


class Role(Part):
    """What both roles have in common: other replicas may hold the blocks that they wait for.

    Attributes:
        partitioner: moves the split of the device, or None.
    """

    name: ClassVar[str] = "roles"

    def __init__(self, replica: Replica, transit: Transit, engine: EngineConfig) -> None:
        super().__init__(replica)
        self.partitioner: Partitioner | None = None
        self.transit = transit
        self.link = Link(engine.transfer_s_per_block)

    def after(self) -> None:
        self.replica.stir()


class Prefilling(Role):
    """Prefills; each sequence is handed to a decode replica after its first token (DistServe, §3).

    Attributes:
        hand_over: takes the sequences that are to decode, and this replica.
    """

    hand_over: Callable[[Sequence, Replica], None]

    def withholds(self) -> int:
        """The watermark while other replicas hold blocks: they grow, and a prompt must not take what they need."""
        replica = self.replica
        if (
            replica.batch.running
            or not replica.pool.used
            or replica.store is None
            or not replica.store.shared
        ):
            return 0
        return replica.watermark_blocks

    def prefilled(self, sequence: Sequence) -> bool:
        replica = self.replica
        del replica.batch.running[sequence]
        if sequence.cancelled:
            replica.drop(sequence)
            return True
        self._note(sequence)
        replica.outstanding -= 1
        self.hand_over(sequence, replica)
        return True

    def ends(self, sequence: Sequence, now: float) -> None:
        if sequence.generated and not sequence.cancelled:
            self._note(sequence)

    def let_go(self, sequence: Sequence, blocks: int) -> None:
        """The blocks of a sequence that was handed on are free here."""
        self.replica.give_up(sequence, blocks)
        self.replica.stir()

    def _note(self, sequence: Sequence) -> None:
        if self.partitioner is not None and sequence.generated == 1:
            replica = self.replica
            scheduled_s = replica.requests.first_scheduled_s[sequence.row]
            self.partitioner.prefilled(scheduled_s - sequence.arrival_s, replica.clock.time_s - scheduled_s)


class Decoding(Role):
    """Decodes what prefill replicas hand over; what it preempts by recompute goes back to be prefilled.

    Attributes:
        send_back: takes the sequences that have to be prefilled again.
        pending: sequences whose blocks are elsewhere, in the order they came; of each, the part that holds them and
            how many they are there.
    """

    send_back: Callable[[Sequence], None]

    def __init__(self, replica: Replica, transit: Transit, engine: EngineConfig) -> None:
        super().__init__(replica, transit, engine)
        self.pending: dict[Sequence, tuple[Prefilling, int]] = {}
        replica.prefills = False

    def receive(self, sequence: Sequence, source: Prefilling) -> None:
        """Takes over a sequence with its first token; its blocks are those of ``source``."""
        replica = self.replica
        replica.outstanding += 1
        if source.replica.store is replica.store:
            self.transit.land(sequence)
            return
        self.pending[sequence] = source, source.replica.held_blocks(sequence)
        sequence.blocks = replica.room(sequence)
        replica.cut()
        if not replica.busy:
            self._pull()

    def holds(self) -> Collection[Sequence]:
        return self.pending

    def rivals(self) -> Iterable[Sequence]:
        if not self.replica.ranked:
            return self.pending
        return sorted(self.pending, key=self.replica.queue.place)

    def cancels(self, sequence: Sequence) -> bool:
        if sequence not in self.pending:
            return False
        source, blocks = self.pending.pop(sequence)
        source.let_go(sequence, blocks)
        self.replica.end(sequence, self.replica.clock.time_s)
        self.replica.cut()
        return True

    def before(self) -> None:
        self._pull()

    def after(self) -> None:
        super().after()
        self._pull()

    def preempted(self, victim: Sequence, freed: int, beside: bool) -> bool:
        del freed, beside
        self.replica.outstanding -= 1
        self.send_back(victim)
        return True

    def ends(self, sequence: Sequence, now: float) -> None:
        if self.partitioner is not None and not sequence.cancelled:
            replica, row = self.replica, sequence.row
            first_s = replica.requests.first_token_s[row]
            self.partitioner.decoded((now - first_s) / (replica.output_tokens[row] - 1))

    def lose(self, source: Prefilling) -> list[Sequence]:
        """A prefill replica has failed: sequences that wait for blocks there have to be prefilled again."""
        lost = [sequence for sequence, (holder, _) in self.pending.items() if holder is source]
        for sequence in lost:
            _, blocks = self.pending.pop(sequence)
            self.replica.move_on(sequence)
            sequence.lost = sequence.prefill_tokens
            source.let_go(sequence, blocks)
        if lost:
            self.replica.cut()
        return lost

    def refer(self) -> list[tuple[Sequence, Replica]]:
        """This replica has failed: sequences whose blocks have not left their prefill replicas go on elsewhere.

        Returns:
            them, each with its prefill replica, which still holds its blocks.
        """
        found = [(sequence, holder.replica) for sequence, (holder, _) in self.pending.items()]
        self.pending.clear()
        for sequence, _ in found:
            self.replica.move_on(sequence)
        return found

    def _pull(self) -> None:
        """Begins the transfers for which there are blocks, in order; sequences that were here before come first.

        On a replica that ranks, only those of them that come before a pending one do.
        """
        replica = self.replica
        for sequence in list(self.rivals()) if self.pending else ():
            if self._come_first(sequence):
                return
            if sequence.blocks > replica.pool.free - self.transit.spare(sequence):
                return
            source, blocks = self.pending.pop(sequence)
            replica.promised.discard(sequence)
            replica.pool.allocate(sequence.blocks)
            self._transfer(sequence, source, blocks)

    def _come_first(self, sequence: Sequence) -> bool:
        """Whether paused sequences that were here before need blocks first."""
        replica = self.replica
        if not replica.paused or replica.paused[-1].here:
            return False
        if not replica.ranked:
            return True
        place = replica.queue.place
        return any(not each.here and place(each) < place(sequence) for each in replica.paused)

    def _transfer(self, sequence: Sequence, source: Prefilling, held: int) -> None:
        at_s = self.link.begin(self.replica.clock.time_s, sequence.blocks)
        self.transit.carry(sequence, at_s, lambda: source.let_go(sequence, held))


ROLES: Mapping[str, type[Role]] = {"prefill": Prefilling, "decode": Decoding}
"""The part that makes a replica one of a role."""

"""Replicas of one phase: a prefill replica hands every sequence on with its first token, a decode replica takes over.

Where both take their KV blocks from one store, nothing is copied (semi-PD, arXiv:2504.19867: disaggregated computation,
unified storage). Else the blocks cross a link, one sequence after another; they are held at both ends meanwhile.

Invariants: a decode replica never prefills; a block is held by one sequence, or by the two copies of one while it is
transferred; blocks that an iteration of a shared store needs are taken as it begins.
"""

from __future__ import annotations

from collections.abc import Callable

from simpy.events import Event

from simslm.catalog.work import IterationShape
from simslm.policies.plan import Plan
from simslm.sim.clock import URGENT
from simslm.sim.partition import Partitioner
from simslm.sim.pool import BlockStore, StorePool
from simslm.sim.roused import RousedReplica
from simslm.sim.sequence import SWAPPED, Sequence
from simslm.sim.transfer import Link


class PhaseReplica(RousedReplica):
    """What replicas of one phase have in common: others may hold the blocks that they wait for.

    Attributes:
        store: the KV memory it takes from; until :meth:`join` has been called, none.
        partitioner: moves the split of the device, or None.
    """

    __slots__ = ("partitioner", "store")

    partitioner: Partitioner | None
    store: BlockStore

    def join(self, store: BlockStore, block_size: int) -> None:
        """Takes its blocks from ``store`` from here on; before the simulation begins."""
        self.store = store
        touching, self.pool = self.pool.touching, StorePool(store, block_size)
        self.pool.touching = touching
        self.partitioner = None
        store.replicas.append(self)

    def let_go(self, sequence: Sequence) -> None:
        """The blocks of a sequence that was handed on are free here."""
        self._give_back(sequence, 0)
        self._stir()

    def _stir(self) -> None:
        """Blocks are free: whoever sleeps for want of them looks again."""
        for replica in self.store.replicas:
            if replica._wake is not None and replica.queued:
                replica.rouse()

    def _apply(self, plan: Plan, shape: IterationShape, start_s: float) -> None:
        super()._apply(plan, shape, start_s)
        self._stir()


class PrefillReplica(PhaseReplica):
    """Prefills; whoever has their first token and wants more goes on elsewhere.

    Attributes:
        hand_over: takes the sequences that are to decode, and this replica.
    """

    __slots__ = ("hand_over",)

    hand_over: Callable[[Sequence, PrefillReplica], None]

    @property
    def free_blocks(self) -> int:
        """Less the watermark while others may hold blocks: they grow, and a prompt must not take what they need."""
        free = self.pool.free
        if self.batch.running or not self.pool.used or len(self.store.replicas) == 1:
            return free
        return free - self.watermark_blocks

    def _start_decoding(self, sequence: Sequence) -> None:
        del self.batch.running[sequence]
        if sequence.cancelled:
            self._give_back(sequence, 0)
            self._end(sequence, self.clock._now)
            return
        self._note(sequence)
        self.outstanding -= 1
        sequence.blocks = self.pool.blocks(sequence.prefill_tokens)
        self.hand_over(sequence, self)

    def _end(self, sequence: Sequence, now: float) -> None:
        if sequence.generated and not sequence.cancelled:
            self._note(sequence)
        super()._end(sequence, now)

    def _note(self, sequence: Sequence) -> None:
        if self.partitioner is not None and sequence.generated == 1:
            scheduled_s = self.requests.first_scheduled_s[sequence.row]
            self.partitioner.prefilled(scheduled_s - sequence.arrival_s, self.clock._now - scheduled_s)


class DecodeReplica(PhaseReplica):
    """Decodes what prefill replicas hand over; what it preempts by recompute goes back to be prefilled.

    Attributes:
        link: blocks of other stores come over it.
        send_back: takes the sequences that have to be prefilled again.
        arriving: sequences whose blocks are elsewhere, and who holds them, in the order they came.
        in_transit: those whose blocks are under way.
    """

    __slots__ = ("arriving", "in_transit", "link", "send_back")

    link: Link
    send_back: Callable[[Sequence], None]

    def join(self, store: BlockStore, block_size: int) -> None:
        super().join(store, block_size)
        self.arriving: dict[Sequence, PhaseReplica] = {}
        self.in_transit: set[Sequence] = set()

    @property
    def queued(self) -> int:
        return len(self.swapped) + len(self.arriving) + len(self.in_transit)

    def receive(self, sequence: Sequence, source: PhaseReplica) -> None:
        """Takes over a sequence with its first token; its blocks are those of ``source``."""
        self.outstanding += 1
        if source.store is self.store:
            self._land(sequence)
            return
        self.arriving[sequence] = source
        self._cut()
        if not self._busy:
            self._pull()

    def cancel(self, sequence: Sequence) -> None:
        """As of any replica; a transfer under way is not stopped, and its sequence leaves when it is over."""
        if sequence in self.in_transit:
            sequence.cancelled = True
            return
        source = self.arriving.pop(sequence, None)
        if source is not None:
            sequence.cancelled = True
            source.let_go(sequence)
            self._end(sequence, self.clock._now)
            self._cut()
            return
        here = sequence.phase == SWAPPED and not sequence.blocks
        super().cancel(sequence)
        if here:
            self.let_go(sequence)

    def _pull(self) -> None:
        """Begins the transfers for which there are blocks, in order; those that were here before come first."""
        if self.swapped and self.swapped[-1].blocks:
            return
        while self.arriving:
            sequence = next(iter(self.arriving))
            if sequence.blocks > self.pool.free - self._spare(sequence):
                return
            source = self.arriving.pop(sequence)
            self.pool.allocate(sequence.blocks)
            self.in_transit.add(sequence)
            self._transfer(sequence, source)

    def _transfer(self, sequence: Sequence, source: PhaseReplica) -> None:
        def arrived(_event: Event) -> None:
            source.let_go(sequence)
            self.in_transit.remove(sequence)
            if not sequence.cancelled:
                self._land(sequence)
                return
            self.pool.release(sequence.blocks)
            self._end(sequence, self.clock._now)
            self._cut()
            self._stir()
            if not self._busy:
                self._pull()

        alarm = self.clock.alarm(self.link.begin(self.clock._now, sequence.blocks), URGENT)
        assert alarm.callbacks is not None
        alarm.callbacks.append(arrived)

    def _swap_in(self) -> int:
        moved = super()._swap_in()
        self._pull()
        return moved

    def _make_room(self, plan: Plan) -> tuple[Plan, int]:
        kept = super()._make_room(plan)
        self._stir()
        return kept

    def _sleep(self) -> Event:
        self._pull()
        return super()._sleep()

    def _begin(self, plan: Plan, now: float, transfer_s: float) -> IterationShape:
        shape = super()._begin(plan, now, transfer_s)
        self._queued += len(self.arriving) + len(self.in_transit)
        if len(self.store.replicas) > 1 and self.batch.decoding:
            self.pool.grow(self.batch.decoded, 1)
            self._grown = 1
        return shape

    def _apply(self, plan: Plan, shape: IterationShape, start_s: float) -> None:
        super()._apply(plan, shape, start_s)
        self._pull()

    def _requeue(self, sequence: Sequence) -> None:
        self.outstanding -= 1
        self.send_back(sequence)

    def _end(self, sequence: Sequence, now: float) -> None:
        super()._end(sequence, now)
        if self.partitioner is not None and not sequence.cancelled:
            row = sequence.row
            self.partitioner.decoded((now - self.requests.first_token_s[row]) / (self.output_tokens[row] - 1))

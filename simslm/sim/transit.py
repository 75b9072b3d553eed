"""Sequences and blocks on their way to a replica and from it, whatever makes them move.

A *paused* sequence has its tokens computed and waits to go on: its blocks are here, or on the host. They come back in
order, as slots and blocks allow, before any prompt is admitted; on a replica that ranks, together with the prompts, as
the queue orders them.

Invariants: a block is free, or held by a sequence that runs, is here, arrives or leaves; a sequence is in one place.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from simpy.events import Event

from simslm.sim.clock import URGENT
from simslm.sim.parts.part import Part
from simslm.sim.state.sequence import PAUSED, Sequence

if TYPE_CHECKING:
    from simslm.sim.parts.swap import Swap
    from simslm.sim.replica import Replica


@dataclass(slots=True)
class Link:
    """One direction of a link that KV blocks cross, one transfer after another.

    Attributes:
        s_per_block: time to move one KV block.
        free_s: when it is done with all that was begun.
    """

    s_per_block: float
    free_s: float = field(default=0.0, init=False)

    def begin(self, now: float, blocks: int) -> float:
        """Transfers blocks after all that was begun before; returns when they are across, in seconds."""
        return self.take(now, blocks * self.s_per_block)

    def take(self, now: float, seconds: float) -> float:
        """The same for a transfer of so many seconds."""
        self.free_s = max(self.free_s, now) + seconds
        return self.free_s


class Transit(Part):
    """What is on its way to a replica and from it.

    Attributes:
        arriving: sequences whose blocks are under way to the device, where room for them is taken.
        leaving: sequences whose blocks are under way from it, and how many are held until they are gone.
        host: the part that swaps, if there is one.
        turned_away: takes the sequences that come while the replica is down, which do not stay; None = they stay.
    """

    def __init__(self, replica: Replica) -> None:
        super().__init__(replica)
        self.arriving: dict[Sequence, None] = {}
        self.leaving: dict[Sequence, int] = {}
        self.host: Swap | None = None
        self.turned_away: Callable[[Sequence], None] | None = None

    def holds(self) -> Collection[Sequence]:
        return self.arriving

    def cancels(self, sequence: Sequence) -> bool:
        """A transfer under way is not stopped: its sequence goes when it is here."""
        return sequence in self.arriving

    def horizon(self, limit: int) -> int:
        """On a replica that ranks, one iteration while a sequence waits or moves: the order may change after it."""
        replica = self.replica
        return 1 if replica.ranked and (replica.queued or self.leaving) else limit

    # ---- to the device -------------------------------------------------------------------------------------

    def before(self) -> None:
        """Brings paused sequences back, in order, while there are slots and blocks."""
        replica = self.replica
        paused, running, pool = replica.paused, replica.batch.running, replica.pool
        while paused and len(running) + replica.landed < replica.max_num_seqs:
            sequence = paused[0]
            if sequence in self.leaving or sequence.blocks > pool.free - self.spare(sequence):
                return
            if replica.ranked and self._outranked(sequence):
                return
            paused.popleft()
            replica.promised.discard(sequence)
            if sequence.here:
                self.resume(sequence)
                continue
            pool.allocate(sequence.blocks)
            assert self.host is not None
            self.host.bring(sequence)

    def carry(self, sequence: Sequence, at_s: float, then: Callable[[], None]) -> None:
        """The blocks of a sequence, for which there is room, are here at ``at_s``, and then not elsewhere."""
        replica = self.replica
        self.arriving[sequence] = None

        def arrived(_event: Event) -> None:
            del self.arriving[sequence]
            then()
            if sequence.cancelled:
                replica.drop(sequence)
                replica.stir()
            elif self.turned_away is not None:
                self.turned_away(sequence)
            elif sequence.remaining:
                self.resume(sequence)
            else:
                self.land(sequence)
                return
            if replica.queued or not replica.asleep:
                replica.rouse()

        self._when(at_s, arrived)

    def land(self, sequence: Sequence) -> None:
        """The blocks of a sequence are here: it goes on as soon as there is a slot, before any that are elsewhere."""
        sequence.blocks, sequence.phase, sequence.here = 0, PAUSED, True
        paused = self.replica.paused
        place = next((i for i, other in enumerate(paused) if not other.here), len(paused))
        paused.insert(place, sequence)
        self.replica.rouse()

    def pause(self, sequence: Sequence) -> None:
        """A sequence waits, its blocks elsewhere, for as many as are free here."""
        sequence.phase = PAUSED
        self.replica.paused.append(sequence)
        self.sort()

    def sort(self) -> None:
        """The order of the paused sequences, where they are ranked."""
        replica = self.replica
        if replica.ranked and len(replica.paused) > 1:
            ordered = sorted(replica.paused, key=replica.queue.place)
            replica.paused.clear()
            replica.paused.extend(ordered)

    def resume(self, sequence: Sequence) -> None:
        """A sequence that has its blocks here decodes, or the rest of its prompt waits, before all others."""
        replica = self.replica
        if not sequence.remaining:
            sequence.here = False
            replica.batch.running[sequence] = None
            replica.start_decoding(sequence)
            return
        sequence.blocks, sequence.phase, sequence.here = 0, -1, True
        replica.landed += 1
        replica.queue.add(sequence)
        requests, row = replica.requests, sequence.row
        if requests.first_scheduled_s[row] != requests.first_scheduled_s[row]:
            requests.cached_prompt_tokens[row] = sequence.prefill_tokens - sequence.remaining

    def spare(self, sequence: Sequence) -> int:
        """Blocks to leave free when a sequence comes: without them it would be preempted in its next iteration."""
        replica = self.replica
        if replica.batch.running or (sequence.blocks and replica.pool.used):
            return max(replica.watermark_blocks, replica.decode_blocks + 1)
        return 0

    def _outranked(self, sequence: Sequence) -> bool:
        """Whether a sequence that has nothing here comes before a paused one."""
        replica = self.replica
        place = replica.queue.place
        first = next((prompt for prompt in replica.queue if not prompt.here), None)
        if first is not None and place(first) < place(sequence):
            return True
        return any(place(rival) < place(sequence) for rival in replica.rivals())

    # ---- from the device -----------------------------------------------------------------------------------

    def send(self, sequence: Sequence, blocks: int, at_s: float) -> None:
        """So many blocks, free now, are held until ``at_s``: then what was in them is elsewhere."""
        replica = self.replica
        self.leaving[sequence] = blocks
        replica.pool.allocate(blocks)

        def gone(_event: Event) -> None:
            if sequence in self.leaving:
                replica.pool.release(self.leaving.pop(sequence))
                replica.rouse()
                replica.stir()

        self._when(at_s, gone)

    def let_go(self) -> None:
        """All that leaves has left; its blocks are free."""
        self.replica.pool.release(sum(self.leaving.values()))
        self.leaving.clear()

    def _when(self, at_s: float, then: Callable[[Event], None]) -> None:
        self.replica.clock.alarm(at_s, URGENT, then)

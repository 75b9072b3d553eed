"""Urgency: sequences that run make place for more urgent ones that wait, as priorities change.

The preemption-based scheduling whose context switches FastSwitch (arXiv:2411.18424) makes cheaper. Where a sequence
goes that makes place is no matter of this part: to the host if the replica swaps, else it is prefilled again.

Invariants: no sequence is displaced by one that it would displace; a displaced sequence stays out until the one that it
made place for has been admitted, or priorities have changed.
"""

from __future__ import annotations

from heapq import merge
from typing import TYPE_CHECKING, ClassVar

from simslm.policies.priorities import PriorityPattern
from simslm.sim.parts.part import Part
from simslm.sim.state.sequence import Sequence
from simslm.sim.transit import Transit

if TYPE_CHECKING:
    from simslm.sim.replica import Replica


class Urgency(Part):
    """Redraws priorities, and displaces.

    Args:
        replica: whose part it is.
        transit: what is on its way to it and from it.
        pattern: how priorities change.
        promises: the queue does not have the urgent first, so a sequence for which others made place is admitted before
            all others; else none yields to a less urgent one, and the order of the queue does it.
    """

    name: ClassVar[str] = "urgency"
    ranks = True

    def __init__(
        self, replica: Replica, transit: Transit, pattern: PriorityPattern, *, promises: bool
    ) -> None:
        super().__init__(replica)
        self._transit = transit
        self._pattern = pattern
        self._update = pattern.every
        self._promises = promises

    def arrives(self, sequence: Sequence) -> bool:
        """Priorities that are drawn begin here."""
        if self._pattern.every:
            (sequence.priority,) = self._pattern.redraw([sequence.priority])
        return False

    def horizon(self, limit: int) -> int:
        """Up to the next priorities."""
        return min(limit, self._update - self.replica.log.count) if self._pattern.every else limit

    def after(self) -> None:
        if self._pattern.every and self.replica.log.count >= self._update:
            self._update += self._pattern.every
            self._redraw()
        if self.replica.queued:
            self._displace()

    def _redraw(self) -> None:
        """New priorities for all sequences of the replica, in order of arrival, and the order that follows."""
        replica = self.replica
        present = sorted(replica.present(), key=lambda sequence: sequence.request_id)
        drawn = self._pattern.redraw([sequence.priority for sequence in present])
        for sequence, priority in zip(present, drawn, strict=True):
            sequence.priority = priority
        replica.promised.clear()
        self._sort()

    def _sort(self) -> None:
        self.replica.queue.sort()
        self._transit.sort()

    def _displace(self) -> None:
        """Those who wait and are more urgent take the places and blocks of running ones that yield to them.

        In order, the most urgent first, until one of them would not have enough even so. Only those that decode make
        place: each admission yields a token at least, so that all are served however often priorities change.
        """
        replica = self.replica
        free = replica.pool.free + sum(self._transit.leaving.values())
        free -= replica.watermark_blocks + replica.decode_blocks + 1
        slots = replica.max_num_seqs - len(replica.batch.running) - len(self._transit.arriving)
        staying = [each for each in replica.batch.running if each.decode_from >= 0]
        leaving: list[Sequence] = []
        promised: list[Sequence] = []
        lines = replica.paused, replica.queue, replica.rivals()
        for waiting in merge(*lines, key=replica.queue.place):
            victims = self._victims(waiting, staying, waiting.blocks - free, 1 - slots)
            if victims is None:
                break
            free += sum(map(replica.held_blocks, victims)) - waiting.blocks
            slots += len(victims) - 1
            leaving += victims
            promised += [waiting] * bool(victims)
            staying = [each for each in staying if each not in victims]
        if promised and self._promises:
            replica.promised.update(promised)
            self._sort()
        for victim in leaving:
            replica.preempt(victim, beside=True)

    def _victims(
        self, waiting: Sequence, running: list[Sequence], blocks: int, slots: int
    ) -> list[Sequence] | None:
        """The running sequences that make place for one that lacks so many blocks and slots; None if too few can."""
        policy = self.replica.preemption
        assert policy is not None
        victims: list[Sequence] = []
        able: list[Sequence] | None = None
        while blocks > 0 or slots > 0:
            if able is None:
                able = [each for each in running if policy.yields(each, waiting)]
            if not able:
                return None
            victims.append(able.pop(policy.victim(able)))
            blocks -= self.replica.held_blocks(victims[-1])
            slots -= 1
        return victims

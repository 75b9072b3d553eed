"""Replicas whose blocks come and go without an iteration: transfers end, other replicas give back what they held."""

from __future__ import annotations

from simpy.events import Event

from simslm.sim.replica import Replica
from simslm.sim.sequence import SWAPPED, Sequence


class RousedReplica(Replica):
    """A replica that may sleep although somebody waits, as long as somebody else holds blocks."""

    __slots__ = ()

    def rouse(self) -> None:
        """Something has come up: a replica that sleeps looks for work, a jump ends with the iteration that runs now."""
        if self._wake is not None:
            self._wake.succeed()
            self._wake = None
        else:
            self._cut()

    def _cut(self) -> None:
        if self._busy and self.span.count > 1:
            running = self._running()
            if running < self.span.count:
                self.device.cut(self, running)

    def _sleep(self) -> Event:
        if not self.pool.used:
            return super()._sleep()
        self._unread = 0
        self._wake = Event(self.clock)
        return self._wake

    def _land(self, sequence: Sequence) -> None:
        """The blocks of a sequence are here: it decodes as soon as there is a slot, before any that are on the host."""
        sequence.blocks, sequence.phase = 0, SWAPPED
        place = next((i for i, other in enumerate(self.swapped) if other.blocks), len(self.swapped))
        self.swapped.insert(place, sequence)
        self.rouse()

    def _spare(self, sequence: Sequence) -> int:
        """Whoever comes from elsewhere needs room to go on beside what others hold, or would be back at once."""
        if self.batch.running or (sequence.blocks and self.pool.used):
            return max(self.watermark_blocks, self.decode_blocks + 1)
        return 0

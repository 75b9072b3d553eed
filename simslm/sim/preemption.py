"""What a replica does when KV blocks are short: who goes, to where, and when it comes back.

Invariant: whoever is preempted has its blocks on the host, or is in the queue with all of it to be prefilled.
"""

from __future__ import annotations

from simslm.policies.plan import Plan
from simslm.policies.preemption import PreemptionPolicy
from simslm.sim.log import RequestLog
from simslm.sim.sequence import SWAPPED, Sequence
from simslm.sim.swap import HostPool
from simslm.sim.view import Visible


class Preempting(Visible):
    """The part of :class:`~simslm.sim.replica.Replica` that preempts and swaps."""

    __slots__ = ()

    host: HostPool
    max_num_seqs: int
    max_num_batched_tokens: int
    partial: list[Sequence]
    requests: RequestLog
    watermark_blocks: int
    _displaced: bool
    _policy: PreemptionPolicy | None

    def _make_room(self, plan: Plan) -> tuple[Plan, int]:
        """Preempts those the policy names until the decoding sequences have the blocks of their next iteration.

        What they leave may be room for somebody who waits: the plan holds for one iteration.

        Returns:
            The plan without them, and the blocks swapped to the host.
        """
        moved, chunks = 0, plan.chunks
        while self.pool.needed(self.batch.decoded) > self.pool.free:
            victim = self._victim()
            if victim in self.batch.lingering:
                self._dismiss(victim)
                continue
            chunks = [chunk for chunk in chunks if chunk[0] is not victim]
            moved += self._preempt(victim)
        self._displaced = True
        kept = Plan(self, decode=self.batch.scheduled > 0)
        kept.chunks, kept.admitted, kept.padded_to = chunks, plan.admitted, plan.padded_to
        return kept, moved

    def _victim(self) -> Sequence:
        """Whose blocks are taken first; without a policy, the last admitted's."""
        if self._policy is None:
            return next(reversed(self.batch.running))
        running = list(self.batch.running)
        return running[self._policy.victim(running)]

    def _preempt(self, victim: Sequence) -> int:
        """Takes a sequence off the device: to the host if there is room, else to be prefilled again.

        Returns:
            blocks swapped to the host.
        """
        decoded = victim.decode_from >= 0
        self._depart(victim)
        self.requests.preemptions[victim.row] += 1
        blocks = self.pool.blocks(victim.prefill_tokens)
        if decoded and self.host.take(blocks):
            victim.blocks, victim.phase = blocks, SWAPPED
            self.swapped.append(victim)
            return blocks
        self._requeue(victim)
        return 0

    def _swap_in(self) -> int:
        """Brings swapped sequences back in order while they fit; returns the blocks moved."""
        moved, running = 0, self.batch.running
        while self.swapped and len(running) < self.max_num_seqs:
            sequence = self.swapped[0]
            if sequence.blocks > self.pool.free - self._spare(sequence):
                break
            self.swapped.popleft()
            self.host.fetch(sequence.blocks)
            self.pool.allocate(sequence.blocks)
            running[sequence] = None
            moved += sequence.blocks
            self._start_decoding(sequence)
        return moved

    def _spare(self, sequence: Sequence) -> int:
        """Blocks to leave free when a swapped sequence comes back."""
        del sequence
        return max(self.watermark_blocks, self.decode_blocks + 1) if self.batch.running else 0

    def _depart(self, sequence: Sequence) -> None:
        """Takes a running sequence off the device before its time."""
        raise NotImplementedError

    def _dismiss(self, sequence: Sequence) -> None:
        """A sequence that had its last token an iteration ago is seen to be done."""
        raise NotImplementedError

    def _requeue(self, sequence: Sequence) -> None:
        """Puts a sequence in the queue, all of it to be prefilled."""
        raise NotImplementedError

    def _start_decoding(self, sequence: Sequence) -> None:
        """A sequence takes part in the next decode iterations."""
        raise NotImplementedError

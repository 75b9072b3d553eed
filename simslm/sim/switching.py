"""Context switches: who runs follows priorities that change, and KV blocks move while others compute.

The mechanisms of FastSwitch (arXiv:2411.18424), each for itself: less urgent sequences make place for more urgent ones;
they are moved to the host and back while the others run (a sequence is away until its transfer is over, and its blocks
are held until then); the copy on the host is kept, so that the next time only what is new moves.

Invariants: a block is free, or held by a sequence that runs, arrives or leaves; the same blocks cross the link with and
without overlap; nobody is displaced by whom it would displace.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from heapq import merge
from itertools import takewhile
from typing import Any

from simpy.events import Event

from simslm.catalog.work import IterationShape
from simslm.cost.model import CostModel
from simslm.cost.sharing import DemandModel
from simslm.policies.plan import Plan
from simslm.policies.preemption import PreemptionPolicy
from simslm.policies.priorities import PriorityPattern
from simslm.sim.clock import URGENT, Clock
from simslm.sim.device import Device
from simslm.sim.engine import EngineConfig, Policies
from simslm.sim.log import RequestLog
from simslm.sim.replica import UNBOUNDED
from simslm.sim.roused import RousedReplica
from simslm.sim.sequence import SWAPPED, Sequence
from simslm.sim.transfer import Link
from simslm.sim.window import Window


class SwitchingReplica(RousedReplica):
    """A replica with a preemption policy, a pattern of priorities, and another way of swapping; as of any replica.

    Attributes:
        arriving: sequences whose blocks are under way to the device.
        leaving: sequences whose blocks are under way to the host, and how many they are.
        copies: blocks and tokens on the host of sequences that are on the device again.
    """

    __slots__ = (
        "_inward", "_longest", "_outward", "_overlap", "_owed", "_pattern", "_policy", "_reuse", "_until_s", "_update",
        "arriving", "copies", "leaving",
    )  # fmt: skip

    def __init__(
        self,
        index: int,
        clock: Clock,
        device: Device,
        engine: EngineConfig,
        cost: CostModel,
        demand: DemandModel | None,
        policies: Policies,
        output_tokens: array[int],
        requests: RequestLog,
        on_done: Callable[[int], None] | None,
        most_iterations: int = UNBOUNDED,
        on_window: Callable[[int, Window], None] | None = None,
    ) -> None:
        super().__init__(
            index, clock, device, engine, cost, demand, policies, output_tokens, requests, on_done,
            most_iterations, on_window,
        )  # fmt: skip
        assert policies.preemption is not None
        assert policies.priorities is not None
        self._policy: PreemptionPolicy = policies.preemption
        self._pattern: PriorityPattern = policies.priorities
        self._overlap, self._reuse = engine.swap_overlap, engine.swap_reuse
        self._longest = most_iterations
        self._update = self._pattern.every
        self._owed = 0
        self._until_s = 0.0
        self._inward, self._outward = Link(engine.swap_s_per_block), Link(engine.swap_s_per_block)
        self.arriving: dict[Sequence, None] = {}
        self.leaving: dict[Sequence, int] = {}
        self.copies: dict[Sequence, tuple[int, int]] = {}

    # ---- who is next ---------------------------------------------------------------------------------------

    @property
    def waiting(self) -> Iterable[Sequence]:
        """Those who come before the first swapped one."""
        prompts: Iterable[Sequence] = self.queue if self.pool.prefix is None else self._with_prefixes()
        if not self.swapped:
            return prompts
        first = self._rank(self.swapped[0])
        return takewhile(lambda prompt: self._rank(prompt) < first, prompts)

    @property
    def queued(self) -> int:
        return len(self.queue) + len(self.swapped) + len(self.arriving)

    def arrive(self, sequence: Sequence) -> None:
        """As of any replica; where priorities are drawn, the first one is, too."""
        if self._pattern.every:
            (sequence.priority,) = self._pattern.redraw([sequence.priority])
        super().arrive(sequence)

    def cancel(self, sequence: Sequence) -> None:
        """As of any replica; one that is under way to the device leaves when it is there."""
        if sequence in self.arriving:
            sequence.cancelled = True
            return
        landed = sequence.phase == SWAPPED and not sequence.blocks
        super().cancel(sequence)
        if landed:
            self._give_back(sequence, 0)

    def _rank(self, sequence: Sequence) -> tuple[bool, Any]:
        """Whoever has their blocks here already comes first, then whom the queue's order puts first."""
        landed = sequence.phase == SWAPPED and not sequence.blocks
        return (not landed, self.queue.place(sequence))

    def _redraw(self) -> None:
        """New priorities for everybody, in order of arrival, and the order that follows from them."""
        everybody = {*self.queue, *self.swapped, *self.arriving, *self.batch.running}
        everybody -= {*self.batch.lingering}
        present = sorted(everybody, key=lambda sequence: sequence.request_id)
        drawn = self._pattern.redraw([sequence.priority for sequence in present])
        for sequence, priority in zip(present, drawn, strict=True):
            sequence.priority = priority
        self.queue.sort()
        self._sort_swapped()

    def _sort_swapped(self) -> None:
        if len(self.swapped) > 1:
            ordered = sorted(self.swapped, key=self._rank)
            self.swapped.clear()
            self.swapped.extend(ordered)

    # ---- displacing ----------------------------------------------------------------------------------------

    def _displace(self) -> None:
        """Those who wait and are more urgent take the places and blocks of running ones that yield to them.

        In order, the most urgent first, until one of them would not have enough even so. Only those that decode make
        place: each admission yields a token at least, so that all are served however often priorities change.
        """
        batch = self.batch
        free = self.pool.free + sum(self.leaving.values())
        free -= self.watermark_blocks + self.decode_blocks + 1
        slots = self.max_num_seqs - len(batch.running) - len(self.arriving)
        staying = [each for each in batch.running if each.decode_from >= 0]
        leaving: list[Sequence] = []
        for waiting in merge(self.swapped, self.queue, key=self._rank):
            victims = self._victims(waiting, staying, waiting.blocks - free, 1 - slots)
            if victims is None:
                break
            free += sum(map(self._blocks_of, victims)) - waiting.blocks
            slots += len(victims) - 1
            leaving += victims
            staying = [each for each in staying if each not in victims]
        for victim in leaving:
            self._switch_out(victim)

    def _victims(
        self, waiting: Sequence, running: list[Sequence], blocks: int, slots: int
    ) -> list[Sequence] | None:
        """Who of those running makes place for somebody who lacks so many blocks and slots; None if not enough can."""
        victims: list[Sequence] = []
        able: list[Sequence] | None = None
        while blocks > 0 or slots > 0:
            if able is None:
                able = [each for each in running if self._policy.yields(each, waiting)]
            if not able:
                return None
            victims.append(able.pop(self._policy.victim(able)))
            blocks -= self._blocks_of(victims[-1])
            slots -= 1
        return victims

    def _blocks_of(self, running: Sequence) -> int:
        steps = self.batch.decoded - running.decode_from if running.decode_from >= 0 else 0
        return self.pool.blocks(running.prefill_tokens + steps)

    def _switch_out(self, victim: Sequence) -> None:
        """Takes a sequence off the device for a more urgent one; nobody waits for the copy if it can be overlapped."""
        if not self._overlap:
            self._owed += self._preempt(victim)
            return
        free = self.pool.free
        moved = self._leave(victim)
        if victim.phase != SWAPPED:
            return
        held = self.leaving[victim] = self.pool.free - free
        self.pool.allocate(held)

        def gone(_event: Event) -> None:
            if victim in self.leaving:
                self.pool.release(self.leaving.pop(victim))
                self.rouse()

        self._when(self._outward.take(self.clock._now, self.host.copy_s(moved)), gone)

    def _make_room(self, plan: Plan) -> tuple[Plan, int]:
        """Before anybody else goes, the iteration waits for the blocks that are under way to the host."""
        if self.leaving:
            self._until_s = self._outward.free_s
            self.pool.release(sum(self.leaving.values()))
            self.leaving.clear()
        return super()._make_room(plan)

    def _victim(self) -> Sequence:
        for sequence in self.batch.lingering:
            return sequence
        running = list(self.batch.running)
        return running[self._policy.victim(running)]

    def _preempt(self, victim: Sequence) -> int:
        moved = self._leave(victim)
        self.host.copy(moved)
        return moved

    def _leave(self, victim: Sequence) -> int:
        """As ``_preempt`` of any replica; what the host still has of the victim is not copied again.

        Returns:
            blocks to copy.
        """
        decoded = victim.decode_from >= 0
        self._depart(victim)
        self.requests.preemptions[victim.row] += 1
        blocks = self.pool.blocks(victim.prefill_tokens)
        there, tokens = self.copies.pop(victim, (0, 0))
        if decoded and self._host_room(blocks - there):
            self.host.free -= blocks - there
            moved = blocks - tokens // self.pool.block_size
            victim.blocks, victim.phase = blocks, SWAPPED
            self.swapped.append(victim)
            self._sort_swapped()
            return moved
        self.host.release(there)
        self._requeue(victim)
        return 0

    def _host_room(self, blocks: int) -> bool:
        """Makes room on the host, if need be of copies that are not needed, the oldest first."""
        if blocks > self.host.free + sum(there for there, _ in self.copies.values()):
            return False
        while blocks > self.host.free:
            oldest = next(iter(self.copies))
            self.host.release(self.copies.pop(oldest)[0])
        return True

    # ---- coming back ---------------------------------------------------------------------------------------

    def _swap_in(self) -> int:
        moved, self._owed = self._owed, 0
        running = self.batch.running
        while self.swapped and len(running) < self.max_num_seqs:
            sequence = self.swapped[0]
            if sequence in self.leaving or sequence.blocks > self.pool.free - self._spare(sequence):
                break
            if self.queue and self._rank(self.queue[0]) < self._rank(sequence):
                break
            self.swapped.popleft()
            blocks = sequence.blocks
            self.pool.allocate(blocks)
            if blocks and self._overlap:
                self._bring(sequence)
                continue
            if blocks:
                self._fetched(sequence)
                self.host.copy(blocks)
            moved += blocks
            running[sequence] = None
            self._start_decoding(sequence)
        return moved

    def _bring(self, sequence: Sequence) -> None:
        """Its blocks come while the others run."""
        self.arriving[sequence] = None

        def arrived(_event: Event) -> None:
            del self.arriving[sequence]
            self._fetched(sequence)
            if not sequence.cancelled:
                self._land(sequence)
                return
            self._give_back(sequence, 0)
            self._end(sequence, self.clock._now)
            self.rouse()

        self._when(self._inward.take(self.clock._now, self.host.copy_s(sequence.blocks)), arrived)

    def _fetched(self, sequence: Sequence) -> None:
        """The blocks of a sequence are on the device; the copy on the host stays there or goes."""
        if self._reuse:
            self.copies[sequence] = sequence.blocks, sequence.prefill_tokens
        else:
            self.host.release(sequence.blocks)

    def _when(self, time: float, then: Callable[[Event], None]) -> None:
        alarm = self.clock.alarm(time, URGENT)
        assert alarm.callbacks is not None
        alarm.callbacks.append(then)

    # ---- around an iteration -------------------------------------------------------------------------------

    def _begin(self, plan: Plan, now: float, transfer_s: float) -> IterationShape:
        """While somebody waits or is under way, iterations are taken one by one; else up to the next priorities."""
        if self.queue or self.swapped or self.arriving or self.leaving:
            self.most_iterations = 1
        elif self._pattern.every:
            self.most_iterations = min(self._longest, self._update - self.log.count)
        else:
            self.most_iterations = self._longest
        if self._overlap and transfer_s:
            self._until_s = self._outward.take(now, transfer_s)
        if self._until_s > now:
            transfer_s = self._until_s - now
        shape = super()._begin(plan, now, transfer_s)
        self._queued += len(self.arriving)
        return shape

    def _apply(self, plan: Plan, shape: IterationShape, start_s: float) -> None:
        super()._apply(plan, shape, start_s)
        if self._pattern.every and self.log.count >= self._update:
            self._update += self._pattern.every
            self._redraw()
        if self.queue or self.swapped:
            self._displace()

    def _end(self, sequence: Sequence, now: float) -> None:
        there, _ = self.copies.pop(sequence, (0, 0))
        self.host.release(there)
        super()._end(sequence, now)

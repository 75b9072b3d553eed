"""Context switches: who runs follows priorities that change, and KV blocks move while others compute.

The mechanisms of FastSwitch (arXiv:2411.18424), each for itself: less urgent sequences make place for more urgent ones;
they are moved to the host and back while the others run (a sequence is away until its transfer is over, and its blocks
are held until then); the copy on the host is kept, so that the next time only what is new moves; and what a finished
turn has computed stays on the host for the next turn of its session, which computes only the rest of its prompt.

Invariants: a block is free, or held by a sequence that runs, arrives, leaves, or has landed; a block on the host is
free, or of a swapped or returning sequence, of a copy, or of a finished turn; the same blocks cross the link with and
without overlap; nobody is displaced by whom it would displace, and who was displaced stays out until the one that it
made place for has been admitted, or priorities have changed.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from heapq import merge
from itertools import takewhile
from math import isnan
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
from simslm.sim.queue import WaitingQueue
from simslm.sim.replica import UNBOUNDED
from simslm.sim.roused import RousedReplica
from simslm.sim.sequence import SWAPPED, Sequence
from simslm.sim.transfer import Link
from simslm.sim.turns import HostCopy, KeptTurns, Turn
from simslm.sim.window import Window

NOTHING = HostCopy(0, 0)
"""What the host has of a sequence that was never there."""


class SwitchingReplica(RousedReplica):
    """A replica with a preemption policy, a pattern of priorities, and another way of swapping; as of any replica.

    Attributes:
        arriving: sequences whose blocks are under way to the device.
        leaving: sequences whose blocks are under way to the host, and how many they are.
        copies: what the host has of sequences that are on the device again.
        returning: what the host has of sequences that wait for it, of which not all is computed: they are among the
            swapped ones, and their prompts go on when it is here.
        landed: those of them that have it and wait for their first iteration, at the head of the queue.
        promised: those that wait and for which others made place: they come before all that have nothing here. Empty
            where the queue has the urgent first, for nobody yields to the less urgent.
        turns: finished turns on the host, or None.
    """

    __slots__ = (
        "_inward", "_longest", "_outward", "_overlap", "_owed", "_pattern", "_promises", "_reuse", "_until_s",
        "_update",
        "arriving", "copies", "landed", "leaving", "promised", "returning", "turns",
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
        self._promises = not policies.order.urgent_first
        self._overlap, self._reuse = engine.swap_overlap, engine.swap_reuse
        self._longest = most_iterations
        self._update = self._pattern.every
        self._owed = 0
        self._until_s = 0.0
        self._inward, self._outward = Link(engine.swap_s_per_block), Link(engine.swap_s_per_block)
        self.arriving: dict[Sequence, None] = {}
        self.leaving: dict[Sequence, int] = {}
        self.copies: dict[Sequence, HostCopy] = {}
        self.returning: dict[Sequence, HostCopy] = {}
        self.landed: dict[Sequence, None] = {}
        self.promised: set[Sequence] = set()
        self.turns = KeptTurns(self.host, engine.block_size) if engine.swap_turns else None
        key = policies.order.key
        self.queue = WaitingQueue(
            lambda sequence: (not self._here(sequence), sequence not in self.promised, key(sequence))
        )

    # ---- who is next ---------------------------------------------------------------------------------------

    @property
    def waiting(self) -> Iterable[Sequence]:
        """Those who come before the first swapped one."""
        prompts: Iterable[Sequence] = self.queue if self.pool.prefix is None else self._with_prefixes()
        if not self.swapped:
            return prompts
        first = self.queue.place(self.swapped[0])
        return takewhile(lambda prompt: self.queue.place(prompt) < first, prompts)

    @property
    def queued(self) -> int:
        return len(self.queue) + len(self.swapped) + len(self.arriving)

    def arrive(self, sequence: Sequence) -> None:
        """As of any replica; priorities that are drawn begin here; a turn that goes on from the last one returns."""
        if self._pattern.every:
            (sequence.priority,) = self._pattern.redraw([sequence.priority])
        there = None if self.turns is None else self.turns.claim(sequence)
        if there is None:
            super().arrive(sequence)
            return
        self.outstanding += 1
        self._return(sequence, there)
        self.rouse()

    def cancel(self, sequence: Sequence) -> None:
        """As of any replica; one that is under way to the device leaves when it is there."""
        if sequence in self.arriving:
            sequence.cancelled = True
            return
        here = self._here(sequence)
        if (there := self.returning.pop(sequence, None)) is not None:
            self.host.release(there.blocks)
            sequence.blocks = 0
        self.landed.pop(sequence, None)
        super().cancel(sequence)
        self.promised.discard(sequence)
        if here:
            self._give_back(sequence, 0)

    def _here(self, sequence: Sequence) -> bool:
        """Whether somebody who waits has all their blocks on the device already; they come first."""
        return sequence in self.landed or (sequence.phase == SWAPPED and not sequence.blocks)

    def _redraw(self) -> None:
        """New priorities for everybody, in order of arrival, and the order that follows from them."""
        everybody = {*self.queue, *self.swapped, *self.arriving, *self.batch.running}
        everybody -= {*self.batch.lingering}
        present = sorted(everybody, key=lambda sequence: sequence.request_id)
        drawn = self._pattern.redraw([sequence.priority for sequence in present])
        for sequence, priority in zip(present, drawn, strict=True):
            sequence.priority = priority
        self.promised.clear()
        self.queue.sort()
        self._sort_swapped()

    def _sort_swapped(self) -> None:
        if len(self.swapped) > 1:
            ordered = sorted(self.swapped, key=self.queue.place)
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
        promised: list[Sequence] = []
        for waiting in merge(self.swapped, self.queue, key=self.queue.place):
            victims = self._victims(waiting, staying, waiting.blocks - free, 1 - slots)
            if victims is None:
                break
            free += sum(map(self._blocks_of, victims)) - waiting.blocks
            slots += len(victims) - 1
            leaving += victims
            promised += [waiting] * bool(victims)
            staying = [each for each in staying if each not in victims]
        if promised and self._promises:
            self.promised.update(promised)
            self.queue.sort()
            self._sort_swapped()
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
        if victim.phase == SWAPPED and victim not in self.returning:
            self._send(victim, moved, self.pool.free - free)

    def _send(self, sequence: Sequence, moved: int, held: int) -> float:
        """Copies blocks to the host while the others run; until they are there, ``held`` of them are not free here.

        Returns:
            when that is, in seconds.
        """
        self.leaving[sequence] = held
        self.pool.allocate(held)

        def gone(_event: Event) -> None:
            if sequence in self.leaving:
                self.pool.release(self.leaving.pop(sequence))
                self.rouse()

        there_s = self._outward.take(self.clock._now, self.host.copy_s(moved))
        self._when(there_s, gone)
        return there_s

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

        If there is no room for the rest, or the prompt was not complete, it comes back to what the host has; with a
        prefix cache, which may have as much, it begins anew.

        Returns:
            blocks to copy.
        """
        decoded = victim.decode_from >= 0
        self._depart(victim)
        self.requests.preemptions[victim.row] += 1
        blocks = self.pool.blocks(victim.prefill_tokens)
        there = self.copies.pop(victim, NOTHING)
        if decoded and self._host_room(blocks - there.blocks):
            self.host.free -= blocks - there.blocks
            victim.blocks, victim.phase = blocks, SWAPPED
            self.swapped.append(victim)
            self._sort_swapped()
            return blocks - there.tokens // self.pool.block_size
        if there.tokens and self.pool.prefix is None:
            self._return(victim, there)
        else:
            self.host.release(there.blocks)
            self._requeue(victim)
        return 0

    def _host_room(self, blocks: int) -> bool:
        """Makes room on the host, if need be of finished turns, and then of copies; of each the oldest first."""
        host, turns = self.host, self.turns
        kept = 0 if turns is None else turns.blocks
        if blocks > host.free + kept + sum(there.blocks for there in self.copies.values()):
            return False
        while blocks > host.free:
            if turns is not None and turns.blocks:
                turns.drop_oldest()
            else:
                host.release(self.copies.pop(next(iter(self.copies))).blocks)
        return True

    # ---- turns that are over -------------------------------------------------------------------------------

    def _give_back(self, sequence: Sequence, steps: int) -> None:
        """As of any replica; a finished turn goes to the host."""
        free = self.pool.free
        super()._give_back(sequence, steps)
        finished = sequence.generated + steps >= self.output_tokens[sequence.row]
        if self.turns is not None and finished:
            self._keep(self.turns, sequence, sequence.prefill_tokens + steps, self.pool.free - free)

    def _keep(self, turns: KeptTurns, sequence: Sequence, tokens: int, freed: int) -> None:
        """Copies what is new of a turn of ``tokens`` tokens to the host, if there is room."""
        there, blocks = self.copies.pop(sequence, NOTHING), self.pool.blocks(tokens)
        turns.forget(sequence.session_id)
        unknown = sequence.session_id < 0 or not sequence.unit_tokens
        if unknown or not self._host_room(blocks - there.blocks):
            self.host.release(there.blocks)
            return
        self.host.free -= blocks - there.blocks
        moved = blocks - there.tokens // self.pool.block_size
        there_s = 0.0
        if self._overlap:
            there_s = self._send(sequence, moved, min(moved, freed))
        else:
            self.host.copy(moved)
            self._owed += moved
        units = sequence.context_units[: tokens // sequence.unit_tokens]
        copy = HostCopy(blocks, tokens, there_s)
        turns.keep(sequence.session_id, Turn(copy, units, sequence.unit_tokens))

    # ---- coming back ---------------------------------------------------------------------------------------

    def _return(self, sequence: Sequence, there: HostCopy) -> None:
        """A sequence waits for what the host has of it; the rest is to be prefilled."""
        self.returning[sequence] = there
        sequence.prefill_tokens = sequence.prompt_tokens + sequence.generated
        sequence.remaining = sequence.prefill_tokens - there.tokens
        sequence.blocks, sequence.phase = self.pool.blocks(sequence.prefill_tokens), SWAPPED
        self.swapped.append(sequence)
        self._sort_swapped()

    def _swap_in(self) -> int:
        moved, running = 0, self.batch.running
        while self.swapped and len(running) + len(self.landed) < self.max_num_seqs:
            sequence = self.swapped[0]
            if sequence in self.leaving or sequence.blocks > self.pool.free - self._spare(sequence):
                break
            if self._outranked(sequence):
                break
            self.swapped.popleft()
            self.promised.discard(sequence)
            self.pool.allocate(sequence.blocks)
            copied = self.returning[sequence].blocks if sequence in self.returning else sequence.blocks
            if sequence.blocks and self._overlap:
                self._bring(sequence, copied)
                continue
            if sequence.blocks:
                self._fetched(sequence)
                self.host.copy(copied)
            moved += copied
            self._resume(sequence)
        return moved

    def _outranked(self, sequence: Sequence) -> bool:
        """Whether a prompt that has nothing here comes before a swapped sequence."""
        first = next((prompt for prompt in self.queue if prompt not in self.landed), None)
        return first is not None and self.queue.place(first) < self.queue.place(sequence)

    def _bring(self, sequence: Sequence, blocks: int) -> None:
        """Its blocks come while the others run."""
        self.arriving[sequence] = None

        def arrived(_event: Event) -> None:
            del self.arriving[sequence]
            self._fetched(sequence)
            if sequence.cancelled:
                self._give_back(sequence, 0)
                self._end(sequence, self.clock._now)
            elif sequence.remaining:
                self._resume(sequence)
            else:
                self._land(sequence)
                return
            self.rouse()

        there_s = self.returning[sequence].there_s if sequence in self.returning else 0.0
        begin_s = max(self.clock._now, there_s)
        self._when(self._inward.take(begin_s, self.host.copy_s(blocks)), arrived)

    def _fetched(self, sequence: Sequence) -> None:
        """What the host has of a sequence is on the device; the copy stays there or goes."""
        there = self.returning.pop(sequence, None) or HostCopy(sequence.blocks, sequence.prefill_tokens)
        if self._reuse:
            self.copies[sequence] = there
        else:
            self.host.release(there.blocks)

    def _resume(self, sequence: Sequence) -> None:
        """A sequence that has its blocks here decodes, or the rest of its prompt waits, before all others."""
        if not sequence.remaining:
            self.batch.running[sequence] = None
            self._start_decoding(sequence)
            return
        sequence.blocks, sequence.phase = 0, -1
        self.landed[sequence] = None
        self.queue.add(sequence)
        requests, row = self.requests, sequence.row
        if isnan(requests.first_scheduled_s[row]):
            requests.cached_prompt_tokens[row] = sequence.prefill_tokens - sequence.remaining

    def _admit(self, plan: Plan, now: float) -> None:
        super()._admit(plan, now)
        prompt: Any
        for prompt, _ in plan.chunks if self.landed or self.promised else ():
            self.landed.pop(prompt, None)
            self.promised.discard(prompt)

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
        if self._owed:
            transfer_s += self.host.transfer_s(self._owed)
            self._owed = 0
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
        """As of any replica; the copy of a turn that lingers is needed until its blocks are given back."""
        if self.turns is None or sequence not in self.batch.lingering:
            self.host.release(self.copies.pop(sequence, NOTHING).blocks)
        super()._end(sequence, now)

"""One replica of the engine: form a batch, ask its cost, wait, apply.

Invariants: requests and tokens are conserved; a replica with work it may run never idles; only ``_apply``,
``_begin`` and ``_preempt`` change state; running ``k`` iterations in one jump leaves the same bits as one by one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import cast

import numpy as np
from simpy.events import Event

from simslm.catalog.work import IterationShape
from simslm.cost.model import CostModel
from simslm.errors import SimslmError
from simslm.policies.plan import BatchingPolicy, Plan
from simslm.sim.blocks import BlockPool
from simslm.sim.clock import Alarm, Clock, turn
from simslm.sim.log import FINISHED, ReplicaLog, RequestLog
from simslm.sim.sequence import Sequence

VECTOR_FROM = 16
"""Iterations from which a jump is worth a numpy call; the result is the same either way."""

UNBOUNDED = 1 << 60


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """The limits of one replica, under vLLM's names; ``watermark_blocks`` are kept free when admitting."""

    max_num_seqs: int
    max_num_batched_tokens: int
    num_gpu_blocks: int
    block_size: int
    watermark_blocks: int


class Replica:
    """A process of the simulation; to its policies it is the read-only ``ReplicaView``.

    Args:
        index: its number, written into the log.
        clock: the simulation's clock.
        engine: its limits.
        cost: seconds of an iteration.
        batching: who runs next.
        output_tokens: true output length per request; the policies do not see it.
        requests: where the fate of each request is noted.
        on_finish: called with a request's id when its last token is out.
        most_iterations: longest jump; 1 steps through every iteration.
    """

    def __init__(
        self,
        index: int,
        clock: Clock,
        engine: EngineConfig,
        cost: CostModel,
        batching: BatchingPolicy,
        output_tokens: list[int],
        requests: RequestLog,
        on_finish: Callable[[int], None],
        most_iterations: int = UNBOUNDED,
    ) -> None:
        self.index = index
        self.clock = clock
        self.cost = cost
        self.batching = batching
        self.output_tokens = output_tokens
        self.requests = requests
        self.on_finish = on_finish
        self.most_iterations = most_iterations
        self.max_num_seqs = engine.max_num_seqs
        self.max_num_batched_tokens = engine.max_num_batched_tokens
        self.watermark_blocks = engine.watermark_blocks
        self.pool = BlockPool(engine.num_gpu_blocks, engine.block_size)
        self.log = ReplicaLog()
        self.waiting: deque[Sequence] = deque()
        self.partial: list[Sequence] = []
        self.running: dict[Sequence, None] = {}
        self.outstanding = 0
        self.decoding = 0
        self.context = 0
        self.decoded = 0
        self.last_decode_s = 0.0
        self._calendar: dict[int, list[Sequence]] = {}
        self._finishes: list[int] = []
        self._ends: list[float] = []
        self._priority = turn(index)
        self._queued = 0
        self._blocked = False
        self._alarm: Alarm | None = None
        self._wake: Event | None = None

    @property
    def free_blocks(self) -> int:
        return self.pool.free

    @property
    def decode_blocks(self) -> int:
        return self.pool.demand(self.decoded)

    def run(self) -> Generator[Event, None, None]:
        """The whole life of the replica, as a SimPy process."""
        while True:
            plan = self.batching.plan(self)
            if plan.empty:
                yield self._sleep()
                continue
            if plan.decode:
                self._make_room(plan)
            start_s = self.clock.now
            shape = self._begin(plan)
            self._alarm = self.clock.alarm(self._ends[-1], self._priority)
            yield self._alarm
            self._alarm = None
            self._apply(plan, shape, start_s)

    def arrive(self, sequence: Sequence) -> None:
        """A request joins the queue; a jump under way ends with the iteration that is running now."""
        self.waiting.append(sequence)
        self.outstanding += 1
        if self._wake is not None:
            self._wake.succeed()
            self._wake = None
        elif self._alarm is not None and len(self._ends) > 1:
            running = bisect_left(self._ends, self.clock.now) + 1
            if self._blocked:
                if running < len(self._ends):
                    self.log.late.append(len(self.log.ends) + running)
            elif running < len(self._ends):
                del self._ends[running:]
                self._alarm = self._alarm.advance(self._ends[-1])

    def _sleep(self) -> Event:
        if self.waiting:
            raise SimslmError(
                f"replica {self.index} stands idle with {len(self.waiting)} requests waiting",
                remedy="the batching policy admits none of them although nothing else runs",
            )
        self._wake = Event(self.clock)
        return self._wake

    def _make_room(self, plan: Plan) -> None:
        """Preempts the youngest until the decoding sequences have the blocks of their next iteration."""
        while self.pool.demand(self.decoded) > self.pool.free:
            victim = next(reversed(self.running))
            if victim.decode_from < 0:
                plan.chunks = [chunk for chunk in plan.chunks if chunk[0] is not victim]
            self._preempt(victim)
        plan.decode = self.decoding > 0

    def _preempt(self, victim: Sequence) -> None:
        """Drops a sequence's KV and puts it first in the queue, to be prefilled again (recompute)."""
        del self.running[victim]
        if victim.decode_from < 0:
            self.partial.remove(victim)
            self.pool.release(victim.blocks)
        else:
            steps = self.decoded - victim.decode_from
            if steps:
                victim.last_token_s = self.last_decode_s
            victim.generated += steps
            finishers = self._calendar[victim.decode_last]
            finishers.remove(victim)
            if not finishers:
                del self._calendar[victim.decode_last]
            self._leave(victim, steps)
            victim.decode_from = -1
        victim.prefill_tokens = victim.remaining = victim.prompt_tokens + victim.generated
        victim.blocks = self.pool.blocks(victim.prefill_tokens)
        self.requests.preemptions[victim.request_id] += 1
        self.waiting.appendleft(victim)

    def _leave(self, sequence: Sequence, steps: int) -> None:
        """Takes a sequence that decoded ``steps`` times since its prefill out of the aggregates."""
        cached = sequence.prefill_tokens + steps
        self.pool.stop(sequence.phase, cached)
        self.context -= cached
        self.decoding -= 1
        self.log.segments[sequence.segment + 4] = self.decoded

    def _begin(self, plan: Plan) -> IterationShape:
        """Admits what the plan admits, and works out when the iterations it covers end."""
        now = self.clock.now
        for prompt, _ in plan.chunks if plan.admitted else ():
            sequence = cast(Sequence, prompt)
            if sequence not in self.running:
                self._admit(sequence, now)
        decoding = self.decoding if plan.decode else 0
        context = self.context if plan.decode else 0
        self._queued = len(self.waiting)
        self._blocked = self._queued > 0 and not plan.chunks
        if plan.chunks:
            shape = _shape(decoding, context, plan)
            self._ends = [now + self.cost.latency_s(shape)]
            return shape
        self._ends = self._decode_ends(now, decoding, context)
        return IterationShape(decoding, context)

    def _admit(self, sequence: Sequence, now: float) -> None:
        if self.waiting[0] is sequence:
            self.waiting.popleft()
        else:
            self.waiting.remove(sequence)
        self.pool.allocate(sequence.blocks)
        self.running[sequence] = None
        self.partial.append(sequence)
        scheduled = self.requests.first_scheduled_s
        if scheduled[sequence.request_id] != scheduled[sequence.request_id]:
            scheduled[sequence.request_id] = now

    def _decode_ends(self, now: float, decoding: int, context: int) -> list[float]:
        """Ends of the decode iterations until one finishes a sequence or runs out of blocks."""
        finishes = self._finishes
        while finishes[0] not in self._calendar:
            heappop(finishes)
        limit = min(finishes[0] - self.decoded + 1, self.most_iterations)
        count = self.pool.horizon(self.decoded, limit)
        line = self.cost.decode(decoding)
        if count < VECTOR_FROM:
            ends = []
            for _ in range(count):
                now += line.latency_s(context)
                ends.append(now)
                context += decoding
            return ends
        latencies = np.empty(count + 1)
        latencies[0] = now
        latencies[1:] = line.latencies_s(context + decoding * np.arange(count))
        return np.add.accumulate(latencies)[1:].tolist()

    def _apply(self, plan: Plan, shape: IterationShape, start_s: float) -> None:
        """The plan's iterations are over: tokens are out, requests finish, prompts move on to decoding."""
        ends, log, iterations = self._ends, self.log, len(self._ends)
        log.spans.extend((iterations, start_s, *shape, self._queued, len(self.running)))
        now = ends[-1]
        iteration = len(log.ends)
        log.ends.extend(ends)
        if plan.decode:
            self.pool.grow(self.decoded, iterations, log.used_blocks)
            self.decoded += iterations
            self.context += self.decoding * iterations
            self.last_decode_s = now
            finishers = self._calendar.pop(self.decoded - 1, None)
            if finishers:
                heappop(self._finishes)
                for sequence in finishers:
                    self._leave(sequence, self.decoded - sequence.decode_from)
                    self._finish(sequence, now)
        else:
            log.used_blocks.append(self.pool.used)
        for prompt, tokens in plan.chunks:
            sequence = cast(Sequence, prompt)
            log.chunks.extend((iteration, sequence.request_id, tokens))
            sequence.remaining -= tokens
            if not sequence.remaining:
                self._emit(sequence, now)

    def _emit(self, sequence: Sequence, now: float) -> None:
        """A prefill is complete: its token is out, and the sequence finishes or goes on decoding."""
        request = sequence.request_id
        self.partial.remove(sequence)
        if sequence.generated == 0:
            self.requests.first_token_s[request] = now
        sequence.generated += 1
        sequence.segment = len(self.log.segments)
        self.log.segments.extend((request, now, sequence.last_token_s, self.decoded, self.decoded))
        sequence.last_token_s = now
        left = self.output_tokens[request] - sequence.generated
        if not left:
            self.pool.release(sequence.blocks)
            self._finish(sequence, now)
            return
        sequence.decode_from = self.decoded
        sequence.decode_last = self.decoded + left - 1
        sequence.phase = self.pool.start(sequence.prefill_tokens, self.decoded)
        self.decoding += 1
        self.context += sequence.prefill_tokens
        finishers = self._calendar.get(sequence.decode_last)
        if finishers is None:
            self._calendar[sequence.decode_last] = [sequence]
            heappush(self._finishes, sequence.decode_last)
        else:
            finishers.append(sequence)

    def _finish(self, sequence: Sequence, now: float) -> None:
        del self.running[sequence]
        self.outstanding -= 1
        self.requests.finish_s[sequence.request_id] = now
        self.requests.status[sequence.request_id] = FINISHED
        self.on_finish(sequence.request_id)


def _shape(decoding: int, context: int, plan: Plan) -> IterationShape:
    """The shape of an iteration that prefills."""
    tokens = cached = 0
    pairs = 0.0
    for prompt, new in plan.chunks:
        before = cast(Sequence, prompt).cached
        tokens += new
        cached += before
        pairs += new * (before + (new + 1) / 2)
    return IterationShape(decoding, context, len(plan.chunks), tokens, cached, pairs)

"""One replica of the engine: form a batch, ask its cost, wait, apply.

Invariants: requests and tokens are conserved; a replica with work it may run never idles; running ``k``
iterations in one jump leaves the same bits as one by one.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Generator
from math import inf
from typing import Any

from simpy.events import Event

from simslm.catalog.work import IterationShape
from simslm.cost.model import CostModel
from simslm.cost.sharing import DemandModel
from simslm.errors import SimslmError
from simslm.policies.plan import Plan
from simslm.sim.batch import Batch
from simslm.sim.blocks import BlockPool
from simslm.sim.clock import Clock, turn
from simslm.sim.device import Device
from simslm.sim.engine import EngineConfig, Policies
from simslm.sim.log import FAILED, FINISHED, PACK_CHUNK, PACK_SPAN, PACK_STAY, ReplicaLog, RequestLog
from simslm.sim.preemption import Preempting
from simslm.sim.prefix import PrefixCache
from simslm.sim.queue import WaitingQueue
from simslm.sim.sequence import SWAPPED, Sequence
from simslm.sim.shape import decode_shape, layered_shape, prefill_shape
from simslm.sim.span import Span
from simslm.sim.swap import HostPool
from simslm.sim.window import Window

UNBOUNDED = 1 << 60


class Replica(Preempting):
    """A process of the simulation; what others see of it is :class:`~simslm.sim.view.Visible`.

    Args:
        index: its number, written into the log.
        clock: the simulation's clock.
        device: runs its iterations.
        engine: its limits.
        cost: seconds of an iteration.
        demand: what an iteration asks of a shared device; None on a device of its own.
        policies: who runs next, who waits where, who is let in.
        output_tokens: true output length by row; the policies do not see it.
        requests: where the fate of each request is noted, by row.
        on_done: called with a request's row when its last token is out or its client has gone; None = nobody listens.
        most_iterations: longest jump; 1 steps through every iteration.
        on_window: takes the log whenever it is full; None leaves it to grow.
    """

    __slots__ = (
        "_blocked", "_busy", "_demand", "_displaced", "_grown", "_holds", "_last_decode_s", "_late",
        "_leaving", "_policy", "_prefill_shape", "_queued", "_reserves", "_together", "_unread", "_used",
        "_wake", "admission", "batch", "batching", "clock", "cost", "device", "host", "index", "log",
        "max_num_batched_tokens", "max_num_seqs", "most_iterations", "on_done", "on_window", "output_tokens",
        "outstanding", "partial", "pool", "priority", "queue", "requests", "sm_fraction", "span", "swapped",
        "watermark_blocks",
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
        self.index = index
        self.clock = clock
        self.device = device
        self.cost = cost
        self.batching = policies.batching
        self.admission = policies.admission
        self._policy = policies.preemption
        self.output_tokens = output_tokens
        self.requests = requests
        self.on_done = on_done
        self.most_iterations = most_iterations
        self.on_window = on_window
        self.priority = turn(index)
        self.max_num_seqs = engine.max_num_seqs
        self.max_num_batched_tokens = engine.max_num_batched_tokens
        self.watermark_blocks = engine.watermark_blocks
        self.sm_fraction = engine.sm_fraction
        prefix = PrefixCache() if engine.prefix_caching else None
        self.pool = BlockPool(engine.num_gpu_blocks, engine.block_size, prefix)
        self.host = HostPool(
            engine.swap_blocks, engine.swap_s_per_block, engine.swap_s_per_call, engine.swap_group_blocks
        )
        self.log = ReplicaLog(engine.block_size)
        self.queue = WaitingQueue(policies.order.key)
        self.swapped: deque[Sequence] = deque()
        self.batch = Batch()
        self.partial = self.batch.partial
        self.outstanding = 0
        self.span = Span(0.0, 0.0, 0.0, 0, 0, 0)
        self._demand = demand
        self._prefill_shape = layered_shape if policies.batching.by_layers else prefill_shape
        self._last_decode_s = 0.0
        self._holds, self._reserves = policies.batching.holds_batch, policies.batching.reserves_output
        self._late = engine.late_output and not self._holds
        self.pool.touching = self.batch.running if engine.spare_block and not self._reserves else None
        self._together = policies.batching.returns_batch
        self.log.at_once = 0 if self._together else None
        self._leaving = False
        self._unread = 0
        self._queued = 0
        self._blocked = False
        self._displaced = False
        self._grown = 0
        self._used = 0
        self._busy = False
        self._wake: Event | None = None

    # ---- the loop ------------------------------------------------------------------------------------------

    def run(self) -> Generator[Event, None, None]:
        """The whole life of the replica, as a SimPy process."""
        batch, pool, queue, clock = self.batch, self.pool, self.queue, self.clock
        execute, only_decode, priority = self.device.execute, Plan(self, decode=True), self.priority
        moved = 0
        while True:
            if self.swapped:
                moved += self._swap_in()
            plan = self.batching.plan(self) if queue or batch.partial else only_decode
            if not (batch.scheduled if plan is only_decode else plan.tokens):
                yield self._sleep()
                continue
            if plan.decode and pool.free <= batch.rows and pool.needed(batch.decoded) > pool.free:
                plan, blocks = self._make_room(plan)
                moved += blocks
                if not plan.decode and not plan.chunks:
                    continue
            start_s = clock._now
            shape = self._begin(plan, start_s, self.host.transfer_s(moved) if moved else 0.0)
            moved = 0
            self._busy = True
            yield execute(self, shape)
            clock.acted_s = clock._now
            clock.actor = priority
            self._busy = False
            self._apply(plan, shape, start_s)

    def arrive(self, sequence: Sequence) -> None:
        """A request joins the queue; a jump under way ends with the iteration that is running now."""
        self._requeue(sequence)
        self.outstanding += 1
        if self._wake is not None:
            self._wake.succeed()
            self._wake = None
        elif self._busy and self.span.count > 1:
            running = self._running()
            if running == self.span.count:
                return
            if self._blocked and self.queue[0] is not sequence:
                self.log.late.append(self.log.count + running)
            else:
                self.device.cut(self, running)

    def cancel(self, sequence: Sequence) -> None:
        """The client has gone: a waiting request leaves at once, a running one after the present iteration."""
        sequence.cancelled = True
        if sequence in self.batch.running:
            self._leaving = True
        else:
            (self.swapped if sequence.phase == SWAPPED else self.queue).remove(sequence)
            self.host.release(sequence.blocks if sequence.phase == SWAPPED else 0)
            self._end(sequence, self.clock._now)
        if self._busy and self._running() < self.span.count:
            self.device.cut(self, self._running())

    def window(self) -> Window:
        """The log since the last window."""
        decoding = (sequence for sequence in self.batch.running if sequence.decode_from >= 0)
        stays = (PACK_STAY(s.request_id, s.decode_from, self.batch.decoded, s.phase) for s in decoding)
        return self.log.take(b"".join(stays))

    def _catch_up(self) -> None:
        """Takes the blocks of those iterations of a jump under way that are over, for somebody looks."""
        if self._busy and self.span.count > 1:
            over = self._running() - 1
            self.pool.grow(self.batch.decoded + self._grown, over - self._grown)
            self._grown = over

    def _running(self) -> int:
        """The number, counted from 1, of the iteration of the present span that runs now."""
        clock = self.clock
        return self.span.running(clock._now, settled=clock.had_turn(self.priority))

    def _sleep(self) -> Event:
        if self.queue or self.swapped:
            raise SimslmError(
                f"replica {self.index} stands idle with {self.queued} requests waiting",
                remedy="the batching policy admits none of them although nothing else runs",
            )
        self._unread = 0
        self._wake = Event(self.clock)
        return self._wake

    def _requeue(self, sequence: Sequence) -> None:
        """Puts a sequence in the queue, all of it to be prefilled."""
        sequence.prefill_tokens = sequence.remaining = sequence.prompt_tokens + sequence.generated
        reserved = sequence.prompt_tokens + sequence.max_tokens
        whole = reserved if self._reserves else sequence.prefill_tokens
        sequence.blocks = -(-whole // self.pool.block_size)
        self.queue.add(sequence)

    # ---- before an iteration -------------------------------------------------------------------------------

    def _begin(self, plan: Plan, now: float, transfer_s: float) -> IterationShape:
        """Admits what the plan admits, and works out when the iterations it covers end if nobody disturbs."""
        batch, pool = self.batch, self.pool
        if plan.admitted:
            self._admit(plan, now)
        queued = self._queued = len(self.queue) + len(self.swapped)
        self._used = pool.num_blocks - pool.free
        rows = context = 0
        if plan.decode:
            rows, context = batch.rows, batch.context
        if plan.chunks:
            self._blocked = False
            shape = self._prefill_shape(rows, context, plan, self._unread)
            self.span = Span(now + transfer_s, self.cost.latency_s(shape), 0.0, 1, 0, 1)
            return shape
        self._blocked = queued > 0
        most = 1 if self._displaced or batch.lingering else self.most_iterations
        self._displaced = False
        if not batch.decoding:
            latency_s = self.cost.decode(rows).latency_s(context)
            self.span = Span(now + transfer_s, latency_s, 0.0, 1, 0, 1)
            return decode_shape(rows, context)
        self.span = self._decode_span(now + transfer_s, rows, context, most)
        return decode_shape(rows, context)

    def _admit(self, plan: Plan, now: float) -> None:
        batch, pool, queue, requests = self.batch, self.pool, self.queue, self.requests
        prompt: Any
        if pool.prefix is not None:
            for prompt, _ in plan.chunks:
                if prompt not in batch.running:
                    pool.hold_prefix(prompt)
        scheduled = requests.first_scheduled_s
        for prompt, _ in plan.chunks:
            if prompt in batch.running:
                continue
            queue.take(prompt)
            pool.allocate(prompt.blocks)
            batch.admit(prompt)
            row = prompt.row
            if prompt.lost:
                requests.recomputed_tokens[row] += max(
                    prompt.lost - (prompt.prefill_tokens - prompt.remaining), 0
                )
                prompt.lost = 0
            if scheduled[row] != scheduled[row]:
                scheduled[row] = now
                if pool.prefix is not None:
                    requests.cached_prompt_tokens[row] = prompt.prefill_tokens - prompt.remaining
        if self.batching.by_layers:
            for prompt, _ in plan.chunks[-plan.admitted :]:
                prompt.uncached_tokens = prompt.remaining

    def _decode_span(self, now: float, rows: int, context: int, most: int) -> Span:
        """The decode iterations until one finishes a sequence, runs out of blocks, or costs by another slope."""
        batch, last = self.batch, self.span
        until_finish = batch.until_finish
        limit = until_finish if until_finish < most else most
        if last.steady and last.left > last.count:
            left = last.left - last.count
            count = self.pool.horizon(batch.decoded, limit if limit < left else left)
            return Span(last.origin_s, last.first_s, last.growth_s, left, last.done + last.count, count)
        intercept, slope, until = self.cost.decode(rows).segment(context)
        left = UNBOUNDED if until == inf else max(-int((context - until) // rows), 1)
        count = self.pool.horizon(batch.decoded, limit if limit < left else left)
        return Span(now, intercept + slope * context, slope * rows, left, 0, count)

    # ---- leaving before the end -------------------------------------------------------------------------------

    def _depart(self, sequence: Sequence) -> None:
        """Takes a running sequence off the device before its time, keeping count of what it has generated."""
        steps = self.batch.remove(sequence)
        sequence.lost = sequence.prefill_tokens - sequence.remaining + steps
        if sequence.decode_from < 0:
            self._give_back(sequence, 0)
            return
        self._stay(sequence)
        self._give_back(sequence, steps)
        if steps:
            sequence.last_token_s = self._last_decode_s
        sequence.generated += steps
        sequence.prefill_tokens += steps
        sequence.decode_from = -1

    def _dismiss(self, sequence: Sequence) -> None:
        """A sequence that had its last token an iteration ago is seen to be done."""
        self.span.steady = False
        steps = self.batch.dismiss(sequence)
        self._give_back(sequence, steps if sequence.phase >= 0 else 0)

    def _drop_cancelled(self) -> None:
        """Running sequences whose clients have gone leave between two iterations."""
        self._leaving = False
        batch = self.batch
        for sequence in [each for each in batch.running if each.cancelled]:
            if sequence not in batch.padded and sequence not in batch.lingering:
                self._depart(sequence)
                self._end(sequence, self.clock._now)

    # ---- after iterations ----------------------------------------------------------------------------------

    def _apply(self, plan: Plan, shape: IterationShape, start_s: float) -> None:
        """The plan's iterations are over: tokens are out, requests finish, prompts move on to decoding."""
        batch, span, log = self.batch, self.span, self.log
        end_s, iterations, iteration = span.end_s, span.count, log.count
        late = self._late
        seen = list(batch.lingering) if late else ()
        for sequence in seen if plan.decode else ():
            log.lingered += PACK_CHUNK(iteration, sequence.request_id, 1)
        decoding, emitted = batch.decoding if plan.decode else 0, log.emitted
        log.spans += PACK_SPAN(
            iterations,
            start_s,
            end_s,
            span.origin_s,
            span.first_s,
            span.growth_s,
            span.done,
            *shape,
            self._queued,
            batch.decoding + len(batch.partial) + (len(batch.padded) if self._together else 0),
            decoding,
            batch.accepted,
            len(batch.starting) if plan.decode else 0,
            self._used,
        )
        log.count += iterations
        while log.late and log.late[-1] >= log.count:
            log.late.pop()
        if decoding:
            self.pool.grow(batch.decoded + self._grown, iterations - self._grown)
            self._grown = 0
            if batch.starting and not self._together:
                first_s = span.end(1) if iterations > 1 else end_s
                for sequence in batch.starting:
                    log.gaps.extend((first_s - sequence.last_token_s, first_s))
            self._last_decode_s = end_s
            finishers = batch.decode(iterations)
            if finishers is not None:
                self._retire(finishers, end_s)
        for prompt, tokens in plan.chunks:
            sequence: Any = prompt
            log.chunks += PACK_CHUNK(iteration, sequence.request_id, tokens)
            sequence.remaining -= tokens
            if not sequence.remaining:
                self._emit(sequence, end_s)
        if late:
            self._unread = decoding + log.emitted - emitted
            for sequence in seen:
                self._dismiss(sequence)
        if self._leaving:
            self._drop_cancelled()
        if batch.padded and not batch.decoding:
            span.steady = False
            for sequence in batch.clear():
                self._give_back(sequence, 0)
                if self._together:
                    self._answer(sequence, end_s)
        if self.on_window is not None and log.full:
            self.on_window(self.index, self.window())

    def _retire(self, finishers: list[Sequence], now: float) -> None:
        """The last tokens of some decoding sequences are out."""
        batch, log, decoded = self.batch, self.log, self.batch.decoded
        self.span.steady = False
        for sequence in finishers:
            log.stays += PACK_STAY(sequence.request_id, sequence.decode_from, decoded, sequence.phase)
            if self._holds:
                batch.pad(sequence)
            elif self._late:
                batch.linger(sequence)
            else:
                self._give_back(sequence, batch.finish(sequence))
            if not self._together:
                self._end(sequence, now)

    def _emit(self, sequence: Sequence, now: float) -> None:
        """A prefill is complete: its token is out, and the sequence finishes or goes on decoding."""
        batch, row = self.batch, sequence.row
        self.partial.remove(sequence)
        if sequence.generated:
            self.log.gaps.extend((now - sequence.last_token_s, now))
        elif not self._together and not sequence.cancelled:  # a client that has left never sees this token
            self.requests.first_token_s[row] = now
        sequence.generated += 1
        sequence.last_token_s = now
        self.log.emitted += 1
        if self.pool.prefix is not None:
            self.pool.keep_prefix(sequence)
        if sequence.generated < self.output_tokens[row]:
            self._start_decoding(sequence)
            return
        if self._holds:
            batch.pad(sequence)
        elif self._late:
            self.span.steady = False
            batch.linger(sequence)
        else:
            del batch.running[sequence]
            self._give_back(sequence, 0)
        if not self._together:
            self._end(sequence, now)

    def _start_decoding(self, sequence: Sequence) -> None:
        batch = self.batch
        self.span.steady = False
        sequence.phase = -1
        if not self._reserves:
            sequence.phase = self.pool.start(sequence.prefill_tokens, batch.decoded)
        batch.start(sequence, self.output_tokens[sequence.row] - sequence.generated)

    def _stay(self, sequence: Sequence) -> None:
        """A sequence stops decoding, which the log notes; the next iterations cost otherwise."""
        self.span.steady = False
        self.log.stays += PACK_STAY(
            sequence.request_id, sequence.decode_from, self.batch.decoded, sequence.phase
        )

    def _give_back(self, sequence: Sequence, steps: int) -> None:
        """All blocks of a sequence are free again, but for those a prefix cache keeps."""
        pool = self.pool
        if self._reserves:
            pool.release(sequence.blocks)
        elif sequence.phase >= 0:
            pool.stop(sequence.phase, sequence.prefill_tokens + steps)
            sequence.phase = -1
        else:
            pool.release(pool.blocks(sequence.prefill_tokens + steps))
        if pool.prefix is not None:
            pool.leave_prefix(sequence, 0 if sequence.remaining else sequence.prefill_tokens + steps)

    def _answer(self, sequence: Sequence, now: float) -> None:
        """All tokens of a sequence go out at once, to a client that is still there."""
        if not sequence.cancelled:
            assert self.log.at_once is not None
            self.requests.first_token_s[sequence.row] = now
            self.log.at_once += self.output_tokens[sequence.row] - 1
        self._end(sequence, now)

    def _end(self, sequence: Sequence, now: float) -> None:
        """A request is done with: its last token is out, or its client has gone, perhaps while that was computed."""
        requests, row = self.requests, sequence.row
        self.outstanding -= 1
        if sequence.cancelled:
            requests.status[row] = FAILED
        else:
            requests.finish_s[row] = now
            requests.status[row] = FINISHED
        if self.on_done is not None:
            self.on_done(row)

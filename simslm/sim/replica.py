"""One replica of the engine: form a batch, ask its cost, wait, apply.

Invariants: requests and tokens are conserved; a replica with work it may run never idles; running ``k``
iterations in one jump leaves the same bits as one by one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Generator
from math import inf
from typing import Any

from simpy.events import Event

from simslm.catalog.work import IterationShape
from simslm.cost.model import CostModel
from simslm.errors import SimslmError
from simslm.policies.plan import Plan
from simslm.sim.assembly import parts_of, state_of
from simslm.sim.clock import turn
from simslm.sim.holding import Holding
from simslm.sim.log import ReplicaLog, Window
from simslm.sim.log.replica import PACK_CHUNK, PACK_SPAN, PACK_STAY
from simslm.sim.parts.part import MOMENTS, bound
from simslm.sim.setup import UNBOUNDED, Setup
from simslm.sim.shape import decode_shape, layered_shape, prefill_shape
from simslm.sim.span import Span
from simslm.sim.state.queue import WaitingQueue
from simslm.sim.state.sequence import PAUSED, Sequence


class Replica(Holding):
    """A process of the simulation; what others see of it is :class:`~simslm.sim.view.Visible`.

    Attributes:
        parts: its mechanisms, beside the loop itself.
        paused: sequences that have their tokens computed and wait to go on, see :mod:`~simslm.sim.transit`.
        ranked: whether they and the prompts wait in one order.
        landed: sequences in the queue whose blocks are here already.
        promised: waiting sequences for which others made place: they come before all that have nothing here.
        prefills: whether prompts are prefilled here.
        outstanding: its requests, waiting or running.
        used: KV blocks held as the iterations under way began.
        shape: what the device runs, as they began; only noted where there are parts.
        busy: whether iterations are under way.
    """

    __slots__ = (
        "_after", "_arrives", "_before", "_blocked", "_cancels", "_demand", "_displaced", "_ends", "_gives_up",
        "_grown", "_holds", "_horizon", "_keeps", "_last_decode_s", "_late", "_leaves", "_leaving", "_moves_on",
        "_preempted", "_prefill_shape", "_prefilled", "_queued", "_reserves", "_rivals", "_shape", "_short",
        "_together", "_unread", "_waits", "_wake", "_withholds", "admission", "batch", "batching", "busy",
        "clock", "cost", "device", "index", "landed", "log", "max_num_batched_tokens", "max_num_seqs",
        "most_iterations", "on_done", "on_window", "output_tokens", "outstanding", "partial", "parts", "paused",
        "pool", "preemption", "prefills", "priority", "promised", "queue", "ranked", "requests", "shape",
        "sm_fraction", "span", "store", "used", "watermark_blocks",
    )  # fmt: skip

    _shape: tuple[Callable[[IterationShape, Plan], IterationShape], ...]
    _horizon: tuple[Callable[[int], int], ...]
    _waits: tuple[Callable[[float], float], ...]

    def __init__(self, setup: Setup) -> None:
        engine, policies = setup.engine, setup.policies
        self.index, self.clock, self.device = setup.index, setup.clock, setup.device
        self.cost, self._demand = setup.cost, setup.demand
        self.batching, self.admission = policies.batching, policies.admission
        self.preemption = policies.preemption
        self.output_tokens, self.requests = setup.output_tokens, setup.requests
        self.on_done, self.on_window = setup.on_done, setup.on_window
        self.most_iterations = setup.most_iterations
        self.priority = turn(setup.index)
        self.max_num_seqs = engine.max_num_seqs
        self.max_num_batched_tokens = engine.max_num_batched_tokens
        self.watermark_blocks = engine.watermark_blocks
        self.sm_fraction = engine.sm_fraction
        self.log = ReplicaLog(engine.block_size)
        self.pool, self.batch = state_of(setup, self.log)
        self.partial = self.batch.partial
        self.store = setup.store
        if self.store is not None:
            self.store.replicas.append(self)
        self.paused: deque[Sequence] = deque()
        self.promised: set[Sequence] = set()
        self.landed = self.outstanding = self.used = 0
        self.prefills = True
        self.span = Span(0.0, 0.0, 0.0, 0, 0, 0)
        self.shape = decode_shape(0, 0)
        self._keeps, self._reserves = policies.batching.holds_batch, policies.batching.reserves_output
        self._prefill_shape = layered_shape if policies.batching.by_layers else prefill_shape
        self._late = engine.late_output and not self._keeps
        self.pool.touching = self.batch.running if engine.spare_block else None
        self._together = policies.batching.returns_batch
        self.log.whole = self._together
        self._last_decode_s = 0.0
        self._leaving = self._blocked = self._displaced = self.busy = False
        self._unread = self._queued = self._grown = 0
        self._wake: Event | None = None
        self.parts = parts_of(self, setup)
        self.ranked = any(part.ranks for part in self.parts)
        key, promised = policies.order.key, self.promised

        def ranking(each: Sequence) -> Any:
            return not each.here, each not in promised, key(each)

        self.queue = WaitingQueue(ranking if self.ranked else key)
        for moment in MOMENTS:
            setattr(self, f"_{moment}", bound(self.parts, moment))

    # ---- the loop ------------------------------------------------------------------------------------------

    def run(self) -> Generator[Event, None, None]:
        """The whole life of the replica, as a SimPy process."""
        batch, pool, queue, clock = self.batch, self.pool, self.queue, self.clock
        execute, only_decode, priority = self.device.execute, Plan(self, decode=True), self.priority
        moments, plan_of = self._before, self.batching.plan
        while True:
            for before in moments:
                before()
            plan = plan_of(self) if queue or batch.partial else only_decode
            if not (batch.scheduled if plan is only_decode else plan.tokens):
                yield self._sleep()
                continue
            if plan.decode and pool.free <= batch.rows and pool.needed(batch.decoded) > pool.free:
                plan = self._make_room(plan)
                if not plan.decode and not plan.chunks:
                    continue
            start_s = clock.time_s
            shape = self._begin(plan, start_s)
            self.busy = True
            yield execute(self, shape)
            clock.acted_s = clock.time_s
            clock.actor = priority
            self.busy = False
            self._apply(plan, shape, start_s)

    def arrive(self, sequence: Sequence) -> None:
        """A request joins the queue; a jump under way ends with the iteration that is running now."""
        for arrives in self._arrives:
            if arrives(sequence):
                return
        self.requeue(sequence)
        self.outstanding += 1
        if self._wake is not None:
            self._wake.succeed()
            self._wake = None
        elif self.busy and self.span.count > 1:
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
        for cancels in self._cancels:
            if cancels(sequence):
                return
        if sequence in self.batch.running:
            self._leaving = True
        else:
            (self.paused if sequence.phase == PAUSED else self.queue).remove(sequence)
            self.landed -= sequence.here and sequence.phase != PAUSED
            self.end(sequence, self.clock.time_s)
            self.promised.discard(sequence)
            if sequence.here:
                self.give_back(sequence, 0)
                self.stir()
        if self.busy and self._running() < self.span.count:
            self.device.cut(self, self._running())

    def window(self) -> Window:
        """The log since the last window."""
        self.log.open_held = self.batch.open_rows()
        decoding = (sequence for sequence in self.batch.running if sequence.decode_from >= 0)
        stays = (PACK_STAY(s.request_id, s.decode_from, self.batch.decoded, s.phase) for s in decoding)
        return self.log.take(b"".join(stays))

    # ---- sleeping and waking -------------------------------------------------------------------------------

    @property
    def asleep(self) -> bool:
        """Whether it waits for something to do."""
        return self._wake is not None

    def rouse(self) -> None:
        """Something has come up: a replica that sleeps looks for work, a jump ends with the iteration that runs now."""
        if self._wake is not None:
            self._wake.succeed()
            self._wake = None
        else:
            self.cut()

    def cut(self) -> None:
        """A jump under way ends with the iteration that runs now."""
        if self.busy and self.span.count > 1:
            running = self._running()
            if running < self.span.count:
                self.device.cut(self, running)

    def stir(self) -> None:
        """Blocks are free here: replicas that take from the same store and sleep for want of them look again."""
        if self.store is not None:
            self.store.stir()

    def catch_up(self) -> None:
        """Brings the block count up to now in the middle of a jump; called before a view is read."""
        if self.busy and self.span.count > 1:
            over = self._running() - 1
            self.pool.grow(self.batch.decoded + self._grown, over - self._grown)
            self._grown = over

    def reprice(self, cost: CostModel, level: int) -> None:
        """The next iterations cost what another model says; the log notes the level of the clock that it is of."""
        self.cost = cost
        self.span.steady = False
        self.log.set_level(level)

    @property
    def answers_together(self) -> bool:
        """Whether tokens go out when the whole batch has finished."""
        return self._together

    def _running(self) -> int:
        """The number, counted from 1, of the iteration of the present span that runs now."""
        clock = self.clock
        return self.span.running(clock.time_s, settled=clock.had_turn(self.priority))

    def _sleep(self) -> Event:
        """Waits until something comes up; requests may wait meanwhile as long as others hold blocks."""
        if (self.queue or self.paused) and not self.pool.used:
            raise SimslmError(
                f"replica {self.index} stands idle with {self.queued} requests waiting",
                remedy="the batching policy admits none of them although nothing else runs",
            )
        self._unread = 0
        self._wake = Event(self.clock)
        return self._wake

    # ---- before an iteration -------------------------------------------------------------------------------

    def _begin(self, plan: Plan, now: float) -> IterationShape:
        """Admits what the plan admits, and works out when the iterations it covers end if nothing comes up."""
        batch, pool, parts = self.batch, self.pool, self.parts
        if plan.admitted:
            self._admit(plan, now)
        self._queued = queued = self.queued if parts else len(self.queue)
        self.used = pool.num_blocks - pool.free
        rows = context = 0
        if plan.decode:
            rows, context = batch.rows, batch.context
        if plan.chunks:
            self._blocked = False
            shape = self._prefill_shape(rows, context, plan, self._unread)
        else:
            self._blocked = queued > 0
            shape = decode_shape(rows, context)
        if parts:
            return self._begin_with_parts(plan, shape, now)
        if plan.chunks:
            self.span = Span(now, self.cost.latency_s(shape), 0.0, 1, 0, 1)
        else:
            self._span_decodes(now, rows, context, self.most_iterations)
        return shape

    def _begin_with_parts(self, plan: Plan, shape: IterationShape, now: float) -> IterationShape:
        """The same where parts make iterations wait, change their shapes, or want a look before long."""
        for waits in self._waits:
            now += waits(now)
        for change in self._shape:
            shape = change(shape, plan)
        self.shape = shape
        ahead = self.store is not None and self.store.shared
        if plan.chunks or shape.draft_tokens:
            self.span = Span(now, self.cost.latency_s(shape), 0.0, 1, 0, 1)
        else:
            most = 1 if ahead else self.most_iterations
            for horizon in self._horizon:
                most = horizon(most)
            self._span_decodes(now, shape.decode_seqs, shape.decode_ctx_tokens, most)
        if ahead and plan.decode and self.batch.decoding:
            self.pool.grow(self.batch.decoded, 1)
            self._grown = 1
        return shape

    def _admit(self, plan: Plan, now: float) -> None:
        batch, pool, queue, requests = self.batch, self.pool, self.queue, self.requests
        prompt: Any
        if pool.prefix is not None:
            for prompt, _ in plan.chunks:
                if prompt not in batch.running and not prompt.here:
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
        if self.ranked:
            for prompt, _ in plan.chunks[-plan.admitted :]:
                self.landed -= prompt.here
                prompt.here = False
                self.promised.discard(prompt)
        if self.batching.by_layers:
            for prompt, _ in plan.chunks[-plan.admitted :]:
                prompt.uncached_tokens = prompt.remaining

    def _span_decodes(self, start_s: float, rows: int, context: int, most: int) -> None:
        """The iterations without prompts from here on: as many as may be taken in one jump, at most ``most``."""
        batch, last = self.batch, self.span
        if self._displaced or batch.lingering:
            self._displaced, most = False, 1
        if not batch.decoding:
            self.span = Span(start_s, self.cost.decode(rows).latency_s(context), 0.0, 1, 0, 1)
            return
        until_finish = batch.until_finish
        limit = until_finish if until_finish < most else most
        if last.steady and last.left > last.count:
            left = last.left - last.count
            count = self.pool.horizon(batch.decoded, limit if limit < left else left)
            self.span = Span(last.origin_s, last.first_s, last.growth_s, left, last.done + last.count, count)
            return
        growing = rows - batch.full
        intercept, slope, until = self.cost.decode(rows).segment(context)
        left = UNBOUNDED if until == inf or not growing else max(-int((context - until) // growing), 1)
        count = self.pool.horizon(batch.decoded, limit if limit < left else left)
        self.span = Span(start_s, intercept + slope * context, slope * growing, left, 0, count)

    # ---- leaving before the end -------------------------------------------------------------------------------

    def _make_room(self, plan: Plan) -> Plan:
        """Preempts until the decoding sequences have the blocks of their next iteration.

        What they leave may be room for a sequence that waits: the plan holds for one iteration.

        Returns:
            The plan without them.
        """
        batch, pool, chunks = self.batch, self.pool, plan.chunks
        for short in self._short:
            short()
        while pool.needed(batch.decoded) > pool.free:
            victim = self._victim()
            if victim in batch.lingering:
                self.dismiss(victim)
                continue
            chunks = [chunk for chunk in chunks if chunk[0] is not victim]
            self.preempt(victim)
        self._displaced = True
        self.stir()
        kept = Plan(self, decode=batch.scheduled > 0)
        kept.chunks, kept.admitted, kept.padded_to = chunks, plan.admitted, plan.padded_to
        return kept

    def _victim(self) -> Sequence:
        """Whose blocks are taken first: without a policy those of the sequence that was admitted last."""
        if self.preemption is None:
            return next(reversed(self.batch.running))
        if self.ranked and self.batch.lingering:
            return next(iter(self.batch.lingering))
        running = list(self.batch.running)
        return running[self.preemption.victim(running)]

    def _drop_cancelled(self) -> None:
        """Running sequences whose clients have gone leave between two iterations."""
        self._leaving = False
        batch = self.batch
        for sequence in [each for each in batch.running if each.cancelled]:
            if sequence not in batch.padded and sequence not in batch.lingering:
                self.depart(sequence)
                self.end(sequence, self.clock.time_s)

    # ---- after iterations ----------------------------------------------------------------------------------

    def _apply(self, plan: Plan, shape: IterationShape, start_s: float) -> None:
        """The plan's iterations are over: tokens are out, requests finish, prompts move on to decoding."""
        batch, span, log = self.batch, self.span, self.log
        end_s, iterations, iteration = span.end_s, span.count, log.count
        seen: Collection[Sequence] = ()
        if self._late:
            seen = list(batch.lingering)
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
            len(batch.running) if self._together else batch.decoding + len(batch.partial),
            decoding,
            batch.accepted,
            len(batch.starting) if plan.decode else 0,
            self.used,
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
        if self._late:
            self._unread = decoding + log.emitted - emitted
            for sequence in seen:
                self.dismiss(sequence)
        if self._leaving:
            self._drop_cancelled()
        if batch.padded and not batch.decoding:
            span.steady = False
            for sequence in batch.clear():
                self.give_back(sequence, 0)
                if self._together:
                    self.answer(sequence, end_s)
        if self.on_window is not None and log.full:
            self.on_window(self.index, self.window())
        if self.parts:
            for after in self._after:
                after()

    def _retire(self, finishers: list[Sequence], now: float) -> None:
        """The last tokens of some decoding sequences are out."""
        batch, log, decoded = self.batch, self.log, self.batch.decoded
        self.span.steady = False
        for sequence in finishers:
            log.stays += PACK_STAY(sequence.request_id, sequence.decode_from, decoded, sequence.phase)
            if self._keeps:
                steps = batch.steps(sequence)
                batch.pad(sequence)
                sequence.prefill_tokens += steps
            elif self._late:
                batch.linger(sequence)
            else:
                self.give_back(sequence, batch.finish(sequence))
            if not self._together:
                self.end(sequence, now)

    def _emit(self, sequence: Sequence, now: float) -> None:
        """A prefill is complete: its token is out, and the sequence finishes or goes on decoding."""
        batch, row = self.batch, sequence.row
        self.partial.remove(sequence)
        if sequence.generated:
            if not self._together:
                self.log.gaps.extend((now - sequence.last_token_s, now))
        elif not self._together and not sequence.cancelled:  # a client that has left never sees this token
            self.requests.first_token_s[row] = now
        sequence.generated += 1
        sequence.last_token_s = now
        self.log.emitted += 1
        if self.pool.prefix is not None:
            self.pool.keep_prefix(sequence)
        if sequence.generated < self.output_tokens[row]:
            for prefilled in self._prefilled:
                if prefilled(sequence):
                    return
            self.start_decoding(sequence)
            return
        if self._keeps:
            batch.pad(sequence)
        elif self._late:
            self.span.steady = False
            batch.linger(sequence)
        else:
            del batch.running[sequence]
            self.give_back(sequence, 0)
        if not self._together:
            self.end(sequence, now)

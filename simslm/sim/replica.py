"""One replica of the engine: form a batch, ask its cost, wait, apply.

Invariants: requests and tokens are conserved; a replica with work it may run never idles; running ``k``
iterations in one jump leaves the same bits as one by one.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf
from typing import Protocol, cast

from simpy.events import Event

from simslm.catalog.work import IterationShape
from simslm.cost.model import CostModel
from simslm.cost.sharing import Demand, DemandModel
from simslm.errors import SimslmError
from simslm.policies.plan import BatchingPolicy, Plan
from simslm.policies.queueing import QueueOrder
from simslm.policies.route import Admission, ArrivingRequest
from simslm.sim.blocks import BlockPool
from simslm.sim.clock import Clock, turn
from simslm.sim.log import FAILED, FINISHED, PACK_CHUNK, PACK_SPAN, PACK_STAY, ReplicaLog, RequestLog
from simslm.sim.prefix import PrefixCache
from simslm.sim.queue import WaitingQueue
from simslm.sim.sequence import Sequence
from simslm.sim.span import Span
from simslm.sim.swap import HostPool
from simslm.sim.window import Window

UNBOUNDED = 1 << 60

WINDOW_BYTES = 1 << 22
"""Size of the packed spans at which a log is handed out: about 29,000 spans."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """The limits of one replica, under vLLM's names where it has them.

    Attributes:
        watermark_blocks: kept free when admitting.
        prefix_caching: blocks of finished prompts are kept and shared.
        swap_blocks: blocks of host memory that preempted sequences can be swapped to; 0 = they are recomputed.
        swap_s_per_block: time to move one block between device and host.
    """

    max_num_seqs: int
    max_num_batched_tokens: int
    num_gpu_blocks: int
    block_size: int
    watermark_blocks: int
    prefix_caching: bool = False
    swap_blocks: int = 0
    swap_s_per_block: float = 0.0


class Executor(Protocol):
    """What runs a replica's iterations, see :mod:`simslm.sim.device`."""

    def execute(self, tenant: Replica, shape: IterationShape) -> Event: ...

    def cut(self, tenant: Replica, iterations: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Policies:
    """The choices a replica leaves to others; made fresh for every replica."""

    batching: BatchingPolicy
    order: QueueOrder
    admission: Admission


class Replica:
    """A process of the simulation; to its policies it is the read-only ``ReplicaView`` and ``ReplicaLoad``.

    Args:
        index: its number, written into the log.
        clock: the simulation's clock.
        device: runs its iterations.
        engine: its limits.
        cost: seconds of an iteration.
        demand: what an iteration asks of a shared device; None on a device of its own.
        policies: who runs next, who waits where, who is let in.
        output_tokens: true output length per request; the policies do not see it.
        requests: where the fate of each request is noted.
        on_done: called with a request's id when its last token is out or its client has gone.
        most_iterations: longest jump; 1 steps through every iteration.
        on_window: takes the log whenever it holds :data:`WINDOW_BYTES`; None leaves it to grow.
    """

    def __init__(
        self,
        index: int,
        clock: Clock,
        device: Executor,
        engine: EngineConfig,
        cost: CostModel,
        demand: DemandModel | None,
        policies: Policies,
        output_tokens: array[int],
        requests: RequestLog,
        on_done: Callable[[int], None],
        most_iterations: int = UNBOUNDED,
        on_window: Callable[[int, Window], None] | None = None,
    ) -> None:
        self.index = index
        self.clock = clock
        self.device = device
        self.cost = cost
        self.batching = policies.batching
        self.admission = policies.admission
        self.output_tokens = output_tokens
        self.requests = requests
        self.on_done = on_done
        self.most_iterations = most_iterations
        self.on_window = on_window
        self.window_bytes = WINDOW_BYTES if on_window is not None else UNBOUNDED
        self.priority = turn(index)
        self.max_num_seqs = engine.max_num_seqs
        self.max_num_batched_tokens = engine.max_num_batched_tokens
        self.watermark_blocks = engine.watermark_blocks
        prefix = PrefixCache() if engine.prefix_caching else None
        self.pool = BlockPool(engine.num_gpu_blocks, engine.block_size, prefix)
        self.host = HostPool(engine.swap_blocks, engine.swap_s_per_block)
        self.log = ReplicaLog(engine.block_size)
        self.queue = WaitingQueue(policies.order.key)
        self.swapped: deque[Sequence] = deque()
        self.partial: list[Sequence] = []
        self.running: dict[Sequence, None] = {}
        self.outstanding = 0
        self.decoding = 0
        self.padded: list[Sequence] = []
        self.context = 0
        self.decoded = 0
        self.last_decode_s = 0.0
        self.span = Span(0.0, 0.0, 0.0, 0, 0, 0)
        self._demand = demand
        self._starting: list[Sequence] = []
        self._calendar: dict[int, list[Sequence]] = {}
        self._finishes: list[int] = []
        self._leaving = False
        self._queued = 0
        self._blocked = False
        self._displaced = False
        self._grown = 0
        self._used = 0
        self._busy = False
        self._wake: Event | None = None

    # ---- what policies see ---------------------------------------------------------------------------------

    @property
    def waiting(self) -> Iterable[Sequence]:
        if self.swapped:
            return ()
        return self.queue if self.pool.prefix is None else self._with_prefixes()

    @property
    def free_blocks(self) -> int:
        return self.pool.free

    @property
    def decode_blocks(self) -> int:
        return self.pool.demand(self.decoded)

    @property
    def queued(self) -> int:
        return len(self.queue) + len(self.swapped)

    @property
    def kv_utilization(self) -> float:
        self._catch_up()
        return self.pool.used / self.pool.num_blocks

    def cached_units(self, request: ArrivingRequest) -> int:
        self._catch_up()
        return 0 if self.pool.prefix is None else self.pool.prefix.match(request.units)

    def _catch_up(self) -> None:
        """Takes the blocks of those iterations of a jump under way that are over, for somebody looks."""
        if self._busy and self.span.count > 1:
            over = self._running() - 1
            self.pool.grow(self.decoded + self._grown, over - self._grown)
            self._grown = over

    def _with_prefixes(self) -> Iterable[Sequence]:
        for sequence in self.queue:
            self.pool.find_prefix(sequence)
            yield sequence

    # ---- what the device sees ------------------------------------------------------------------------------

    def host_s(self, shape: IterationShape) -> float:
        return self.cost.host_s(shape)

    def demand(self, shape: IterationShape, device_s: float) -> Demand:
        assert self._demand is not None
        return self._demand(shape, device_s)

    # ---- the loop ------------------------------------------------------------------------------------------

    def run(self) -> Generator[Event, None, None]:
        """The whole life of the replica, as a SimPy process."""
        while True:
            moved = self._swap_in() if self.swapped else 0
            plan = self.batching.plan(self)
            if plan.empty:
                yield self._sleep()
                continue
            if plan.decode and self.pool.demand(self.decoded) > self.pool.free:
                moved += self._make_room(plan)
            start_s = self.clock.now
            shape = self._begin(plan, self.host.transfer_s(moved) if moved else 0.0)
            self._busy = True
            yield self.device.execute(self, shape)
            self.clock.act(self.priority)
            self._busy = False
            self._apply(plan, shape, start_s)

    def fits(self, sequence: Sequence, output: int) -> bool:
        """Whether a request can be served at all: its KV blocks and, for unsplit prompts, the token budget."""
        batching, prompt = self.batching, sequence.prompt_tokens
        longest = prompt + (sequence.max_tokens if batching.reserves_output else output - 1)
        if batching.whole_prompts and prompt > self.max_num_batched_tokens:
            return False
        return self.pool.blocks(longest) <= self.pool.num_blocks

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
        if sequence in self.running:
            self._leaving = True
        else:
            (self.swapped if sequence.phase == SWAPPED else self.queue).remove(sequence)
            self.host.release(sequence.blocks if sequence.phase == SWAPPED else 0)
            self._end(sequence, FAILED)
        if self._busy and self._running() < self.span.count:
            self.device.cut(self, self._running())

    def _running(self) -> int:
        """The number, counted from 1, of the iteration of the present span that runs now."""
        return self.span.running(self.clock.now, settled=self.clock.had_turn(self.priority))

    def _sleep(self) -> Event:
        if self.queue or self.swapped:
            raise SimslmError(
                f"replica {self.index} stands idle with {self.queued} requests waiting",
                remedy="the batching policy admits none of them although nothing else runs",
            )
        self._wake = Event(self.clock)
        return self._wake

    def _requeue(self, sequence: Sequence) -> None:
        """Puts a sequence in the queue, all of it to be prefilled."""
        sequence.prefill_tokens = sequence.remaining = sequence.prompt_tokens + sequence.generated
        whole = sequence.prefill_tokens
        if self.batching.reserves_output:
            whole = sequence.prompt_tokens + sequence.max_tokens
        sequence.blocks = self.pool.blocks(whole)
        self.queue.add(sequence)

    # ---- before an iteration -------------------------------------------------------------------------------

    def _begin(self, plan: Plan, transfer_s: float) -> IterationShape:
        """Admits what the plan admits, and works out when the iterations it covers end if nobody disturbs."""
        now = self.clock.now
        if plan.admitted:
            self._admit(plan, now)
        self._queued = len(self.queue) + len(self.swapped)
        self._used = self.pool.num_blocks - self.pool.free
        rows = context = 0
        if plan.decode:
            rows, context = self.decoding + len(self.padded), self.context
        self._blocked = False
        if plan.chunks:
            shape = _shape(rows, context, plan)
            self.span = Span(now + transfer_s, self.cost.latency_s(shape), 0.0, 1, 0, 1)
            return shape
        self._blocked = self._queued > 0
        most = 1 if self._displaced else self.most_iterations
        self._displaced = False
        self.span = self._decode_span(now + transfer_s, rows, context, most)
        return IterationShape(rows, context)

    def _admit(self, plan: Plan, now: float) -> None:
        running, pool = self.running, self.pool
        admitted = [cast(Sequence, prompt) for prompt, _ in plan.chunks if prompt not in running]
        for sequence in admitted:
            self.queue.take(sequence)
            if pool.prefix is not None:
                pool.hold_prefix(sequence)
        scheduled = self.requests.first_scheduled_s
        for sequence in admitted:
            self.pool.allocate(sequence.blocks)
            self.running[sequence] = None
            self.partial.append(sequence)
            if scheduled[sequence.request_id] != scheduled[sequence.request_id]:
                scheduled[sequence.request_id] = now
                self.requests.cached_prompt_tokens[sequence.request_id] = sequence.cached

    def _decode_span(self, now: float, rows: int, context: int, most: int) -> Span:
        """The decode iterations until one finishes a sequence, runs out of blocks, or costs by another slope."""
        finishes, last = self._finishes, self.span
        while finishes[0] not in self._calendar:
            heappop(finishes)
        limit = min(finishes[0] - self.decoded + 1, most)
        if last.steady and last.left > last.count:
            left = last.left - last.count
            count = self.pool.horizon(self.decoded, min(limit, left))
            return Span(last.origin_s, last.first_s, last.growth_s, left, last.done + last.count, count)
        intercept, slope, until = self.cost.decode(rows).segment(context)
        left = UNBOUNDED if until == inf else max(-int((context - until) // rows), 1)
        count = self.pool.horizon(self.decoded, min(limit, left))
        return Span(now, intercept + slope * context, slope * rows, left, 0, count)

    def _make_room(self, plan: Plan) -> int:
        """Preempts the youngest until the decoding sequences have the blocks of their next iteration.

        What they leave may be room for somebody who waits: the plan holds for one iteration.

        Returns:
            blocks swapped to the host.
        """
        moved = 0
        while self.pool.demand(self.decoded) > self.pool.free:
            victim = next(reversed(self.running))
            plan.chunks = [chunk for chunk in plan.chunks if chunk[0] is not victim]
            moved += self._preempt(victim)
        plan.decode = self.decoding > 0
        self._displaced = True
        return moved

    def _preempt(self, victim: Sequence) -> int:
        """Takes a sequence off the device: to the host if there is room, else to be prefilled again.

        Returns:
            blocks swapped to the host.
        """
        decoded = victim.decode_from >= 0
        self._depart(victim)
        self.requests.preemptions[victim.request_id] += 1
        blocks = self.pool.blocks(victim.prefill_tokens)
        if decoded and self.host.take(blocks):
            victim.blocks, victim.phase = blocks, SWAPPED
            self.swapped.append(victim)
            return blocks
        self._requeue(victim)
        return 0

    def _swap_in(self) -> int:
        """Brings swapped sequences back in order while they fit; returns the blocks moved."""
        moved = 0
        while self.swapped and len(self.running) < self.max_num_seqs:
            sequence = self.swapped[0]
            spare = max(self.watermark_blocks, self.decode_blocks + 1) if self.running else 0
            if sequence.blocks > self.pool.free - spare:
                break
            self.swapped.popleft()
            self.host.release(sequence.blocks)
            self.pool.allocate(sequence.blocks)
            self.running[sequence] = None
            moved += sequence.blocks
            self._start_decoding(sequence)
        return moved

    # ---- after iterations ----------------------------------------------------------------------------------

    def _apply(self, plan: Plan, shape: IterationShape, start_s: float) -> None:
        """The plan's iterations are over: tokens are out, requests finish, prompts move on to decoding."""
        span, log = self.span, self.log
        now, iterations, iteration = span.end_s, span.count, log.count
        decoding = self.decoding if plan.decode else 0
        starting = len(self._starting) if plan.decode else 0
        log.spans += PACK_SPAN(
            iterations,
            start_s,
            now,
            span.origin_s,
            span.first_s,
            span.growth_s,
            span.done,
            *shape,
            self._queued,
            len(self.running) - len(self.padded),
            decoding,
            starting,
            self._used,
        )
        log.count += iterations
        while log.late and log.late[-1] >= log.count:
            log.late.pop()
        if plan.decode:
            self._decode(iterations, span.end(1) if iterations > 1 else now, now)
        for prompt, tokens in plan.chunks:
            sequence = cast(Sequence, prompt)
            log.chunks += PACK_CHUNK(iteration, sequence.request_id, tokens)
            sequence.remaining -= tokens
            if not sequence.remaining:
                self._emit(sequence, now)
        if self._leaving:
            self._drop_cancelled()
        if self.padded and not self.decoding:
            self._clear_padding()
        if len(log.spans) > self.window_bytes and self.on_window is not None:
            self.on_window(self.index, self.window())

    def window(self) -> Window:
        """The log since the last window."""
        decoding = (sequence for sequence in self.running if sequence.decode_from >= 0)
        stays = (PACK_STAY(s.request_id, s.decode_from, self.decoded, s.phase) for s in decoding)
        return self.log.take(b"".join(stays))

    def _decode(self, iterations: int, first_s: float, now: float) -> None:
        """Every decoding sequence has decoded so many tokens, and those whose last it was finish."""
        log = self.log
        self.pool.grow(self.decoded + self._grown, iterations - self._grown)
        self._grown = 0
        for sequence in self._starting:
            log.gaps.append(first_s - sequence.last_token_s)
        self._starting.clear()
        self.decoded += iterations
        self.context += (self.decoding + len(self.padded)) * iterations
        self.last_decode_s = now
        finishers = self._calendar.pop(self.decoded - 1, None)
        if finishers is None:
            return
        heappop(self._finishes)
        for sequence in finishers:
            self.requests.finish_s[sequence.request_id] = now
            if self.batching.holds_batch:
                self._pad(sequence)
            else:
                self._leave(sequence)
                del self.running[sequence]
            self._end(sequence, FINISHED)

    def _emit(self, sequence: Sequence, now: float) -> None:
        """A prefill is complete: its token is out, and the sequence finishes or goes on decoding."""
        request = sequence.request_id
        self.partial.remove(sequence)
        if sequence.generated:
            self.log.gaps.append(now - sequence.last_token_s)
        else:
            self.requests.first_token_s[request] = now
        sequence.generated += 1
        sequence.last_token_s = now
        self.log.emitted += 1
        if self.pool.prefix is not None:
            self.pool.keep_prefix(sequence)
        if sequence.generated < self.output_tokens[request]:
            self._start_decoding(sequence)
            return
        self.requests.finish_s[request] = now
        if self.batching.holds_batch:
            self.padded.append(sequence)
            self.context += sequence.prefill_tokens
        else:
            del self.running[sequence]
            self._give_back(sequence, 0)
        self._end(sequence, FINISHED)

    def _start_decoding(self, sequence: Sequence) -> None:
        left = self.output_tokens[sequence.request_id] - sequence.generated
        last = self.decoded + left - 1
        sequence.decode_from, sequence.decode_last = self.decoded, last
        sequence.phase = -1
        if not self.batching.reserves_output:
            sequence.phase = self.pool.start(sequence.prefill_tokens, self.decoded)
        self.span.steady = False
        self.decoding += 1
        self.context += sequence.prefill_tokens
        self._starting.append(sequence)
        finishers = self._calendar.get(last)
        if finishers is None:
            self._calendar[last] = [sequence]
            heappush(self._finishes, last)
        else:
            finishers.append(sequence)

    def _leave(self, sequence: Sequence) -> int:
        """Takes a decoding sequence out of the aggregates; returns how often it decoded since its prefill."""
        steps = self.decoded - sequence.decode_from
        self.span.steady = False
        self.decoding -= 1
        self.context -= sequence.prefill_tokens + steps
        self.log.stays += PACK_STAY(sequence.request_id, sequence.decode_from, self.decoded, sequence.phase)
        self._give_back(sequence, steps)
        return steps

    def _give_back(self, sequence: Sequence, steps: int) -> None:
        """All blocks of a sequence are free again, but for those a prefix cache keeps."""
        pool = self.pool
        if self.batching.reserves_output:
            pool.release(sequence.blocks)
        elif sequence.phase >= 0:
            pool.stop(sequence.phase, sequence.prefill_tokens + steps)
            sequence.phase = -1
        else:
            pool.release(pool.blocks(sequence.prefill_tokens))
        if pool.prefix is not None:
            pool.leave_prefix(sequence)

    def _depart(self, sequence: Sequence) -> None:
        """Takes a running sequence off the device before its time, keeping count of what it has generated."""
        del self.running[sequence]
        if sequence.decode_from < 0:
            self.partial.remove(sequence)
            self._give_back(sequence, 0)
            return
        finishers = self._calendar[sequence.decode_last]
        finishers.remove(sequence)
        if not finishers:
            del self._calendar[sequence.decode_last]
        steps = self._leave(sequence)
        if steps:
            sequence.last_token_s = self.last_decode_s
        else:
            self._starting.remove(sequence)
        sequence.generated += steps
        sequence.prefill_tokens += steps
        sequence.decode_from = -1

    def _pad(self, sequence: Sequence) -> None:
        """A finished sequence keeps its place in the batch."""
        self.decoding -= 1
        self.padded.append(sequence)
        self.log.stays += PACK_STAY(sequence.request_id, sequence.decode_from, self.decoded, sequence.phase)
        sequence.decode_from = -1

    def _clear_padding(self) -> None:
        """The whole batch has finished: everybody leaves it."""
        for sequence in self.padded:
            del self.running[sequence]
            self._give_back(sequence, 0)
        self.padded.clear()
        self.context = 0
        self.span.steady = False

    def _drop_cancelled(self) -> None:
        """Running sequences whose clients have gone leave between two iterations."""
        self._leaving = False
        for sequence in [sequence for sequence in self.running if sequence.cancelled]:
            if sequence in self.padded:
                continue
            self._depart(sequence)
            self._end(sequence, FAILED)
        if self.padded and not self.decoding:
            self._clear_padding()

    def _end(self, sequence: Sequence, status: int) -> None:
        self.outstanding -= 1
        self.requests.status[sequence.request_id] = status
        self.on_done(sequence.request_id)


SWAPPED = -2
"""Phase of a sequence whose blocks are on the host."""


def _shape(decoding: int, context: int, plan: Plan) -> IterationShape:
    """The shape of an iteration that prefills, padding included."""
    if plan.padded_to:
        count, length = len(plan.chunks), plan.padded_to
        pairs = count * length * (length + 1) / 2
        return IterationShape(decoding, context, count, count * length, 0, pairs)
    tokens = cached = 0
    pairs = 0.0
    for prompt, new in plan.chunks:
        before = cast(Sequence, prompt).cached
        tokens += new
        cached += before
        pairs += new * (before + (new + 1) / 2)
    return IterationShape(decoding, context, len(plan.chunks), tokens, cached, pairs)

"""What policies, routers and devices see of a replica: ``ReplicaView``, ``ReplicaLoad`` and ``Tenant``."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from itertools import takewhile

from simslm.catalog.work import IterationShape
from simslm.cost.model import CostModel
from simslm.cost.sharing import Demand, DemandModel
from simslm.policies.route import ArrivingRequest
from simslm.sim.span import Span
from simslm.sim.state.batch import Batch
from simslm.sim.state.blocks import BlockPool
from simslm.sim.state.queue import WaitingQueue
from simslm.sim.state.sequence import Sequence


class Visible:
    """A replica as others see it; :class:`~simslm.sim.replica.Replica` is what happens in it."""

    __slots__ = ()

    batch: Batch
    busy: bool
    cost: CostModel
    max_num_batched_tokens: int
    max_num_seqs: int
    paused: deque[Sequence]
    pool: BlockPool
    prefills: bool
    queue: WaitingQueue
    ranked: bool
    sm_fraction: float | None
    shape: IterationShape
    span: Span
    watermark_blocks: int
    _demand: DemandModel | None
    _grown: int
    _holds: tuple[Callable[[], Collection[Sequence]], ...]
    _withholds: tuple[Callable[[], int], ...]

    @property
    def waiting(self) -> Iterable[Sequence]:
        """Prompts that may be admitted: none while sequences are paused, or those that come before the first of them
        where they are ranked."""
        prompts = self.queue if self.pool.prefix is None else self._with_prefixes()
        if not self.paused:
            return prompts
        if not self.ranked:
            return ()
        place = self.queue.place
        first = place(self.paused[0])
        return takewhile(lambda prompt: place(prompt) < first, prompts)

    @property
    def decoding(self) -> int:
        return self.batch.scheduled

    @property
    def free_blocks(self) -> int:
        self.catch_up()
        free = self.pool.free
        for withholds in self._withholds:
            free -= withholds()
        return free

    @property
    def decode_blocks(self) -> int:
        return self.pool.demand(self.batch.decoded)

    @property
    def queued(self) -> int:
        count = len(self.queue) + len(self.paused)
        for holds in self._holds:
            count += len(holds())
        return count

    @property
    def kv_utilization(self) -> float:
        self.catch_up()
        return self.pool.used / self.pool.num_blocks

    def cached_units(self, request: ArrivingRequest) -> int:
        self.catch_up()
        return 0 if self.pool.prefix is None else self.pool.prefix.match(request.units)

    # ---- what routers ask beside -----------------------------------------------------------------------------

    @property
    def pending_prefill_tokens(self) -> int:
        tokens = sum(each.remaining if each.here else each.prefill_tokens for each in self.queue)
        return tokens + sum(each.remaining for each in (*self.batch.partial, *self.paused, *self._held()))

    def ttft_estimate_s(self, request: ArrivingRequest) -> float:
        if not self.prefills:
            return 0.0
        rows, context = self.batch.rows, self._context()
        tokens = self.pending_prefill_tokens + request.prompt_tokens
        chunk = max(self.max_num_batched_tokens - rows, 1)
        full, rest = divmod(tokens, chunk)
        sizes = ((full, chunk), (1, rest))
        return sum(count * self._chunk_s(rows, context, size) for count, size in sizes if count and size)

    def tpot_estimate_s(self, request: ArrivingRequest) -> float:
        coming = (*self.batch.partial, *self.queue, *self.paused, *self._held())
        tokens = sum(min(each.prefill_tokens, self.pool.kept) for each in coming)
        context = self._context() + tokens + min(request.prompt_tokens, self.pool.kept)
        rows = self.batch.rows + len(coming) + 1
        most = min(rows, self.max_num_seqs)
        return self.cost.decode(most).latency_s(context * most // rows)

    def _held(self) -> Iterable[Sequence]:
        """Sequences that parts hold."""
        return (sequence for holds in self._holds for sequence in holds())

    def _context(self) -> int:
        """Tokens in the cache of the sequences that decode, now, also in the middle of a jump."""
        return self.batch.context + self._ahead() * (self.batch.rows - self.batch.full)

    def _ahead(self) -> int:
        """Iterations of a jump under way that are over."""
        return self._running() - 1 if self.busy and self.span.count > 1 else 0

    def _chunk_s(self, rows: int, context: int, tokens: int) -> float:
        """Latency of an iteration that prefills so many tokens of one prompt beside what decodes."""
        pairs = tokens * (tokens + 1) / 2
        return self.cost.latency_s(IterationShape(rows, context, 1, tokens, 0, pairs, 0, 0, 1.0))

    # ---- what the control plane asks -----------------------------------------------------------------------

    def steps_so_far(self, sequence: Sequence) -> int:
        """Tokens that a running sequence has decoded since its prefill, also in the middle of a jump."""
        return self.batch.steps(sequence) + self._ahead()

    def room_now(self) -> int:
        """KV blocks that may be taken now, beside what the running sequences need; a jump ends with this iteration.

        They need what the iteration under way takes when it ends, and what the next one takes, or the watermark.
        """
        self.cut()
        self.catch_up()
        pool, at = self.pool, self.batch.decoded + self._grown
        taken = pool.demand(at) if self.busy else 0
        spare = max(self.watermark_blocks, pool.demand(at + self.busy) + 1) if pool.used else 0
        return pool.free - taken - spare

    def shape_now(self) -> IterationShape:
        """The shape of the iteration that runs now, on a replica with parts."""
        grown = self._ahead() * self.growth(self.shape)
        return self.shape._replace(decode_ctx_tokens=self.shape.decode_ctx_tokens + grown)

    def cut(self) -> None:
        """A jump under way ends with the iteration that runs now."""
        raise NotImplementedError

    def _running(self) -> int:
        """The number, counted from 1, of the iteration of a jump that runs now."""
        raise NotImplementedError

    def catch_up(self) -> None:
        """Brings the KV pool to the present instant, in the middle of a jump."""
        raise NotImplementedError

    def _with_prefixes(self) -> Iterable[Sequence]:
        for sequence in self.queue:
            if not sequence.here:
                self.pool.find_prefix(sequence)
            yield sequence

    def growth(self, shape: IterationShape) -> int:
        return shape.decode_seqs - self.batch.full

    def host_s(self, shape: IterationShape) -> float:
        return self.cost.host_s(shape)

    def demand(self, shape: IterationShape, device_s: float) -> Demand:
        assert self._demand is not None
        demand = self._demand(shape, device_s)
        return demand if self.sm_fraction is None else replace(demand, sm_fraction=self.sm_fraction)

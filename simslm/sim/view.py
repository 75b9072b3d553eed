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
from simslm.sim.state.batch import Batch
from simslm.sim.state.blocks import BlockPool
from simslm.sim.state.queue import WaitingQueue
from simslm.sim.state.sequence import Sequence


class Visible:
    """A replica as others see it; :class:`~simslm.sim.replica.Replica` is what happens in it."""

    __slots__ = ()

    batch: Batch
    cost: CostModel
    paused: deque[Sequence]
    pool: BlockPool
    queue: WaitingQueue
    ranked: bool
    sm_fraction: float | None
    _demand: DemandModel | None
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

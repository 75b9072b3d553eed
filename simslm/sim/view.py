"""What policies, routers and devices see of a replica: ``ReplicaView``, ``ReplicaLoad`` and ``Tenant``."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import replace

from simslm.catalog.work import IterationShape
from simslm.cost.model import CostModel
from simslm.cost.sharing import Demand, DemandModel
from simslm.policies.route import ArrivingRequest
from simslm.sim.batch import Batch
from simslm.sim.blocks import BlockPool
from simslm.sim.queue import WaitingQueue
from simslm.sim.sequence import Sequence


class Visible:
    """A replica as others see it; :class:`~simslm.sim.replica.Replica` is what happens in it."""

    __slots__ = ()

    batch: Batch
    cost: CostModel
    pool: BlockPool
    queue: WaitingQueue
    swapped: deque[Sequence]
    sm_fraction: float | None
    _demand: DemandModel | None

    @property
    def waiting(self) -> Iterable[Sequence]:
        if self.swapped:
            return ()
        return self.queue if self.pool.prefix is None else self._with_prefixes()

    @property
    def decoding(self) -> int:
        return self.batch.scheduled

    @property
    def free_blocks(self) -> int:
        return self.pool.free

    @property
    def decode_blocks(self) -> int:
        return self.pool.demand(self.batch.decoded)

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
        """Brings the KV pool to the present instant, in the middle of a jump."""
        raise NotImplementedError

    def _with_prefixes(self) -> Iterable[Sequence]:
        for sequence in self.queue:
            self.pool.find_prefix(sequence)
            yield sequence

    def growth(self, shape: IterationShape) -> int:
        return shape.decode_seqs

    def host_s(self, shape: IterationShape) -> float:
        return self.cost.host_s(shape)

    def demand(self, shape: IterationShape, device_s: float) -> Demand:
        assert self._demand is not None
        demand = self._demand(shape, device_s)
        return demand if self.sm_fraction is None else replace(demand, sm_fraction=self.sm_fraction)

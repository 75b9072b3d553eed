"""Between the phases: which decode replica a prefilled sequence goes to, and where it returns to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from simslm.policies.partition import PartitionPolicy, Split
from simslm.policies.route import Router
from simslm.sim import sequence as inflight
from simslm.sim.clock import Clock
from simslm.sim.device import SharedDevice
from simslm.sim.log import Move, RequestLog
from simslm.sim.partition import Partitioner
from simslm.sim.phases import DecodeReplica, PhaseReplica, PrefillReplica
from simslm.sim.pool import BlockStore
from simslm.sim.prefix import PrefixCache
from simslm.sim.replica import Replica
from simslm.sim.transfer import Link

if TYPE_CHECKING:
    from simslm.sim.world import Group

CLASSES: dict[str, type[Replica]] = {"both": Replica, "prefill": PrefillReplica, "decode": DecodeReplica}
"""What serves each role."""


class Handoffs:
    """Connects the replicas of one phase with those of the other.

    Args:
        clock: the simulation's clock.
        groups: of the deployment.
        members: the replicas of each.
        routers: of each; that of a decode group chooses among its replicas.
        requests: where it is noted which replica a request is on, by row.
        home: the group that the request of a row arrived at.

    Attributes:
        moves: every handoff, and every return of a preempted sequence, in order.
    """

    def __init__(
        self,
        clock: Clock,
        groups: Sequence[Group],
        members: Sequence[Sequence[Any]],
        routers: Sequence[Router],
        requests: RequestLog,
        home: Callable[[int], int],
    ) -> None:
        self.moves: list[Move] = []
        self._clock = clock
        self._members, self._routers = members, routers
        self._requests, self._home = requests, home
        stores: dict[Any, BlockStore] = {}
        for number, group in enumerate(groups):
            for place, (replica, device) in enumerate(zip(members[number], group.devices, strict=True)):
                if isinstance(replica, PhaseReplica):
                    key = (number, place) if group.kv_pool is None else (group.kv_pool, device)
                    replica.join(_store(stores, key, group), group.engine.block_size)
                if isinstance(replica, PrefillReplica):
                    assert group.decode_group is not None
                    replica.hand_over = partial(self._hand_over, group.decode_group)
                elif isinstance(replica, DecodeReplica):
                    replica.link = Link(group.engine.transfer_s_per_block)
                    replica.send_back = partial(self._send_back, replica)
        for store in stores.values():
            for replica in store.replicas if len(store.replicas) > 1 else ():
                replica.most_iterations = 1

    def _hand_over(self, group: int, sequence: inflight.Sequence, source: PrefillReplica) -> None:
        target: DecodeReplica = self._choose(group, sequence, source)
        self._note(sequence, source, target)
        target.receive(sequence, source)

    def _send_back(self, source: DecodeReplica, sequence: inflight.Sequence) -> None:
        target: PrefillReplica = self._choose(self._home(sequence.row), sequence, source)
        self._note(sequence, source, target)
        target.arrive(sequence)

    def _choose(self, group: int, sequence: inflight.Sequence, source: PhaseReplica) -> Any:
        """A replica of the group: one of those on the same blocks, where there are any."""
        members = self._members[group]
        members = [each for each in members if each.store is source.store] or members
        return members[self._routers[group].choose(sequence, members)] if len(members) > 1 else members[0]

    def _note(self, sequence: inflight.Sequence, source: Replica, target: Replica) -> None:
        self._requests.replica[sequence.row] = target.index
        self.moves.append(Move(sequence.request_id, source.index, target.index, self._clock.now))


def _store(stores: dict[Any, BlockStore], key: Any, group: Group) -> BlockStore:
    engine = group.engine
    if key not in stores:
        stores[key] = BlockStore(engine.num_gpu_blocks, PrefixCache() if engine.prefix_caching else None)
    return stores[key]


def partitioners(
    clock: Clock,
    replicas: Sequence[Replica],
    devices: Sequence[int],
    policy: Callable[[], PartitionPolicy],
    slos: tuple[float | None, float | None],
) -> dict[int, Partitioner]:
    """One partitioner for each device that replicas of both phases share, by the device's number.

    Args:
        devices: the device of each replica.
        policy: makes the policy of one device.
        slos: bounds on TTFT and TPOT, seconds, or None.
    """
    made = {}
    for device in sorted(set(devices)):
        here = [replica for replica, place in zip(replicas, devices, strict=True) if place == device]
        prefill = [each for each in here if isinstance(each, PrefillReplica)]
        decode = [each for each in here if isinstance(each, DecodeReplica)]
        if not prefill or not decode or not isinstance(here[0].device, SharedDevice):
            continue
        equal = 1 / len(here)
        split = Split(
            *(equal if each.sm_fraction is None else each.sm_fraction for each in (prefill[0], decode[0]))
        )
        made[device] = Partitioner(clock, policy(), prefill, decode, split, *slos)
        for replica in (*prefill, *decode):
            replica.partitioner = made[device]
    return made

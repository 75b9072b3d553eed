"""Between the phases: the decode replica that a prefilled sequence goes to, and the prefill replica it returns to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from simslm.policies.partition import PartitionPolicy, Split
from simslm.policies.route import Router
from simslm.sim.clock import Clock
from simslm.sim.device import SharedDevice
from simslm.sim.log import Move, RequestLog
from simslm.sim.partition import Partitioner
from simslm.sim.parts.handoff import Decoding, Prefilling, Role
from simslm.sim.replica import Replica
from simslm.sim.state import sequence as inflight
from simslm.sim.state.blocks import BlockStore
from simslm.sim.state.prefix import PrefixCache

if TYPE_CHECKING:
    from simslm.sim.world import Group


class Phases:
    """Connects the replicas of one phase with those of the other.

    Args:
        clock: the simulation's clock.
        groups: of the deployment.
        members: the replicas of each.
        routers: of each; that of a decode group chooses among its replicas.
        requests: where it is noted which replica a request is on, by row.
        home: the group that the request of a row arrived at.

    Attributes:
        moves: every hand-over, and every return of a preempted sequence, in order, since some were let go.
    """

    def __init__(
        self,
        clock: Clock,
        groups: Sequence[Group],
        members: Sequence[Sequence[Replica]],
        routers: Sequence[Router],
        requests: RequestLog,
        home: Callable[[int], int],
    ) -> None:
        self.moves: list[Move] = []
        self._clock = clock
        self._members, self._routers = members, routers
        self._requests, self._home = requests, home
        for number, group in enumerate(groups):
            for replica in members[number]:
                role = role_of(replica)
                if isinstance(role, Prefilling):
                    assert group.decode_group is not None
                    role.hand_over = partial(self._hand_over, group.decode_group)
                elif isinstance(role, Decoding):
                    role.send_back = partial(self._send_back, replica)

    def let_go(self) -> tuple[Move, ...]:
        """The moves so far, which are forgotten."""
        moves = tuple(self.moves)
        self.moves.clear()
        return moves

    def _hand_over(self, group: int, sequence: inflight.Sequence, source: Replica) -> None:
        target = self._choose(group, sequence, source)
        self._note(sequence, source, target, "hand-over")
        role_of(target).receive(sequence, role_of(source))

    def _send_back(self, source: Replica, sequence: inflight.Sequence) -> None:
        target = self._choose(self._home(sequence.row), sequence, source)
        self._note(sequence, source, target, "return")
        target.arrive(sequence)

    def _choose(self, group: int, sequence: inflight.Sequence, source: Replica) -> Replica:
        """A replica of the group: one of those on the same blocks, where there are any."""
        members = self._members[group]
        members = [each for each in members if each.store is source.store] or members
        return members[self._routers[group].choose(sequence, members)] if len(members) > 1 else members[0]

    def _note(self, sequence: inflight.Sequence, source: Replica, target: Replica, kind: str) -> None:
        self._requests.replica[sequence.row] = target.index
        self.moves.append(Move(sequence.request_id, source.index, target.index, self._clock.now, kind))


def role_of(replica: Replica) -> Any:
    """The part that makes a replica one of a role; None where it runs both phases."""
    return next((part for part in replica.parts if isinstance(part, Role)), None)


class Stores:
    """The KV memory of replicas of one phase: one store for each replica, or for all of a pool on a device."""

    def __init__(self) -> None:
        self._stores: dict[Any, BlockStore] = {}

    def of(self, group: Group, number: int, place: int) -> BlockStore | None:
        """What a replica takes its blocks from; None where it runs both phases, and has its own.

        Args:
            group: the replica's.
            number: of the group.
            place: of the replica in the group.
        """
        if group.role == "both":
            return None
        device, engine = group.devices[place], group.engine
        key = (number, place) if group.kv_pool is None else (group.kv_pool, device)
        if key not in self._stores:
            prefix = PrefixCache() if engine.prefix_caching else None
            self._stores[key] = BlockStore(engine.num_gpu_blocks, prefix)
        return self._stores[key]


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
    made: dict[int, Partitioner] = {}
    for device in sorted(set(devices)):
        here = [replica for replica, place in zip(replicas, devices, strict=True) if place == device]
        prefill = [each for each in here if isinstance(role_of(each), Prefilling)]
        decode = [each for each in here if isinstance(role_of(each), Decoding)]
        if not prefill or not decode or not isinstance(here[0].device, SharedDevice):
            continue
        equal = 1 / len(here)
        split = Split(
            *(equal if each.sm_fraction is None else each.sm_fraction for each in (prefill[0], decode[0]))
        )
        made[device] = Partitioner(clock, policy(), prefill, decode, split, *slos)
        for replica in (*prefill, *decode):
            role_of(replica).partitioner = made[device]
    return made

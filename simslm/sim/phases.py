"""Between the phases: the decode replica that a prefilled sequence goes to, and the prefill replica it returns to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from simslm.policies.partition import PartitionPolicy, Split
from simslm.sim.clock import Clock
from simslm.sim.device import SharedDevice
from simslm.sim.partition import Partitioner
from simslm.sim.parts.handoff import Decoding, Prefilling, Role
from simslm.sim.replica import Replica
from simslm.sim.state import sequence as inflight
from simslm.sim.state.blocks import BlockStore
from simslm.sim.state.prefix import PrefixCache

if TYPE_CHECKING:
    from simslm.sim.deployment import Group
    from simslm.sim.fleet import Fleet


class Phases:
    """Connects the replicas of one phase with those of the other.

    Args:
        fleet: of the replicas; it chooses among those that serve.
        groups: of the deployment.
    """

    def __init__(self, fleet: Fleet, groups: Sequence[Group]) -> None:
        self._fleet = fleet
        for group, team in zip(groups, fleet.teams, strict=True):
            for member in team.members:
                role = role_of(member.replica)
                if isinstance(role, Prefilling):
                    assert group.decode_group is not None
                    role.hand_over = partial(self.hand_over, group.decode_group)
                elif isinstance(role, Decoding):
                    role.send_back = self._send_back

    def hand_over(self, group: int, sequence: inflight.Sequence, source: Replica) -> None:
        """A prefilled sequence goes to a replica of a decode group, or waits for one.

        Args:
            group: its number.
            sequence: with its first token.
            source: the replica that holds its blocks.
        """
        target = self._fleet.choose(group, sequence, source)
        self._fleet.note(sequence, target, "hand-over")
        if target is None:
            self._fleet.hold(group, sequence, source)
        else:
            role_of(target).receive(sequence, role_of(source))

    def _send_back(self, sequence: inflight.Sequence) -> None:
        self._fleet.recompute(sequence, "return")


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

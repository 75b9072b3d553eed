"""What serves: groups of replicas, how they share devices, and what stands before and over them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np

from simslm.cost.model import CostModel
from simslm.cost.sharing import DemandModel, Sharing
from simslm.errors import SimslmError
from simslm.policies.gateway import GatewayPolicy
from simslm.policies.group_routing import GroupRouter
from simslm.policies.partition import PartitionPolicy
from simslm.policies.route import Router
from simslm.sim.control.spec import Faults, Migration, Power, Scaling
from simslm.sim.engine import EngineConfig, Policies
from simslm.sim.rows import Requests


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Replicas of one model and engine, behind one router.

    Attributes:
        name: for reports.
        engine: limits of each replica.
        devices: the device of each replica, by number.
        cost: seconds and joules of an iteration of a replica that has the device to itself.
        demand: what an iteration asks of a shared device; None when no device is shared.
        policies: makes the policies of one replica.
        router: makes the router; two runs share no state.
        max_model_len: longest prompt + output.
        scaling, migration, faults: see :mod:`simslm.sim.control.spec`; None where its replicas are not.
        waits: while none of its replicas serves, its requests wait; else they are rejected.
        levels: what an iteration costs at each clock, the highest first; empty where clocks do not change.
        role: ``both | prefill | decode``: the phases its replicas run; no request arrives at a decode group.
        decode_group: where sequences go on that a prefill group has prefilled, by number.
        kv_pool: groups of one phase that name the same take their blocks from one store on each device, of
            ``num_gpu_blocks`` in all; None = each replica has its own.
        share: its share of the requests, relative to the other groups, for policies that go by it.
    """

    name: str
    engine: EngineConfig
    devices: tuple[int, ...]
    cost: CostModel
    demand: DemandModel | None
    policies: Callable[[], Policies]
    router: Callable[[], Router]
    max_model_len: int
    role: str = "both"
    decode_group: int | None = None
    kv_pool: str | None = None
    scaling: Scaling | None = None
    migration: Migration | None = None
    faults: Faults | None = None
    waits: bool = True
    levels: tuple[CostModel, ...] = ()
    share: float = 1.0


def servable(requests: Requests, group: Group) -> np.ndarray:
    """Which requests an empty replica of a group could serve to their last token, a mask of shape ``(requests,)``.

    They must fit the model's length, the KV blocks (of the declared limit, where the batching policy reserves it; the
    last token is never cached) and, where prompts are not split, the token budget.
    """
    engine, batching = group.engine, group.policies().batching
    prompt, output = requests.prompt_tokens, requests.output_tokens
    longest = prompt + (requests.max_tokens if batching.reserves_output else output - 1)
    if engine.kept_tokens is not None:
        longest = np.minimum(longest, engine.kept_tokens)
    fits = (prompt + output <= group.max_model_len) & (longest <= engine.num_gpu_blocks * engine.block_size)
    prefills = batching.whole_prompts and group.role != "decode"
    return fits & (prompt <= engine.max_num_batched_tokens) if prefills else fits


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What serves: groups of replicas, and how replicas that share a device get along.

    Attributes:
        groups: at least one.
        sharing: makes the way of sharing for so many replicas on a device; None when none is shared.
        group_router: makes what chooses the group of each request; None when all arrive at the first.
        gateway: makes what answers requests before a group does; None = all are routed.
        e2e_slo_s: the bound on a request's time that policies see as its deadline, seconds: of all, or of each by its
            number, inf where it has none; None = no request has one.
        partition: makes what moves the split of a device between the phases; None = it stays.
        ttft_slo_s, tpot_slo_s: the bounds it goes by, seconds; None where there are none.
        power: what changes the clocks of all devices; None = they stay.
    """

    groups: tuple[Group, ...]
    sharing: Callable[[int], Sharing] | None = None
    group_router: Callable[[], GroupRouter] | None = None
    gateway: Callable[[], GatewayPolicy] | None = None
    e2e_slo_s: np.ndarray | float | None = None
    partition: Callable[[], PartitionPolicy] | None = None
    ttft_slo_s: float | None = None
    tpot_slo_s: float | None = None
    power: Power | None = None

    @property
    def controlled(self) -> bool:
        """Whether anything is under a control plane."""
        return any(self.control(number) for number in range(len(self.groups)))

    def control(self, number: int) -> frozenset[str]:
        """The mechanisms of the control plane that a group's replicas are under, by name."""
        group = self.groups[number]
        asked = {
            "scaling": group.scaling,
            "migration": group.migration,
            "faults": group.faults,
            "power": self.power,
        }
        return frozenset(name for name, spec in asked.items() if spec is not None)

    def servable(self, requests: Requests, number: int) -> np.ndarray:
        """Which requests group ``number`` could serve, with the group that goes on from there; see :func:`servable`."""
        group = self.groups[number]
        mask = servable(requests, group)
        return (
            mask if group.decode_group is None else mask & servable(requests, self.groups[group.decode_group])
        )

    @property
    def open_groups(self) -> tuple[int, ...]:
        """The groups to which requests may go, by number: those that prefill."""
        return tuple(number for number, group in enumerate(self.groups) if group.role != "decode")

    def with_decode_groups(self, numbers: Collection[int]) -> frozenset[int]:
        """Some groups, and those to which they hand over.

        Raises:
            SimslmError: another group hands over there too, so that not all answers of a replica are treated alike.
        """
        fed = {self.groups[number].decode_group for number in numbers} - {None}
        for number in self.open_groups:
            if number not in numbers and self.groups[number].decode_group in fed:
                raise SimslmError(
                    f"group {self.groups[number].name!r} hands over to the decode group of one whose answers are "
                    "judged, and its own are not",
                    remedy="give it a decode group of its own",
                )
        return frozenset((*numbers, *(number for number in fed if number is not None)))

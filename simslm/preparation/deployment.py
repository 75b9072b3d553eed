"""The deployment as the simulator takes it: groups with limits, costs and policies, and the group of each request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from simslm.catalog.devices import Device
from simslm.cost.sharing import Sharing
from simslm.policies.gateway import GatewayPolicy
from simslm.policies.group_routing import GroupRouter
from simslm.policies.registry import create
from simslm.preparation.control import faults_of, migration_of, power_of, scaling_of
from simslm.preparation.draft import acceptance, speculation
from simslm.preparation.groups import PreparedGroup
from simslm.preparation.sharing import demand_of
from simslm.scenario.portions import pool_of
from simslm.scenario.roles import decode_group
from simslm.scenario.schema import GroupSpec, Scenario
from simslm.sim.deployment import Deployment, Group
from simslm.sim.engine import EngineConfig, Policies
from simslm.transforms.registry import kept_tokens
from simslm.units import GIB
from simslm.workload.requests import RequestArrays
from simslm.workload.streams import stream
from simslm.workload.supply import RequestStream

Workload = RequestArrays | RequestStream
Draws = Callable[[str], np.random.Generator]
"""Makes the random stream for a purpose; streams of a group bear its name."""


def deployed(
    scenario: Scenario,
    device: Device,
    groups: Sequence[PreparedGroup],
    workload: Workload,
    sharing: Callable[[int], Sharing],
) -> Deployment:
    """The deployment of a scenario; its policies are made when a run begins.

    Args:
        scenario: with the limits and policies.
        device: that all replicas run on.
        groups: prepared, in the scenario's order.
        workload: the requests, for their groups and for what is drawn by class.
        sharing: makes the way of sharing for so many replicas on a device.
    """
    asked, slo = scenario.deployment, scenario.slo
    return Deployment(
        groups=tuple(_group(scenario, device, group, workload) for group in groups),
        sharing=sharing if asked.sharing != "none" else None,
        group_router=_group_router(scenario, groups),
        gateway=_gateway(scenario),
        e2e_slo_s=_e2e_slo_s(scenario, workload),
        partition=lambda: create("partition", asked.partition, partial(stream, scenario.seed)),
        ttft_slo_s=slo.ttft_s if slo else None,
        tpot_slo_s=slo.tpot_s if slo else None,
        power=power_of(scenario),
    )


def _group(scenario: Scenario, device: Device, group: PreparedGroup, workload: Workload) -> Group:
    def draws(purpose: str) -> np.random.Generator:
        return stream(scenario.seed, f"{purpose} {group.name}")

    spec = group.spec
    grouped = isinstance(spec, GroupSpec)
    return Group(
        name=group.name,
        engine=_limits(group, device),
        devices=group.devices,
        cost=(*group.levels, group.cost)[0],
        demand=demand_of(group, device, scenario.dtype),
        policies=_policies(scenario, group, workload, draws),
        router=lambda: create("routing", spec.router, draws),
        max_model_len=group.max_model_len,
        role=spec.role if grouped else "both",
        decode_group=decode_group(scenario.deployment.groups or (), spec) if grouped else None,
        kv_pool=pool_of(spec),
        scaling=scaling_of(spec, len(group.devices), draws),
        migration=migration_of(spec, draws),
        faults=faults_of(spec, draws),
        waits=spec.when_none_serves == "wait",
        levels=group.levels,
        share=spec.share if isinstance(spec, GroupSpec) else 1.0,
    )


def _limits(group: PreparedGroup, device: Device) -> EngineConfig:
    """The limits of a group's replicas, in blocks, seconds and tokens."""
    spec, memory = group.spec, group.memory
    engine = spec.engine
    return EngineConfig(
        max_num_seqs=engine.max_num_seqs,
        max_num_batched_tokens=engine.max_num_batched_tokens,
        num_gpu_blocks=memory.num_gpu_blocks,
        block_size=engine.block_size,
        watermark_blocks=int(engine.watermark * memory.num_gpu_blocks),
        prefix_caching=engine.prefix_caching,
        swap_blocks=int(engine.swap_space * GIB / memory.block) if engine.preemption == "swap" else 0,
        swap_s_per_block=memory.block / device.host_link_bytes_per_s,
        late_output=not engine.disable_async_output_proc,
        sm_fraction=spec.sm_fraction if isinstance(spec, GroupSpec) else None,
        transfer_s_per_block=memory.block / device.peer_link_bytes_per_s,
        kept_tokens=kept_tokens(group.transforms),
        swap_s_per_call=2 * group.architecture.num_layers * engine.swapping.copy_s,
        swap_group_blocks=engine.swapping.group_blocks,
        swap_overlap=engine.swapping.overlap,
        swap_reuse=engine.swapping.reuse,
        swap_turns=engine.swapping.turns,
        spare_block=engine.spare_block,
    )


def _policies(
    scenario: Scenario, group: PreparedGroup, workload: Workload, draws: Draws
) -> Callable[[], Policies]:
    """Makes the policies of one replica, fresh each time."""
    engine = group.spec.engine
    asked = engine.speculative_config
    foreseen = None if asked is None else acceptance(asked, workload, scenario.seed)
    chooses = engine.switches or engine.preempts.policy != "youngest"

    def policies() -> Policies:
        return Policies(
            batching=create("batching", engine.batching, draws),
            order=create("queueing", engine.scheduling_policy, draws),
            admission=create("admission", engine.admission, draws),
            speculation=None if asked is None or foreseen is None else speculation(asked, foreseen),
            preemption=create("preemption", engine.preempts, draws) if chooses else None,
            priorities=create("priorities", engine.priorities, draws) if engine.urgent else None,
        )

    return policies


def _group_router(scenario: Scenario, groups: Sequence[PreparedGroup]) -> Callable[[], GroupRouter] | None:
    """Makes what chooses among the groups, by drawn shares where nothing is stated; None where all requests go to the
    first, for no other takes any."""
    specs = [group.spec for group in groups if isinstance(group.spec, GroupSpec)]
    if all(spec.role == "decode" for spec in specs[1:]):
        return None
    asked = scenario.deployment.group_routing
    return lambda: create("group-routing", asked, lambda _kind: stream(scenario.seed, "groups"))


def _gateway(scenario: Scenario) -> Callable[[], GatewayPolicy] | None:
    asked = scenario.deployment.gateway
    return None if asked is None else lambda: create("gateway", asked, partial(stream, scenario.seed))


def _e2e_slo_s(scenario: Scenario, workload: Workload) -> np.ndarray | float | None:
    """The bound on each request's time: its class's, or the scenario's where that states none."""
    stated = scenario.workload.classes
    common = scenario.slo.e2e_s if scenario.slo else None
    if stated is None or workload.class_of is None:
        return common
    slos = [stated[name].slo or scenario.slo for name in workload.classes]
    bounds = [None if slo is None else slo.e2e_s for slo in slos]
    if not any(bounds):
        return None
    return np.array([np.inf if bound is None else bound for bound in bounds])[workload.class_of]

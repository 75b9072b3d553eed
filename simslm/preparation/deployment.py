"""The deployment as the simulator takes it: groups with limits, costs and policies, and the group of each request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from simslm.catalog.devices import Device
from simslm.cost.sharing import Sharing
from simslm.policies.registry import create
from simslm.preparation.draft import acceptance, speculation
from simslm.preparation.groups import PreparedGroup
from simslm.preparation.sharing import demand_of
from simslm.scenario.portions import pool_of
from simslm.scenario.roles import decode_group
from simslm.scenario.schema import GroupSpec, Scenario
from simslm.sim.engine import EngineConfig, Policies
from simslm.sim.world import Deployment, Group
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
        group_of=_group_of(scenario, groups, workload),
        partition=lambda: create("partition", asked.partition, partial(stream, scenario.seed)),
        ttft_slo_s=slo.ttft_s if slo else None,
        tpot_slo_s=slo.tpot_s if slo else None,
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
        cost=group.cost,
        demand=demand_of(group, device, scenario.dtype),
        policies=_policies(scenario, group, workload, draws),
        router=lambda: create("routing", spec.router, draws),
        max_model_len=group.max_model_len,
        role=spec.role if grouped else "both",
        decode_group=decode_group(scenario.deployment.groups or (), spec) if grouped else None,
        kv_pool=pool_of(spec),
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


def _group_of(scenario: Scenario, groups: Sequence[PreparedGroup], workload: Workload) -> np.ndarray | None:
    """Each request's group, drawn by the groups' shares, one for a whole program; None where all go to the first.

    No request arrives at a decode group.
    """
    specs = [group.spec for group in groups if isinstance(group.spec, GroupSpec)]
    shares = np.array([0.0 if spec.role == "decode" else spec.share for spec in specs])
    if not shares[1:].any():
        return None
    draws = stream(scenario.seed, "groups")
    ends = np.cumsum(shares / shares.sum())[:-1]
    if isinstance(workload, RequestStream):
        drawn = np.empty(len(workload), dtype=np.uint16)
        for begin in range(0, len(drawn), workload.most):
            part = drawn[begin : begin + workload.most]
            part[:] = np.searchsorted(ends, draws.random(len(part)), side="right")
        return drawn
    programs = workload.programs
    count = len(workload if programs is None else programs.start_s)
    drawn = np.searchsorted(ends, draws.random(count), side="right")
    return drawn if programs is None else drawn[programs.program_of]

"""Which part of a device's memory each group of replicas has, and with which groups it shares KV blocks."""

from __future__ import annotations

from collections import Counter

from simslm.errors import InfeasibleError
from simslm.scenario.schema import GroupSpec, Replicas, Scenario


def pool_of(spec: Replicas) -> str | None:
    """The KV blocks that a group shares with others, by name; None for blocks of its own."""
    return spec.kv_pool if isinstance(spec, GroupSpec) else None


def partners(scenario: Scenario, spec: Replicas) -> list[tuple[int, int]]:
    """``(max_num_seqs, max_num_batched_tokens)`` of the other replicas of a device that use the same KV blocks."""
    pool = pool_of(spec)
    if pool is None:
        return []
    limits = [
        (each.engine.max_num_seqs, each.engine.max_num_batched_tokens)
        for each in scenario.deployment.groups or ()
        if each.kv_pool == pool
        for _ in range(each.replicas_per_device)
    ]
    limits.remove((spec.engine.max_num_seqs, spec.engine.max_num_batched_tokens))
    return limits


def utilizations(scenario: Scenario, specs: tuple[Replicas, ...]) -> list[float]:
    """Each group's part of the memory of its devices: what it states, else an equal part of the default.

    Groups of one pool have one part together.

    Raises:
        InfeasibleError: the groups on a device ask for more memory than it has.
    """
    count = scenario.deployment.num_devices
    places = [getattr(spec, "devices", None) or tuple(range(count)) for spec in specs]
    pools = [pool_of(spec) for spec in specs]
    owners = [pool is None or pool not in pools[:i] for i, pool in enumerate(pools)]
    crowd = Counter(
        device for devices, owns in zip(places, owners, strict=True) if owns for device in devices
    )
    parts: list[float] = []
    for spec, devices in zip(specs, places, strict=True):
        stated = "gpu_memory_utilization" in spec.engine.model_fields_set
        parts.append(spec.engine.gpu_memory_utilization / (1 if stated else max(crowd[d] for d in devices)))
    for device in crowd:
        asked = sum(
            part
            for part, devices, owns in zip(parts, places, owners, strict=True)
            if owns and device in devices
        )
        if asked > 1 + 1e-9:
            raise InfeasibleError(
                f"the groups on device {device} ask for {asked:.2f} of its memory",
                remedy="lower their gpu_memory_utilization to 1 in all, or leave it out to divide the default",
            )
    return parts

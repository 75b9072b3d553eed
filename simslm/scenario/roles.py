"""What groups of one phase must agree on: where prefilled sequences decode, and which groups share memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from simslm.errors import nearest
from simslm.policies.registry import lookup

if TYPE_CHECKING:
    from simslm.scenario.schema import GroupSpec


def decode_group(groups: Sequence[GroupSpec], group: GroupSpec) -> int | None:
    """Where the sequences of a prefill group go on, by number; None for other groups.

    Raises:
        ValueError: it names no decode group, or none although there is not exactly one.
    """
    if group.role != "prefill":
        if group.decode_group is not None:
            raise ValueError(f"group {group.name!r}: decode_group is for role prefill, not {group.role}")
        return None
    names = [each.name for each in groups if each.role == "decode"]
    wanted = group.decode_group or (names[0] if len(names) == 1 else None)
    if wanted is None:
        known = f"one of {', '.join(names)}" if names else "a group of role decode"
        raise ValueError(f"group {group.name!r}: role prefill needs decode_group, {known}")
    if wanted not in names:
        raise ValueError(
            f"group {group.name!r}: decode_group {wanted!r} is no group of role decode{nearest(wanted, names)}"
        )
    return next(i for i, each in enumerate(groups) if each.name == wanted and each.role == "decode")


def check_roles(groups: Sequence[GroupSpec]) -> None:
    """Checks that the groups of a deployment fit together in roles and pools.

    Raises:
        ValueError: what is wrong, and in which group.
    """
    if len({group.name for group in groups}) < len(groups) and any(group.role != "both" for group in groups):
        raise ValueError("groups with roles need names of their own")
    fed: set[int] = set()
    for group in groups:
        number = decode_group(groups, group)
        if number is not None:
            fed.add(number)
            _check_pair(group, groups[number])
        if group.role == "both" and group.kv_pool is not None:
            raise ValueError(f"group {group.name!r}: kv_pool is for groups of role prefill or decode")
    for number, group in enumerate(groups):
        if group.role == "decode" and number not in fed:
            raise ValueError(f"group {group.name!r}: no group of role prefill hands its sequences to it")
    for pool in dict.fromkeys(group.kv_pool for group in groups if group.kv_pool is not None):
        _check_pool(pool, [group for group in groups if group.kv_pool == pool])


def _check_pair(prefill: GroupSpec, decode: GroupSpec) -> None:
    """Checks that a decode group can go on with what a prefill group computed."""
    both = f"groups {prefill.name!r} and {decode.name!r}"
    if prefill.model != decode.model:
        raise ValueError(f"{both}: a sequence goes on with the model that prefilled it; state the same model")
    if prefill.engine.block_size != decode.engine.block_size:
        raise ValueError(f"{both}: KV blocks change hands; state the same block_size")
    if prefill.kv_pool is not None and prefill.kv_pool != decode.kv_pool:
        raise ValueError(f"{both}: kv_pool is {prefill.kv_pool} here and {decode.kv_pool or 'null'} there")


def _check_pool(pool: str, groups: Sequence[GroupSpec]) -> None:
    """One copy of the weights and one pool: what describes them is stated alike."""
    first = groups[0]
    if {group.role for group in groups} != {"prefill", "decode"}:
        raise ValueError(f"kv_pool {pool!r} is named by groups of role {first.role} only")
    for name in ("model", "devices", "tensor_parallel_size"):
        if any(getattr(group, name) != getattr(first, name) for group in groups):
            raise ValueError(f"the groups of kv_pool {pool!r} must state the same {name}")
    for name in ("num_gpu_blocks", "block_size", "gpu_memory_utilization", "prefix_caching"):
        if any(getattr(group.engine, name) != getattr(first.engine, name) for group in groups):
            raise ValueError(f"the groups of kv_pool {pool!r} must state the same engine.{name}")
    if len({lookup("batching", group.engine.batching.policy).cls.reserves_output for group in groups}) > 1:
        raise ValueError(
            f"the groups of kv_pool {pool!r} must take blocks alike: a batching policy that reserves them and one that "
            "takes them as needed do not go together"
        )

"""How many KV blocks fit on a device."""

from __future__ import annotations

import torch

from profiler.engine.cache import BLOCK_SIZE
from profiler.engine.engine import release_freed_memory
from profiler.provenance import memory_bytes
from simslm.catalog.architecture import Architecture, element_bytes
from simslm.errors import InfeasibleError

_SHARE = {"cpu": 0.8, "cuda": 0.9}
"""Of the free memory, what weights and KV blocks may take; the rest is for what an iteration computes."""


def affordable_blocks(
    architecture: Architecture,
    device: str,
    dtype: str,
    block_size: int = BLOCK_SIZE,
    replicas: int = 1,
    loads_twice: bool = False,
    free_bytes: int | None = None,
) -> int:
    """KV blocks that each of so many replicas can have in what is free now.

    Args:
        architecture, device, dtype: what runs.
        block_size: tokens per block.
        replicas: how many share the device.
        loads_twice: whether all weights are there twice while the engine starts.
        free_bytes: of a device that need not be there, instead of what is free now.
    """
    free = _free_bytes(device) if free_bytes is None else free_bytes
    kind = device.partition(":")[0]
    room = _SHARE[kind] * free / replicas - _loading_bytes(architecture, dtype, kind, loads_twice)
    return max(0, int(room // (architecture.kv_bytes_per_token(dtype) * block_size)))


def _free_bytes(device: str) -> int:
    release_freed_memory(device)
    if device == "cpu":
        return memory_bytes("MemAvailable")
    return torch.cuda.mem_get_info(torch.device(device))[0]


def check_affordable(num_blocks: int, affordable: int, device: str, replicas: int = 1) -> None:
    """Refuses KV blocks, of each of so many replicas, that are more than :func:`affordable_blocks`.

    Raises:
        InfeasibleError: saying how many there can be.
    """
    if num_blocks > affordable:
        raise InfeasibleError(
            f"{num_blocks:,} KV blocks are to be allocated{' by each replica' if replicas > 1 else ''}, but "
            f"{affordable:,} fit into the memory free now",
            where=f"device {device}",
            remedy="state fewer deployment.engine.num_gpu_blocks",
        )


def _loading_bytes(a: Architecture, dtype: str, kind: str, loads_twice: bool) -> int:
    """Most that weights take while they are loaded.

    On a GPU matrices that become one are there twice, of one layer at a time. A CPU packs them: measured up to 1.75
    times the size of dense models, as memory of unfused matrices is not all used again, and of experts, whose stacks
    are of one size, one stack more than there are.
    """
    whole = a.weight_bytes(dtype)
    if loads_twice:
        return 2 * whole
    if kind == "cuda":
        return whole + _layer_bytes(a, dtype)
    if a.num_experts == 1:
        return 2 * whole
    stacks = a.num_experts * a.expert_parameters() * element_bytes(dtype)
    return 2 * whole - (a.num_layers - 1) * stacks


def _layer_bytes(a: Architecture, dtype: str) -> int:
    """The largest matrices of a layer that are made of several, or that are quantised."""
    qkv = a.hidden_size * (a.query_size + 2 * a.kv_size)
    return max(qkv, a.num_experts * a.expert_parameters()) * element_bytes(dtype)

"""How many KV blocks fit on a device."""

from __future__ import annotations

import torch

from profiler.engine.cache import BLOCK_SIZE
from profiler.engine.engine import release_freed_memory
from profiler.provenance import memory_bytes
from simslm.catalog.architecture import Architecture
from simslm.errors import InfeasibleError

_SHARE = 0.8


def affordable_blocks(
    architecture: Architecture, device: str, dtype: str, block_size: int = BLOCK_SIZE, replicas: int = 1
) -> int:
    """KV blocks that each of so many replicas can have in what is free now; weights count twice while being packed."""
    release_freed_memory(device)
    if device == "cpu":
        free = memory_bytes("MemAvailable")
    else:
        free = torch.cuda.mem_get_info(torch.device(device))[0]
    room = _SHARE * free / replicas - 2 * architecture.weight_bytes(dtype)
    return max(0, int(room // (architecture.kv_bytes_per_token(dtype) * block_size)))


def check_affordable(num_blocks: int, affordable: int, device: str) -> None:
    """Refuses KV blocks that are more than :func:`affordable_blocks`.

    Raises:
        InfeasibleError: saying how many there can be.
    """
    if num_blocks > affordable:
        raise InfeasibleError(
            f"{num_blocks:,} KV blocks are to be allocated, but {affordable:,} fit into the memory free now",
            where=f"device {device}",
            remedy="state fewer deployment.engine.num_gpu_blocks",
        )

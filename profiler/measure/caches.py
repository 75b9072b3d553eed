"""Putting other data into the caches, so that what is timed next finds none of its own there."""

from __future__ import annotations

from pathlib import Path

import torch

_LAST_LEVEL = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")
_UNKNOWN_BYTES = 64 * 2**20
_MOST_BYTES = 256 * 2**20
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


class CacheEviction:
    """Writes to twice the last cache's size, 256 MiB at most on a CPU, where others share it."""

    def __init__(self, device: torch.device) -> None:
        size = 2 * last_level_bytes(device)
        self._memory = torch.zeros(size if device.type == "cuda" else min(size, _MOST_BYTES), dtype=torch.int8,
                                   device=device)  # fmt: skip

    def __call__(self) -> None:
        self._memory.add_(1)


def last_level_bytes(device: torch.device) -> int:
    """Size of the cache before the device's memory; a guess of 64 MiB where the machine does not tell."""
    if device.type == "cuda":
        return getattr(torch.cuda.get_device_properties(device), "L2_cache_size", _UNKNOWN_BYTES)
    try:
        text = _LAST_LEVEL.read_text().strip()
        return int(text[:-1]) * _UNITS[text[-1]]
    except (OSError, ValueError, KeyError, IndexError):
        return _UNKNOWN_BYTES

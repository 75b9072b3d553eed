"""One copy to the device for all integers that an iteration needs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def staged(fields: Sequence[np.ndarray], device: torch.device) -> Sequence[Tensor]:
    """The arrays on the device, flat and in int64; a processor reads them where they are."""
    if device.type == "cpu":
        return [torch.from_numpy(field.reshape(-1)) for field in fields]
    return packed(fields, device).split([field.size for field in fields])


def packed(fields: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """The arrays end to end on the device, by one copy.

    To a GPU they go from pinned memory, and the copy is not waited for: torch hands pinned memory out again only when
    the copies from it are done.
    """
    size = sum(field.size for field in fields)
    host = torch.empty(size, dtype=torch.int64, pin_memory=device.type == "cuda")
    np.concatenate(fields, axis=None, out=host.numpy())
    return host.to(device, non_blocking=True)

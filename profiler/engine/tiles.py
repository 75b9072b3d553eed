"""Heights and widths of what kernels take at once, and launches that fall back to smaller ones.

How much shared memory a kernel takes is known once it is compiled, and how much there is, the driver says
(``cudaDevAttrMaxSharedMemoryPerBlockOptin``). A kernel that takes more is not launched: the next smaller way to compile
it is tried, and the one that fits is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch

from simslm.errors import DeviceError

LEAST_SHARED_BYTES = 99 * 2**10
"""Shared memory of a block where the driver does not say: that of an L4, as of all consumer GPUs since Ampere."""

_LEAST_DEPTH = 32

Options = dict[str, Any]
"""Widths, stages and warps, as a kernel takes them."""


def power_of_two(number: int) -> int:
    """The smallest power of two that is not less than a number, and at least 1."""
    return 1 << max(0, number - 1).bit_length()


def shared_bytes(device: torch.device) -> int:
    """Shared memory that one block of a kernel can have on a device."""
    if device.type != "cuda":
        return LEAST_SHARED_BYTES
    properties = torch.cuda.get_device_properties(device)
    return getattr(properties, "shared_memory_per_block_optin", 0) or LEAST_SHARED_BYTES


def shallower(options: Options) -> list[Options]:
    """A product's options, after that with fewer stages, and after that with less depth in each."""
    found = [options]
    while found[-1]["num_stages"] > 1:
        found.append(found[-1] | {"num_stages": found[-1]["num_stages"] - 1})
    while found[-1]["BLOCK_K"] > _LEAST_DEPTH:
        found.append(found[-1] | {"BLOCK_K": found[-1]["BLOCK_K"] // 2})
    return found


class Fitting:
    """Launches kernels with the first of several options that the device has the resources for.

    Args:
        refusals: what a launch raises that asks for more than there is; by default what Triton raises.
    """

    def __init__(self, refusals: tuple[type[Exception], ...] | None = None) -> None:
        self._refusals = refusals if refusals is not None else _refusals()
        self._found: dict[Hashable, int] = {}

    def launch(self, key: Hashable, options: Sequence[Options], run: Callable[[Options], object]) -> None:
        """Runs with the first options that fit.

        Args:
            key: of launches that take as much as each other.
            options: the largest first.
            run: launches the kernel.

        Raises:
            DeviceError: none fits.
        """
        refusal: Exception | None = None
        for number in range(self._found.get(key, 0), len(options)):
            try:
                run(options[number])
            except self._refusals as error:
                refusal = error
                continue
            self._found[key] = number
            return
        raise DeviceError(
            f"a kernel does not fit on this GPU, not even with its smallest tiles: {refusal}",
            remedy="use a narrower data type, e.g. --dtype bf16",
        )


def _refusals() -> tuple[type[Exception], ...]:
    from triton.runtime.errors import OutOfResources, PTXASError

    return OutOfResources, PTXASError

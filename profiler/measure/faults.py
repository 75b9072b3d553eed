"""What a device's refusal means for a campaign: one shape that cannot be measured, or a context that is dead.

Out of memory, out of shared memory or registers, a kernel that does not compile: the next shape may be well. After an
illegal access or a failed launch every later call of the process fails too (CUDA C++ Programming Guide, "Error
Checking": sticky errors), so there is nothing left but to end it and start again.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from simslm.errors import DeviceError

_DEAD = (
    "illegal memory access",
    "illegal address",
    "illegal instruction",
    "unspecified launch failure",
    "launch timed out",
    "device-side assert",
    "misaligned address",
    "invalid program counter",
    "invalid address space",
    "hardware stack error",
    "uncorrectable",
    "nvlink error",
    "mps client",
    "mps server",
    "mps connection",
    "context is destroyed",
    "driver shutting down",
    "device is lost",
)
"""Words of the errors that a process does not survive (``cudaGetErrorString``)."""

_LONGEST = 300


def survivable(error: BaseException) -> bool:
    """Whether it is the device or its compiler that refused, and not a fault in the code here."""
    if type(error).__module__.partition(".")[0] == "triton":
        return True
    return isinstance(error, RuntimeError | MemoryError | subprocess.CalledProcessError)


def deadly(error: BaseException | str) -> bool:
    """Whether the process cannot use the device any more."""
    text = str(error).lower()
    return any(words in text for words in _DEAD)


def short_of_memory(error: BaseException) -> bool:
    """Whether memory that is given back may be all it needs."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError)


def reason(error: BaseException) -> str:
    """What it says, in one line: of a compiler's many, the last that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    said = lines[-1] if type(error).__module__.partition(".")[0] == "triton" else lines[0]
    text = said if short_of_memory(error) else f"{type(error).__name__}: {said}"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


@contextmanager
def refusals(what: str, remedy: str) -> Iterator[None]:
    """Says what the device refused as an error of the device.

    Args:
        what: was to be done, e.g. ``opening the engine``.
        remedy: what can be done about it.

    Raises:
        DeviceError: in place of torch's or a compiler's error.
    """
    try:
        yield
    except Exception as error:
        if not survivable(error):
            raise
        raise DeviceError(f"{what} failed ({reason(error)})", remedy=remedy) from error

"""NVIDIA's Multi-Process Service, started for a measurement and ended with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from simslm.errors import DeviceError

CONTROL = "nvidia-cuda-mps-control"
_PLACES: tuple[str, ...] = ("CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY")
_PART = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"


@contextmanager
def mps_daemon(percentage: float | None = None) -> Iterator[None]:
    """Processes started inside share the device under MPS (NVIDIA, Multi-Process Service, "Starting and stopping").

    Its pipes and logs lie in a directory of their own, so that a daemon which runs already is left alone.

    Args:
        percentage: of the multiprocessors that each process may use; None = all.

    Raises:
        DeviceError: there is no MPS here, or it does not start.
    """
    if shutil.which(CONTROL) is None:
        raise DeviceError(
            f"{CONTROL} is not there",
            remedy="install the NVIDIA driver's MPS, or share the device in another way",
        )
    with tempfile.TemporaryDirectory(prefix="simslm-mps-") as directory:
        settings = dict.fromkeys(_PLACES, directory)
        if percentage is not None:
            settings[_PART] = f"{percentage:g}"
        before = {name: os.environ.get(name) for name in (*_PLACES, _PART)}
        os.environ.update(settings)
        try:
            _control(["-d"], None)
            try:
                yield
            finally:
                _control([], "quit\n")
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def _control(words: list[str], said: str | None) -> None:
    try:
        subprocess.run([CONTROL, *words], input=said, text=True, capture_output=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        told = getattr(error, "stderr", "") or error
        raise DeviceError(
            f"MPS cannot be started or ended ({str(told).strip()})", remedy="leave mps out of --sharing"
        ) from None

"""Whether kernels in Triton can be compiled here: found out once, before anything is measured.

Triton needs a C compiler and Python's headers for what launches its kernels, which slim images lack, and a folder to
keep what it compiled.
"""

from __future__ import annotations

import os
import subprocess
import sysconfig
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

_HEADER = "Python.h"


@cache
def kernels_lack(device: torch.device) -> str:
    """What kernels lack on a GPU, in words, with the remedy in brackets where it is known; empty where they run.

    A folder for compiled kernels that cannot be written to is replaced by one that can, for this process and those
    that it starts.
    """
    if find_spec("triton") is None:
        return "Triton is not installed (pip install triton)"
    folder = Path(os.environ.get("TRITON_CACHE_DIR") or Path.home() / ".triton" / "cache")
    if not _writable(folder):
        os.environ["TRITON_CACHE_DIR"] = tempfile.mkdtemp(prefix="simslm-kernels-")
    try:
        _run_kernel(device)
    except Exception as error:  # a compiler, a linker, a driver: whatever it is, there are no kernels
        return _reason(error)
    return ""


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _run_kernel(device: torch.device) -> None:
    """Compiles and launches one, as all others will be."""
    from profiler.engine.between_kernels import activate_and_multiply

    gate_up = torch.zeros(1, 32, device=device)
    sizes: dict[str, Any] = {"WIDTH": 16, "BLOCK": 16, "SILU": True}
    activate_and_multiply[(1, 1)](gate_up, torch.empty(1, 16, device=device), **sizes)
    torch.cuda.synchronize(device)


def _reason(error: Exception) -> str:
    headers = Path(sysconfig.get_paths()["include"]) / _HEADER
    if "C compiler" in str(error) or isinstance(error, FileNotFoundError):
        return "Triton finds no C compiler (install gcc, or set CC)"
    if isinstance(error, subprocess.CalledProcessError) and not headers.exists():
        return f"Triton finds no {_HEADER} (install Python's headers, e.g. python3-dev)"
    lines = str(error).strip().splitlines()
    last = f": {lines[-1]}" if lines else ""
    return f"Triton cannot run a kernel, {type(error).__name__}{last}"

"""``simslm env``: what machine this is, without loading torch."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from simslm.cli import screen
from simslm.units import bytes_

PACKAGES = (
    "simslm",
    "simpy",
    "numpy",
    "pandas",
    "pyarrow",
    "pydantic",
    "torch",
    "nvidia-ml-py",
    "transformers",
    "vllm",
    "optuna",
    "ray",
)


def show(as_json: bool) -> None:
    """Prints the environment: for a bug report, and to see whether a GPU can be measured."""
    found = environment()
    if as_json:
        screen.show_json(found)
        return
    flat = {name: value for name, value in found.items() if not isinstance(value, dict | list)}
    screen.show_facts(list(flat.items()))
    print()
    screen.show_facts([(name, value or "not installed") for name, value in found["packages"].items()])
    print()
    for gpu in found["gpus"]:
        print(f"  {gpu['name']}, {bytes_(gpu['memory_bytes'])}, driver {gpu['driver']}")
    if not found["gpus"]:
        print(f"  no GPU: {found['gpu_note']}")


def environment() -> dict[str, Any]:
    """Python, processor, memory, packages (None where missing) and GPUs."""
    gpus, gpu_note = _gpus()
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory": bytes_(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        "packages": {name: _version(name) for name in PACKAGES},
        "gpus": gpus,
        "gpu_note": gpu_note,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _gpus() -> tuple[list[dict[str, Any]], str]:
    """The GPUs that NVML sees, or why it sees none."""
    try:
        import pynvml
    except ImportError:
        return [], "nvidia-ml-py is not installed (pip install 'simslm[profile]')"
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return [], f"NVML: {error}"
    try:
        driver = pynvml.nvmlSystemGetDriverVersion()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        found = [
            {
                "name": pynvml.nvmlDeviceGetName(handle),
                "memory_bytes": int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
                "driver": driver,
            }
            for handle in handles
        ]
        return found, ""
    finally:
        pynvml.nvmlShutdown()

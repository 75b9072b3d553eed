"""What a measured trace says about its machine, its engine and its method; never a host name or a path."""

from __future__ import annotations

import datetime
import os
import platform
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from profiler.engines.subject import Subject
from profiler.measure.meters import Meter
from simslm.catalog.devices import device_names, load_device

_MEMORY_SLACK = 0.1


def describe(engine: Subject, meter: Meter, *, command: str, seed: int) -> dict[str, Any]:
    """Provenance of a campaign, but for what the campaign itself knows."""
    return {"source": "measured", "command": command} | setting(engine, meter, seed)


def setting(engine: Subject, meter: Meter, seed: int) -> dict[str, Any]:
    """What is run, on what, and how it is read."""
    machine = _cuda(engine.device) if engine.device.type == "cuda" else _cpu()
    return {
        "model": engine.architecture.name,
        "dtype": engine.dtype,
        "device": catalogue_device(engine.device),
        **engine.facts(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        **threads(),
        "seed": seed,
        "meter": meter.name,
        "power_note": meter.note,
        "meter_note": meter.remark,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        **machine,
    }


def threads() -> dict[str, Any]:
    """How many threads torch computes with, and what the environment asked for."""
    return {"threads": torch.get_num_threads(), "omp_num_threads": os.environ.get("OMP_NUM_THREADS")}


def catalogue_device(device: torch.device) -> str:
    """The catalogue's name of a device, or one made from its own name where the catalogue has none."""
    if device.type == "cpu":
        return "cpu"
    properties = torch.cuda.get_device_properties(device)
    return match_device(properties.name, properties.total_memory)


@lru_cache
def match_device(name: str, memory_bytes: int) -> str:
    """The catalogue entry for a GPU that calls itself ``name``: same model, memory within 10 %."""
    slug = (
        re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-").removeprefix("nvidia-").removeprefix("geforce-")
    )
    for entry in device_names():
        model = re.sub(r"-\d+gb$", "", entry)
        same_memory = abs(load_device(entry).memory_bytes / memory_bytes - 1) <= _MEMORY_SLACK
        if same_memory and re.search(rf"(^|-){re.escape(model)}(-|$)", slug):
            return entry
    return slug


def cpu_model(cpuinfo: str) -> str:
    """The processor's name and the extensions that matter here, from the text of ``/proc/cpuinfo``."""
    found = dict(re.findall(r"^(model name|flags)\s*:\s*(.*)$", cpuinfo, flags=re.MULTILINE))
    name = found.get("model name", platform.machine())
    extensions = [flag for flag in _EXTENSIONS if flag in found.get("flags", "").split()]
    return f"{name} ({', '.join(extensions)})" if extensions else name


_EXTENSIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8")


def _cpu() -> dict[str, Any]:
    text = _read("/proc/cpuinfo")
    clock = re.search(r"^cpu MHz\s*:\s*([\d.]+)", text, flags=re.MULTILINE)
    nominal = f"{float(clock[1]):.0f} MHz reported" if clock else "unknown"
    return {
        "cpu": cpu_model(text),
        "cores": os.cpu_count(),
        "memory_bytes": memory_bytes(),
        "driver": None,
        "cuda": None,
        "clocks": f"not controlled; {nominal}",
    }


def _cuda(device: torch.device) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(device)
    return {
        "gpu": properties.name,
        "cpu": cpu_model(_read("/proc/cpuinfo")),
        "memory_bytes": properties.total_memory,
        "driver": _read("/sys/module/nvidia/version").strip() or None,
        "cuda": torch.version.cuda,
        "clocks": "as found; the SM clock is recorded with every row",
    }


def memory_bytes(key: str = "MemTotal") -> int:
    """A figure of ``/proc/meminfo`` in bytes; 0 where there is none."""
    found = re.search(rf"^{key}:\s*(\d+) kB", _read("/proc/meminfo"), flags=re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def shown_command(arguments: Sequence[str]) -> str:
    """A command line for the provenance; absolute paths are shortened to their last part."""
    return " ".join(Path(word).name if word.startswith("/") else word for word in arguments)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""

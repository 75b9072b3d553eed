"""Devices: memory, bandwidth, arithmetic and power of the accelerators (and of a generic CPU)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from simslm.catalog.files import entry_names, parse_mapping, read_entry, read_mapping
from simslm.errors import ScenarioError, UsageError, nearest
from simslm.plain import is_mapping

_FALLBACKS: Mapping[str, tuple[str, ...]] = {
    "fp8": ("bf16", "fp16", "fp32"),
    "int8": ("bf16", "fp16", "fp32"),
    "bf16": ("fp16", "fp32"),
    "fp16": ("bf16", "fp32"),
    "fp32": (),
}


@dataclass(frozen=True, kw_only=True)
class Device:
    """What one device offers; peaks, not what a program reaches.

    Attributes:
        name: catalogue name, or the inline spec's own.
        memory_bytes: memory a program can allocate from (what CUDA reports as total).
        memory_bandwidth_bytes_per_s: peak of the device memory.
        compute_flops: dense peak in FLOP/s by data type (``fp32 tf32 bf16 fp16 fp8 int8``); a type the device
            has no units for is left out.
        idle_w: power with nothing running.
        max_w: power limit (TDP).
        sm_count: streaming multiprocessors (cores of a CPU).
        sm_clock_mhz: the highest SM (core) clock.
        host_link_bytes_per_s: to host memory, one direction.
        peer_link_bytes_per_s: to another device of the same node, one direction.
        sources: where each figure comes from, by field.
    """

    name: str
    memory_bytes: int
    memory_bandwidth_bytes_per_s: float
    compute_flops: Mapping[str, float] = field(hash=False)
    idle_w: float
    max_w: float
    sm_count: int
    sm_clock_mhz: float
    host_link_bytes_per_s: float
    peer_link_bytes_per_s: float
    sources: Mapping[str, str] = field(default_factory=dict[str, str], hash=False, compare=False)

    def flops_per_s(self, dtype: str) -> float:
        """Dense peak for a data type; a type without units of its own runs on the next wider ones.

        Raises:
            UsageError: when the device lists no type that could carry it.
        """
        for candidate in (dtype, *_FALLBACKS.get(dtype, ())):
            if candidate in self.compute_flops:
                return self.compute_flops[candidate]
        listed = ", ".join(self.compute_flops)
        raise UsageError(
            f"device {self.name!r} has no arithmetic peak for dtype {dtype!r}",
            remedy=f"it lists {listed}; add {dtype!r} to its compute_flops",
        )


FILES = (".yaml", ".yml", ".json")
"""What the name of a file ends in that describes a device."""

SMALLEST, LARGEST = 1e-3, 1e24
"""Smallest and largest figure of a device, in any unit."""

_FIELDS = tuple(entry.name for entry in fields(Device))
_WHOLE = ("memory_bytes", "sm_count")
_REAL = tuple(name for name in _FIELDS if name not in ("name", "compute_flops", "sources", *_WHOLE))


def device_names() -> list[str]:
    """The devices of the catalogue, in alphabetical order."""
    return entry_names("devices")


def load_device(name: str | Mapping[str, Any], base_dir: Path | None = None) -> Device:
    """A device of the catalogue, of a file, or described inline.

    Args:
        name: a catalogue name, a file that holds the fields of :class:`Device`, or the fields themselves.
        base_dir: what a relative path is relative to; the working directory when None.

    Raises:
        UsageError: when the catalogue has no device of that name; the message has the nearest one.
        ScenarioError: when the file cannot be read, or a field is wrong.
    """
    if not isinstance(name, str):
        return device_from_mapping(name)
    if (path := device_file(name, base_dir)) is None:
        return _build({"name": name} | read_entry("devices", name))
    try:
        return device_from_mapping({"name": path.stem} | read_mapping(path))
    except ScenarioError as error:
        raise ScenarioError(error.message, where=error.where or str(path), remedy=error.remedy) from None


def device_file(name: str, base_dir: Path | None = None) -> Path | None:
    """The file that :func:`load_device` reads; None where it looks in the catalogue."""
    return (base_dir or Path()) / name if name.endswith(FILES) else None


def device_named(text: str, base_dir: Path | None = None) -> tuple[str, dict[str, Any] | None]:
    """The name of a device, and its fields where the catalogue does not have it.

    Args:
        text: a name, a file, or fields written inline (``{like: l4, memory_bytes: 16e9}``).
        base_dir: what a relative path is relative to.

    Raises:
        SimslmError: a file or the fields are wrong.
    """
    if text.lstrip().startswith("{"):
        spec = parse_mapping(text, "device")
    elif (path := device_file(text, base_dir)) is not None:
        spec = {"name": path.stem} | read_mapping(path)
    else:
        return text, None
    return device_from_mapping(spec).name, spec


def device_from_mapping(mapping: Mapping[str, Any]) -> Device:
    """The device an inline spec describes.

    Args:
        mapping: the fields of :class:`Device`; with ``like: <catalogue name>`` only those that differ.
            ``compute_flops`` is merged type by type.

    Raises:
        UsageError: when ``like`` names no device of the catalogue.
        ScenarioError: when a key is unknown, missing or not a positive number.
    """
    given = dict(mapping)
    like = given.pop("like", None)
    for key in given:
        if key not in _FIELDS:
            raise ScenarioError(f"device: unknown key {key!r}{nearest(key, (*_FIELDS, 'like'))}")
    if like is None:
        return _build({"name": "inline"} | given)
    base = read_entry("devices", str(like))
    compute = given.get("compute_flops", {})
    if is_mapping(compute):
        given["compute_flops"] = base["compute_flops"] | dict(compute)
    sources = base.get("sources", {}) | {key: "the scenario" for key in given if key != "name"}
    return _build({"name": f"{like} (changed)"} | base | {"sources": sources} | given)


def _build(values: Mapping[str, Any]) -> Device:
    for key in (*_WHOLE, *_REAL, "compute_flops"):
        if key not in values:
            raise ScenarioError(
                f"device.{key} is missing", remedy="add it, or `like: <catalogue name>` to take it from there"
            )
    real = {key: _positive(key, values[key], zero=key == "idle_w") for key in _REAL}
    compute = values["compute_flops"]
    if not is_mapping(compute) or not compute:
        raise ScenarioError("device.compute_flops: expected FLOP/s by data type, e.g. {bf16: 1.0e+14}")
    flops = {str(key): _positive(f"compute_flops.{key}", value) for key, value in compute.items()}
    return Device(
        name=str(values["name"]),
        compute_flops=flops,
        sources=dict(values.get("sources", {})),
        memory_bytes=int(_positive("memory_bytes", values["memory_bytes"])),
        sm_count=int(_positive("sm_count", values["sm_count"])),
        **real,
    )


def _positive(key: str, value: Any, zero: bool = False) -> float:
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    least = 0 if zero else SMALLEST
    if not least <= number <= LARGEST:
        raise ScenarioError(
            f"device.{key}: expected a positive number, found {value!r}",
            remedy=f"figures lie between {least:g} and {LARGEST:g}",
        )
    return float(number)

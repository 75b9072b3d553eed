"""Energy counters behind one interface: NVML for NVIDIA GPUs, RAPL for processors, a replay, or none.

A meter counts joules since some moment; a window's energy is the difference of two readings. One that cannot
be read says why, and the trace then has null energy and that reason in its provenance.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import torch

from simslm.errors import DeviceError

_POWERCAP = Path("/sys/class/powercap")


class Meter(Protocol):
    """An energy counter.

    Attributes:
        name: what it reads.
        note: why there is no energy; empty when there is.
        window_s: shortest window whose energy is true; 0 when there is none.
    """

    name: str
    note: str
    window_s: float

    def energy_j(self) -> float | None:
        """Joules since an arbitrary moment, or None without a counter."""
        ...

    def power_w(self) -> float | None:
        """Watts by the device's own power sensor, which knows nothing of the energy counter; None without one."""
        ...

    def clock_mhz(self) -> float | None:
        """The device's SM clock now, or None where there is none to read."""
        ...

    def throttle(self) -> str | None:
        """What holds the clock down now, joined by ``+``; empty = nothing, None where it cannot be read."""
        ...


class _Unclocked:
    """A meter of a device without a power sensor and without clocks to read."""

    def power_w(self) -> None:
        return None

    def clock_mhz(self) -> None:
        return None

    def throttle(self) -> None:
        return None


class NoMeter(_Unclocked):
    """Nothing to read, and why."""

    name, window_s = "none", 0.0

    def __init__(self, note: str) -> None:
        self.note = note

    def energy_j(self) -> None:
        return None


THROTTLES = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
"""Reasons for a lower clock by their bits in NVML (``nvmlClocksEventReasons``), but for those that a user set."""


class NvmlMeter:
    """The total energy counter of one NVIDIA GPU (``nvmlDeviceGetTotalEnergyConsumption``, in mJ).

    Its power sensor (``nvmlDeviceGetPowerUsage``, in mW) gives, since Ampere, the mean of the last second.

    Args:
        uuid: the GPU's own identity (``GPU-...``), the same whatever devices are visible to CUDA.
        nvml: the ``pynvml`` module, or a stand-in.

    Raises:
        DeviceError: when the library, the device or its counter is not there.
    """

    name, note, window_s = "nvml", "", 0.25

    def __init__(self, uuid: str, nvml: Any = None) -> None:
        self._nvml = nvml or _pynvml()
        try:
            self._nvml.nvmlInit()
            self._handle = self._nvml.nvmlDeviceGetHandleByUUID(uuid)
            self.energy_j()
        except self._nvml.NVMLError as error:
            raise DeviceError(f"NVML cannot read the energy of {uuid} ({error})") from error

    def energy_j(self) -> float:
        return self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) / 1e3

    def clock_mhz(self) -> float:
        return float(self._nvml.nvmlDeviceGetClockInfo(self._handle, self._nvml.NVML_CLOCK_SM))

    def power_w(self) -> float | None:
        try:
            return self._nvml.nvmlDeviceGetPowerUsage(self._handle) / 1e3
        except self._nvml.NVMLError:
            return None

    def throttle(self) -> str | None:
        try:
            bits = self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons(self._handle)
        except self._nvml.NVMLError:
            return None
        return "+".join(reason for bit, reason in THROTTLES.items() if bits & bit)


class RaplMeter(_Unclocked):
    """The package counters of RAPL, which wrap round (``/sys/class/powercap``, in µJ).

    Raises:
        DeviceError: when there are none, or they are not readable.
    """

    name, note, window_s = "rapl", "", 0.05

    def __init__(self, root: Path = _POWERCAP) -> None:
        zones = sorted(root.glob("intel-rapl:[0-9]")) if root.is_dir() else []
        if not zones:
            raise DeviceError("the kernel shows no RAPL counters (/sys/class/powercap)")
        try:
            self._ranges = {zone: int((zone / "max_energy_range_uj").read_text()) for zone in zones}
            self._last = {zone: _microjoules(zone) for zone in zones}
        except (OSError, ValueError) as error:
            raise DeviceError(f"the RAPL counters are not readable ({error})") from error
        self._total_uj = 0

    def energy_j(self) -> float:
        for zone, last in self._last.items():
            now = _microjoules(zone)
            self._total_uj += now - last if now >= last else now - last + self._ranges[zone]
            self._last[zone] = now
        return self._total_uj / 1e6


class ReplayMeter:
    """A meter that replays recorded counter readings: what measuring code is tested with.

    Args:
        readings_j: counter values in joules, one for each call.
        clock: SM clock in MHz it reports.
        window_s: as a real meter's.
        power: what its power sensor reads, in watts.
        reasons: what holds the clock down.

    Raises:
        DeviceError: when it is read more often than was recorded.
    """

    name, note = "replay", ""

    def __init__(
        self,
        readings_j: Iterable[float],
        clock: float | None = None,
        window_s: float = 0.0,
        power: float | None = None,
        reasons: str | None = None,
    ) -> None:
        self._readings = iter(readings_j)
        self._clock, self._power, self._reasons = clock, power, reasons
        self.window_s = window_s

    def energy_j(self) -> float:
        try:
            return next(self._readings)
        except StopIteration:
            raise DeviceError("the recorded energy readings are used up") from None

    def power_w(self) -> float | None:
        return self._power

    def clock_mhz(self) -> float | None:
        return self._clock

    def throttle(self) -> str | None:
        return self._reasons


def open_meter(device: torch.device) -> Meter:
    """The meter of a device, or one that says why there is none."""
    try:
        if device.type == "cuda":
            return NvmlMeter(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        return RaplMeter()
    except DeviceError as error:
        return NoMeter(error.message)


def _pynvml() -> Any:
    try:
        return importlib.import_module("pynvml")
    except ImportError as error:
        raise DeviceError("nvidia-ml-py is not installed, so NVML cannot be read") from error


def _microjoules(zone: Path) -> int:
    return int((zone / "energy_uj").read_text())

"""Energy counters behind one interface: NVML for NVIDIA GPUs, RAPL for processors, a replay, or none.

A meter counts joules since some moment; a window's energy is the difference of two readings. One that cannot
be read says why, and the trace then has null energy and that reason in its provenance. Clock, power sensor and what
holds the clock down are read apart from it: what one driver refuses is null, and the others are kept.
"""

from __future__ import annotations

import importlib
import threading
import time
import weakref
from collections.abc import Callable, Iterable
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
        remark: how energy is known where there is no counter, and what else cannot be read; empty = nothing.
        window_s: shortest window whose energy is true; 0 when there is none.
        step_s: up to how long its counter stands still between two moves; 0 = it moves all the time.
        lead_s: how long the device must have been doing the same before a window, for a sensor that averages.
    """

    name: str
    note: str
    remark: str
    window_s: float
    step_s: float
    lead_s: float

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


class _Plain:
    """What most meters have in common."""

    note, remark, step_s, lead_s = "", "", 0.0, 0.0


class _Unclocked(_Plain):
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


class NvmlMeter(_Plain):
    """The total energy counter of one NVIDIA GPU (``nvmlDeviceGetTotalEnergyConsumption``, in mJ).

    Its power sensor (``nvmlDeviceGetPowerUsage``, in mW) gives, since Ampere, the mean of the last second. Each reading
    that the driver refuses is None: the counter is not there before Volta, on virtual GPUs, under MIG, and under WSL.

    Args:
        uuid: the GPU's own identity (``GPU-...``), the same whatever devices are visible to CUDA.
        nvml: the ``pynvml`` module, or a stand-in.

    Raises:
        DeviceError: when the library or the device is not there.
    """

    name, window_s, step_s = "nvml", 0.25, 0.1

    def __init__(self, uuid: str, nvml: Any = None) -> None:
        self._nvml = nvml or _pynvml()
        self._refusals = (self._nvml.NVMLError, AttributeError)  # an old library lacks a function
        try:
            self._nvml.nvmlInit()
            self._handle = self._nvml.nvmlDeviceGetHandleByUUID(uuid)
        except self._nvml.NVMLError as error:
            raise DeviceError(f"NVML does not know {uuid} ({error})") from error
        self.note = self._refused(self._energy)
        readings = {"SM clock": self._clock, "power sensor": self._power, "reasons of throttling": self._bits}
        lacking = [what for what, read in readings.items() if self._refused(read)]
        self.remark = f"NVML cannot read: {', '.join(lacking)}" if lacking else ""
        if self.note:
            self.note, self.window_s = f"NVML cannot read the energy counter ({self.note})", 0.0

    def energy_j(self) -> float | None:
        return self._read(self._energy)

    def clock_mhz(self) -> float | None:
        return self._read(self._clock)

    def power_w(self) -> float | None:
        return self._read(self._power)

    def throttle(self) -> str | None:
        bits = self._read(self._bits)
        return None if bits is None else "+".join(why for bit, why in THROTTLES.items() if int(bits) & bit)

    def _energy(self) -> float:
        return self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) / 1e3

    def _clock(self) -> float:
        return float(self._nvml.nvmlDeviceGetClockInfo(self._handle, self._nvml.NVML_CLOCK_SM))

    def _power(self) -> float:
        return self._nvml.nvmlDeviceGetPowerUsage(self._handle) / 1e3

    def _bits(self) -> float:
        return self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons(self._handle)

    def _read(self, read: Callable[[], float]) -> float | None:
        try:
            return read()
        except self._refusals:
            return None

    def _refused(self, read: Callable[[], float]) -> str:
        """Why something cannot be read; empty where it can."""
        try:
            read()
        except self._refusals as error:
            return str(error) or type(error).__name__
        return ""


class IntegratedPower(_Plain):
    """Energy as the integral of a device's power sensor, for one whose energy counter cannot be read.

    A thread reads the sensor every 20 ms and adds trapezoids. The sensor gives the mean of the last second, so a window
    counts only once the device has been doing the same for that long.

    Args:
        sensor: a meter whose ``note`` says why it has no energy.
    """

    window_s, step_s, lead_s = 0.25, 0.02, 1.0

    def __init__(self, sensor: Meter) -> None:
        self._sensor, self._joules = sensor, 0.0
        self.name = f"{sensor.name}, power integrated"
        parts = [
            f"energy is the integral of the power sensor, every {1e3 * self.step_s:.0f} ms: {sensor.note}"
        ]
        self.remark = "; ".join([*parts, *([sensor.remark] if sensor.remark else [])])
        self.power_w, self.clock_mhz, self.throttle = sensor.power_w, sensor.clock_mhz, sensor.throttle
        threading.Thread(target=_integrate, args=(weakref.ref(self),), daemon=True).start()

    def energy_j(self) -> float:
        return self._joules

    def add(self, joules: float) -> None:
        """Counts more energy."""
        self._joules += joules


def _integrate(meter: weakref.ref[IntegratedPower]) -> None:
    """Adds up power for as long as the meter is there."""
    last: tuple[float, float] | None = None
    while (alive := meter()) is not None:
        now, watts = time.perf_counter(), alive.power_w()
        if watts is not None and last is not None:
            alive.add((now - last[0]) * (watts + last[1]) / 2)
        last = last if watts is None else (now, watts)
        del alive
        time.sleep(IntegratedPower.step_s)


class RaplMeter(_Unclocked):
    """The package counters of RAPL, which wrap round (``/sys/class/powercap``, in µJ).

    Raises:
        DeviceError: when there are none, or they are not readable.
    """

    name, window_s = "rapl", 0.05

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


class ReplayMeter(_Plain):
    """A meter that replays recorded counter readings: what measuring code is tested with.

    Args:
        readings_j: counter values in joules, one for each call.
        clock: SM clock in MHz it reports.
        window_s: as a real meter's.
        power: what its power sensor reads, in watts.
        reasons: what holds the clock down.
        step_s: as a real meter's.

    Raises:
        DeviceError: when it is read more often than was recorded.
    """

    name = "replay"

    def __init__(
        self,
        readings_j: Iterable[float],
        clock: float | None = None,
        window_s: float = 0.0,
        power: float | None = None,
        reasons: str | None = None,
        step_s: float = 0.0,
    ) -> None:
        self._readings = iter(readings_j)
        self._clock, self._power, self._reasons = clock, power, reasons
        self.window_s, self.step_s = window_s, step_s

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
        if device.type != "cuda":
            return RaplMeter()
        meter = _nvml_meter(str(torch.cuda.get_device_properties(device).uuid))
    except DeviceError as error:
        return NoMeter(error.message)
    return IntegratedPower(meter) if meter.note and meter.power_w() is not None else meter


def _nvml_meter(uuid: str) -> NvmlMeter:
    """The meter of a whole GPU, or of a part that MIG makes, which has another name in NVML."""
    try:
        return NvmlMeter(f"GPU-{uuid}")
    except DeviceError:
        return NvmlMeter(f"MIG-{uuid}")


def _pynvml() -> Any:
    try:
        return importlib.import_module("pynvml")
    except ImportError as error:
        raise DeviceError("nvidia-ml-py is not installed, so NVML cannot be read") from error


def _microjoules(zone: Path) -> int:
    return int((zone / "energy_uj").read_text())

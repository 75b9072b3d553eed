"""What co-located replicas do to each other's speed while their device phases overlap.

Host phases overlap for free (each replica is a process of its own) except under ``streams``. A device phase has
a demand on arithmetic and on memory bandwidth, as shares of what the device can deliver; a way of sharing turns
the demands of those active at the same time into relative speeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from simslm.catalog.architecture import Architecture
from simslm.catalog.devices import Device
from simslm.catalog.work import IterationShape, work_model
from simslm.scenario.cost import Efficiency
from simslm.transforms.registry import Served, Transform
from simslm.transforms.work import TransformedWork


@dataclass(frozen=True, slots=True)
class Demand:
    """Shares of the device's achievable arithmetic and memory bandwidth, each in [0, 1], of one device phase.

    ``sm_fraction`` is the part of the multiprocessors that it may use at most, in (0, 1]; None = an equal part.
    """

    compute: float
    memory: float
    sm_fraction: float | None = None


class DemandModel(Protocol):
    """What iterations ask of a shared device."""

    def __call__(self, shape: IterationShape, device_s: float) -> Demand:
        """The demand of one iteration whose device phase takes ``device_s`` seconds alone."""
        ...


class RooflineDemand:
    """The demand of an iteration: its FLOPs and bytes over what the device achieves in its device time.

    Achievable is ``efficiency`` times the peak; measured iterations that do better count as 1.
    """

    def __init__(
        self,
        architecture: Architecture,
        device: Device,
        dtype: str,
        efficiency: Efficiency | None = None,
        transforms: Sequence[Transform] = (),
    ) -> None:
        reached = efficiency or Efficiency(compute=0.6, bandwidth=0.8)
        work = work_model(architecture, dtype)
        served = Served.on(architecture, dtype, device)
        self._work = TransformedWork(work, transforms, served) if transforms else work
        self._flops_per_s = device.flops_per_s(dtype) * reached.compute
        self._bytes_per_s = device.memory_bandwidth_bytes_per_s * reached.bandwidth

    def __call__(self, shape: IterationShape, device_s: float) -> Demand:
        work = self._work(shape)
        return Demand(
            min(1.0, work.flops / (self._flops_per_s * device_s)),
            min(1.0, work.bytes / (self._bytes_per_s * device_s)),
        )


class Sharing(Protocol):
    """One way of sharing a device.

    Attributes:
        name: as in a scenario.
        serial_host: whether the replicas' host phases exclude each other.
        partitioned: whether a replica is held to its own share of the device even while no other replica is active.
    """

    name: str
    serial_host: bool
    partitioned: bool

    def speeds(self, demands: Sequence[Demand]) -> list[float]:
        """Relative speeds, each in (0, 1], of device phases that are active together; alone, the speed is
        that of the replica's own share of the device."""
        ...


class Mps:
    """Kernels of all processes run side by side until arithmetic or bandwidth is used up (NVIDIA MPS).

    All progress at one speed, the largest at which neither resource is asked for more than there is:
    ``1 / max(1, sum of compute, sum of memory)``.
    """

    name = "mps"
    serial_host = False
    partitioned = False

    def speeds(self, demands: Sequence[Demand]) -> list[float]:
        asked = max(sum(demand.compute for demand in demands), sum(demand.memory for demand in demands), 1.0)
        return [1.0 / asked] * len(demands)


class Streams(Mps):
    """Streams of one process: kernels share as under MPS, but one thread launches for all."""

    name = "streams"
    serial_host = True


class TimeSlice:
    """Processes without MPS: the device runs one of them at a time, in turns of equal length."""

    name = "time-slice"
    serial_host = False
    partitioned = False

    def speeds(self, demands: Sequence[Demand]) -> list[float]:
        return [1.0 / len(demands)] * len(demands)


class SmPartition:
    """Each replica may use its own part of the multiprocessors, an equal one if it states none; bandwidth is common.

    Arithmetic is limited to the own part. Bandwidth is limited to twice the own part of the device's (half of
    the multiprocessors saturate the memory of a recent GPU; assumed, not measured) and to what the others leave.
    Parts are limits, not reservations (the active thread percentage of MPS): where they are more than the device
    together, those active at once slow each other down as under :class:`Mps`.
    """

    name = "sm-partition"
    serial_host = False
    partitioned = True

    def __init__(self, replicas: int) -> None:
        self._equal = 1.0 / replicas

    def speeds(self, demands: Sequence[Demand]) -> list[float]:
        parts = [self._equal if each.sm_fraction is None else each.sm_fraction for each in demands]
        own = [
            min(1.0, part / max(demand.compute, 1e-9), min(1.0, 2.0 * part) / max(demand.memory, 1e-9))
            for part, demand in zip(parts, demands, strict=True)
        ]
        asked = sum(demand.memory * speed for demand, speed in zip(demands, own, strict=True))
        if sum(parts) > 1 + 1e-9:
            asked = max(
                asked, sum(demand.compute * speed for demand, speed in zip(demands, own, strict=True))
            )
        return [speed / max(asked, 1.0) for speed in own]


def sharing(name: str, replicas: int) -> Sharing:
    """The way of sharing that a scenario names, for so many replicas on a device."""
    known = {"mps": Mps, "time-slice": TimeSlice, "streams": Streams}
    return SmPartition(replicas) if name == SmPartition.name else known[name]()

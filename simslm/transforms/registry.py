"""The register of transforms, and the kinds there are.

The device's part is changed first (:class:`ShapeTransform` and :class:`WorkTransform`, in the order of the scenario),
then what the host does around it (:class:`TimeTransform`, in that order): a mask on the CPU waits for the device as it
is served, however the scenario lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict

from simslm.catalog.architecture import Architecture, element_bytes
from simslm.catalog.devices import Device
from simslm.catalog.work import IterationShape, Work


@dataclass(frozen=True, slots=True)
class Footprint:
    """Memory that serving a model takes.

    Attributes:
        weight_bytes: all weights.
        kv_bytes_per_token: one token in the KV cache.
        kv_bytes_per_seq: what every sequence holds beside its tokens, however many those are.
    """

    weight_bytes: int
    kv_bytes_per_token: int
    kv_bytes_per_seq: int = 0


@dataclass(frozen=True, slots=True)
class Served:
    """What is served, and in which unit its work is counted.

    Attributes:
        architecture, dtype: the model, and the data type of weights and KV cache before any transform.
        operation: one floating-point operation at the arithmetic rate of ``dtype``: 1, or the seconds it takes.
        scalar_operation: one that the matrix units cannot do, in the same unit.
        byte: one byte of memory traffic: 1, or the seconds it takes.
    """

    architecture: Architecture
    dtype: str
    operation: float = 1.0
    scalar_operation: float = 1.0
    byte: float = 1.0

    @classmethod
    def on(
        cls, architecture: Architecture, dtype: str, device: Device, operation: float = 1.0, byte: float = 1.0
    ) -> Served:
        """On a device, whose units for single-precision scalars take their time for what is no matrix product."""
        peak = device.flops_per_s(dtype)
        scalar = peak / min(device.compute_flops.get("fp32", peak), peak)
        return cls(architecture, dtype, operation, operation * scalar, byte)

    @property
    def element_bits(self) -> int:
        """Bits of one weight, key or value before any transform."""
        return 8 * element_bytes(self.dtype)


class Transform(BaseModel):
    """One change, with its options; what it does not mention stays.

    Class attributes:
        key: that names it in a scenario.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    key: ClassVar[str]

    def words(self) -> str:
        """What was changed, for the name of the engine that costs are of."""
        options = (
            (name, getattr(self, name)) for name in type(self).model_fields if name in self.model_fields_set
        )
        stated = ", ".join(
            f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in options
        )
        return f"{self.key} ({stated})" if stated else self.key

    def neutral(self, served: Served) -> bool:
        """Whether these options change nothing; then the costs stay what they are, to the bit."""
        del served
        return False

    def footprint(self, held: Footprint, served: Served) -> Footprint:
        """The memory taken, from that before."""
        del served
        return held

    @property
    def kept_tokens(self) -> int | None:
        """Most tokens that a sequence keeps in the KV cache; None for all."""
        return None


class ShapeTransform(Transform):
    """Asks the device for another shape: a measured cost is asked about fewer keys."""

    def shape(self, shape: IterationShape) -> IterationShape:
        """What the device runs for a shape, numbers or arrays; by ``+ - * /`` and comparisons only."""
        raise NotImplementedError

    def knots(self, decode_seqs: int) -> tuple[float, ...]:
        """The total contexts of ``decode_seqs`` decoding sequences where the slope of :meth:`shape` changes."""
        raise NotImplementedError


class WorkTransform(Transform):
    """Changes the operations and bytes of a shape: a measured cost changes by the ratio of the roofline's."""

    def work(self, shape: IterationShape, work: Work, served: Served) -> Work:
        """The work of a shape, numbers or arrays, from that before; by ``+ - * /`` and comparisons only."""
        raise NotImplementedError


class TimeTransform(Transform):
    """Changes what happens around the device: host time, or something the device must wait for."""

    def host_s(self, shape: IterationShape, host_s: Any) -> Any:
        """Host time of an iteration, from that before; contexts do not change it."""
        del shape
        return host_s

    def device_at_least_s(self, shape: IterationShape) -> Any:
        """What the device's part of an iteration waits for; None where nothing does. Contexts do not change it."""
        del shape


_REGISTER: dict[str, type[Transform]] = {}

T = TypeVar("T", bound=type[Transform])


def transform(key: str) -> Callable[[T], T]:
    """Registers a class under the key that names it in a scenario; its docstring's first line describes it."""

    def register(cls: T) -> T:
        if key in _REGISTER:
            raise ValueError(f"transform {key!r} is registered twice")
        if not cls.__doc__:
            raise ValueError(f"transform {key!r} has no docstring: one line, with its source")
        cls.key = key
        _REGISTER[key] = cls
        return cls

    return register


def registered() -> dict[str, type[Transform]]:
    """All transforms by key, sorted."""
    return dict(sorted(_REGISTER.items()))


def summary(cls: type[Transform]) -> str:
    """The first paragraph of its docstring."""
    return " ".join((cls.__doc__ or "").strip().split("\n\n")[0].split())


def of_device(transforms: Sequence[Transform]) -> tuple[ShapeTransform | WorkTransform, ...]:
    """The transforms that change the device's part of an iteration, in order."""
    return tuple(each for each in transforms if isinstance(each, ShapeTransform | WorkTransform))


def footprint(served: Served, transforms: Sequence[Transform]) -> Footprint:
    """The memory that a model takes under transforms, applied in order."""
    held = Footprint(
        served.architecture.weight_bytes(served.dtype), served.architecture.kv_bytes_per_token(served.dtype)
    )
    for each in transforms:
        held = each.footprint(held, served)
    return held


def kept_tokens(transforms: Sequence[Transform]) -> int | None:
    """Most tokens that a sequence keeps in the KV cache under transforms; None for all."""
    return min((kept for each in transforms if (kept := each.kept_tokens) is not None), default=None)

"""Where iteration costs come from: a measured trace, or the roofline, and what is changed about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    create_model,
    field_validator,
    model_serializer,
    model_validator,
)

from simslm.transforms.host import HostTime
from simslm.transforms.registry import Transform, registered, summary


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Efficiency(_Options):
    """Which fraction of a device's peaks is reached."""

    compute: float = Field(default=0.6, ge=1e-6, le=1, description="fraction of the arithmetic peak")
    bandwidth: float = Field(default=0.8, ge=1e-6, le=1, description="fraction of the peak memory bandwidth")


class PowerShares(_Options):
    """Fraction of the span between idle and maximum power that an activity draws."""

    compute: float = Field(default=1.0, ge=0, le=1, description="while bound by arithmetic")
    memory: float = Field(default=0.5, ge=0, le=1, description="while bound by memory traffic")


class RooflineOptions(_Options):
    """The assumptions of the roofline; every one has a default."""

    efficiency: Efficiency = Field(
        default=Efficiency(), description="fraction of peak reached; one number means both"
    )
    host: HostTime = Field(
        default=HostTime(fixed_s=5e-4, per_seq_s=3e-5), description="host time, in which no kernel runs"
    )
    power: PowerShares = Field(default=PowerShares(), description="power drawn by each activity")

    @field_validator("efficiency", mode="before")
    @classmethod
    def _one_number(cls, value: Any) -> Any:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return {"compute": value, "bandwidth": value} if is_number else value


class AllReduce(_Options):
    """What the exchange between the devices of a tensor-parallel replica takes."""

    latency_s: float = Field(
        default=1e-5, ge=0, le=1e3, description="fixed time of one all-reduce, in seconds (assumed)"
    )
    bandwidth_efficiency: float = Field(
        default=0.8, ge=1e-6, le=1, description="fraction of the link's bandwidth reached"
    )


def _exactly_one(self: BaseModel) -> BaseModel:
    """A validator: one transform is named, and no other."""
    named = [key for key in registered() if getattr(self, key) is not None]
    if len(named) != 1:
        found = " and ".join(named) or "none"
        raise ValueError(f"expected one transform ({', '.join(registered())}), found {found}")
    return self


def _only_named(self: BaseModel, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
    """A serializer: the transform that is named, without those that are not."""
    return {key: value for key, value in dump(self).items() if value is not None}


if TYPE_CHECKING:
    Named = Any
else:
    Named = create_model(
        "Transform",
        __base__=_Options,
        __doc__="One change to a cost model, by its key; `simslm list transforms` shows the choice.",
        __validators__={
            "exactly_one": model_validator(mode="after")(_exactly_one),
            "only_named": model_serializer(mode="wrap")(_only_named),
        },
        **{
            key: (cls | None, Field(default=None, description=summary(cls)))
            for key, cls in registered().items()
        },
    )


class Cost(_Options):
    """Exactly one source of iteration costs, and the changes made to it, in order.

    Class attributes:
        displaces: by key, those that an override of it drops.
    """

    displaces: ClassVar = {
        "trace": ("roofline",),
        "roofline": ("trace",),
        "power_cap_w": ("sm_clock_mhz",),
        "sm_clock_mhz": ("power_cap_w",),
    }

    trace: str | None = Field(default=None, min_length=1, description="directory of a trace")
    roofline: RooflineOptions | None = Field(
        default=None, description="no measurement: the roofline of the device"
    )
    power_cap_w: float | None = Field(
        default=None,
        gt=0,
        description="power limit of the device, W, as far as the trace has power against it",
    )
    sm_clock_mhz: float | None = Field(
        default=None, gt=0, description="clock of the device, MHz, as far as the trace has power against it"
    )
    transforms: tuple[Named, ...] = Field(
        default=(), description="changes, applied in order: those of the device's part, then those around it"
    )
    all_reduce: AllReduce = Field(
        default_factory=AllReduce, description="exchange between devices, for tensor_parallel_size above 1"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Cost:
        if (self.trace is None) == (self.roofline is None):
            found = "neither" if self.trace is None else "both"
            raise ValueError(f"expected either trace or roofline, found {found}")
        return self

    @model_validator(mode="after")
    def _one_throttle(self) -> Cost:
        stated = [name for name in ("power_cap_w", "sm_clock_mhz") if getattr(self, name) is not None]
        if len(stated) > 1:
            raise ValueError("state either power_cap_w or sm_clock_mhz: a cap is kept by lowering the clock")
        if stated and self.trace is None:
            raise ValueError(f"{stated[0]} needs a trace with power against it; the roofline knows none")
        return self

    @model_validator(mode="after")
    def _no_change_twice(self) -> Cost:
        keys = [each.key for each in self.changes]
        for key in keys:
            if keys.count(key) > 1:
                raise ValueError(f"the transform {key!r} is stated twice; state it once, as it is to be")
        return self

    @property
    def changes(self) -> tuple[Transform, ...]:
        """The transforms themselves, in order."""
        return tuple(
            change
            for named in self.transforms
            for key in registered()
            if (change := getattr(named, key)) is not None
        )

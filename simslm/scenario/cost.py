"""Where iteration costs come from: a measured trace, or the roofline, and what is changed about them."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class HostTime(_Options):
    """Host time of one iteration: a fixed part and a part for every sequence in it."""

    fixed_s: float = Field(ge=0, le=1e3, description="host time of an iteration, in seconds")
    per_seq_s: float = Field(ge=0, le=1e3, description="host time for each sequence in it, in seconds")


class Efficiency(_Options):
    """Which fraction of a device's peaks is reached."""

    compute: float = Field(default=0.6, ge=1e-6, le=1, description="fraction of the arithmetic peak")
    bandwidth: float = Field(default=0.8, ge=1e-6, le=1, description="fraction of the peak memory bandwidth")


class PowerShares(_Options):
    """Which fraction of the span between idle and maximum power an activity draws."""

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


class Transform(_Options):
    """One change to a cost model."""

    host: HostTime = Field(description="replace the host time of the trace by your own engine's")


class Cost(_Options):
    """Exactly one source of iteration costs, and the changes made to it, in order.

    Class attributes:
        displaces: by key, those that an override of it drops.
    """

    displaces: ClassVar = {"trace": ("roofline",), "roofline": ("trace",)}

    trace: str | None = Field(default=None, min_length=1, description="directory of a trace")
    roofline: RooflineOptions | None = Field(
        default=None, description="no measurement: the roofline of the device"
    )
    transforms: tuple[Transform, ...] = Field(default=(), description="changes, applied in order")
    all_reduce: AllReduce = Field(
        default_factory=AllReduce, description="exchange between devices, for tensor_parallel_size above 1"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Cost:
        if (self.trace is None) == (self.roofline is None):
            found = "neither" if self.trace is None else "both"
            raise ValueError(f"expected either trace or roofline, found {found}")
        return self

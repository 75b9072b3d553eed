"""What a user writes under ``metrics:``: which requests the figures of a run are of."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from simslm.scenario.arrivals import LONGEST_S


class Metrics(BaseModel):
    """What is left out of latencies, SLO and rates at both ends of a run; nothing by default.

    Rates and energy are then those of the time in between. All requests are simulated, and counted as arrived,
    finished, rejected or failed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    warmup_requests: int | None = Field(
        default=None, ge=0, le=2**53, description="leave out the first requests to arrive, so many"
    )
    warmup_s: float | None = Field(
        default=None,
        ge=0,
        le=LONGEST_S,
        description="leave out what arrives so soon after the first request, s",
    )
    steady: Literal["auto"] | None = Field(
        default=None,
        description="auto: leave out the start by MSER-5 (White 1997), from the TTFT and TPOT of the requests in order "
        "of arrival",
    )
    cooldown_requests: int | None = Field(
        default=None, ge=0, le=2**53, description="leave out the last requests to arrive, so many"
    )
    cooldown_s: float | None = Field(
        default=None,
        ge=0,
        le=LONGEST_S,
        description="leave out what arrives so short before the last request, s",
    )

    @model_validator(mode="after")
    def _one_of_each(self) -> Metrics:
        for names in (("warmup_requests", "warmup_s", "steady"), ("cooldown_requests", "cooldown_s")):
            given = [name for name in names if getattr(self, name) is not None]
            if len(given) > 1:
                raise ValueError(f"{' and '.join(given)} say the same thing in two ways: keep one of them")
        return self

    @property
    def requests(self) -> int:
        """How many requests are left out, as far as that is stated."""
        return (self.warmup_requests or 0) + (self.cooldown_requests or 0)

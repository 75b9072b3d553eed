"""What a user writes under ``slo:``, for all requests or for those of a class."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Slo(BaseModel):
    """Bounds a request must meet, each optional; a request with one output token meets ``tpot_s``."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    ttft_s: float | None = Field(default=None, gt=0, description="longest time to first token, s")
    tpot_s: float | None = Field(default=None, gt=0, description="longest time per output token, s")
    e2e_s: float | None = Field(default=None, gt=0, description="longest time to the last token, s")
    attainment: float = Field(
        default=0.9, gt=0, le=1, description="share of requests that must meet all bounds"
    )

    @model_validator(mode="after")
    def _some_bound(self) -> Slo:
        if self.ttft_s is None and self.tpot_s is None and self.e2e_s is None:
            raise ValueError("an SLO states at least one of ttft_s, tpot_s, e2e_s")
        return self

    def bounds(self) -> dict[str, float | None]:
        """The bound on each metric, None where there is none."""
        return {"ttft_s": self.ttft_s, "tpot_s": self.tpot_s, "e2e_s": self.e2e_s}

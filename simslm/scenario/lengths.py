"""What a user writes for the lengths of prompts and outputs: distributions of whole tokens."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST_TOKENS = 1_000_000_000
"""No length, limit or parameter of a length is larger."""


class WorkloadPart(BaseModel):
    """A part of the workload: unknown keys refused, fields frozen, numbers finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Probabilities = Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], Field(min_length=2)]


def check_quantiles(at: tuple[float, ...] | None, values: tuple[float, ...]) -> None:
    """Quantiles never fall, some of them are above 0, and their probabilities rise from 0 to 1.

    Raises:
        ValueError: they do not.
    """
    if any(low > high for low, high in pairwise(values)):
        raise ValueError("quantiles never fall: list values from the smallest to the largest")
    if not values[-1]:
        raise ValueError("the largest quantile is 0")
    if at is None:
        return
    if len(at) != len(values):
        raise ValueError(
            f"at has {len(at)} probabilities and values {len(values)} quantiles; give one of each"
        )
    if at[0] != 0 or at[-1] != 1 or any(low >= high for low, high in pairwise(at)):
        raise ValueError("at rises from 0 to 1")


class Truncated(WorkloadPart):
    """A distribution that may be cut to ``[min, max]``: draws outside are as if never made."""

    min: int | None = Field(default=None, ge=1, le=MOST_TOKENS, description="shortest, tokens")
    max: int | None = Field(default=None, ge=1, le=MOST_TOKENS, description="longest, tokens")

    @model_validator(mode="after")
    def _bounds_ordered(self) -> Any:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min ({self.min}) is above max ({self.max})")
        return self


def _either(one: tuple[str, ...], other: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """What each key displaces where either all of ``one`` are given or all of ``other``."""
    return dict.fromkeys(one, other) | dict.fromkeys(other, one)


class MeanAndP95(Truncated):
    """A two-parameter distribution, by its mean and 95th percentile or by its own parameters.

    Class attributes:
        own: names of the own parameters.
        displaces: by key, those that an override of it drops.
        largest_p95_over_mean: no member of the family has a higher ratio (tests hold it to the formulas).
    """

    own: ClassVar[tuple[str, str]]
    displaces: ClassVar[dict[str, tuple[str, ...]]]
    largest_p95_over_mean: ClassVar[float]

    mean: float | None = Field(default=None, ge=1, le=MOST_TOKENS, description="mean before any cut, tokens")
    p95: float | None = Field(
        default=None, ge=1, le=MOST_TOKENS, description="95th percentile before any cut, tokens"
    )

    @model_validator(mode="after")
    def _one_pair(self) -> Any:
        pairs = (("mean", "p95"), self.own)
        given = [pair for pair in pairs if any(getattr(self, name) is not None for name in pair)]
        if len(given) != 1 or any(getattr(self, name) is None for name in given[0]):
            raise ValueError(f"give either mean and p95, or {self.own[0]} and {self.own[1]}")
        if self.mean is not None and self.p95 is not None:
            self._possible(self.mean, self.p95)
        return self

    def _possible(self, mean: float, p95: float) -> None:
        if p95 <= mean:
            raise ValueError(
                f"p95 ({p95:g}) must lie above the mean ({mean:g}); for equal lengths use {{dist: fixed}}"
            )
        if p95 > self.largest_p95_over_mean * mean:
            raise ValueError(
                f"no such distribution has mean {mean:g} and p95 {p95:g}: p95 can be at most "
                f"{self.largest_p95_over_mean:.3f} times the mean; for heavier tails use a mixture"
            )


class Fixed(WorkloadPart):
    """Every request the same."""

    dist: Literal["fixed"]
    value: int = Field(ge=1, le=MOST_TOKENS, description="tokens")


class Uniform(WorkloadPart):
    """Whole numbers from ``low`` to ``high``, both included."""

    dist: Literal["uniform"]
    low: int = Field(ge=1, le=MOST_TOKENS, description="shortest, tokens")
    high: int = Field(ge=1, le=MOST_TOKENS, description="longest, tokens")

    @model_validator(mode="after")
    def _bounds_ordered(self) -> Any:
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) is above high ({self.high})")
        return self


class Lognormal(MeanAndP95):
    """``exp`` of a normal with mean ``mu`` and standard deviation ``sigma``."""

    own: ClassVar = ("mu", "sigma")
    displaces: ClassVar = _either(("mean", "p95"), own)
    largest_p95_over_mean: ClassVar = 3.868
    dist: Literal["lognormal"]
    mu: float | None = Field(default=None, ge=-50, le=50, description="mean of the logarithm")
    sigma: float | None = Field(default=None, ge=0, le=50, description="standard deviation of the logarithm")


class Gamma(MeanAndP95):
    """A gamma distribution with mean ``shape * scale``."""

    own: ClassVar = ("shape", "scale")
    displaces: ClassVar = _either(("mean", "p95"), own)
    largest_p95_over_mean: ClassVar = 5.827
    dist: Literal["gamma"]
    shape: float | None = Field(default=None, ge=1e-3, le=1e9, description="shape")
    scale: float | None = Field(default=None, ge=1e-9, le=MOST_TOKENS, description="scale, tokens")


class Weibull(MeanAndP95):
    """A Weibull distribution: ``P(X > x) = exp(-(x / scale) ** shape)``."""

    own: ClassVar = ("shape", "scale")
    displaces: ClassVar = _either(("mean", "p95"), own)
    largest_p95_over_mean: ClassVar = 4.674
    dist: Literal["weibull"]
    shape: float | None = Field(default=None, ge=1e-3, le=1e9, description="shape")
    scale: float | None = Field(default=None, ge=1e-9, le=MOST_TOKENS, description="scale, tokens")


class Empirical(Truncated):
    """Draws, with replacement, from a column of a CSV (with a header) or Parquet file."""

    dist: Literal["empirical"]
    file: str = Field(min_length=1, description="path, relative to the scenario")
    column: str = Field(min_length=1, description="name of the column, in tokens")


class Quantiles(Truncated):
    """Lengths by their quantiles, straight lines between them."""

    dist: Literal["quantiles"]
    at: Probabilities | None = Field(
        default=None, description="probability of each, from 0 to 1; null = equally spaced"
    )
    values: tuple[Annotated[float, Field(ge=0.5, le=MOST_TOKENS)], ...] = Field(
        min_length=2, description="quantiles, the smallest first and the largest last, tokens"
    )

    @model_validator(mode="after")
    def _rising(self) -> Quantiles:
        check_quantiles(self.at, self.values)
        return self


class Listed(WorkloadPart):
    """The listed lengths in their order, and again from the first when they run out."""

    dist: Literal["listed"]
    values: tuple[Annotated[int, Field(ge=1, le=MOST_TOKENS)], ...] = Field(
        min_length=1, description="one length for each request, tokens"
    )


class Component(WorkloadPart):
    """A share of a mixture."""

    weight: float = Field(gt=0, le=1e9, description="share, relative to the other components' weights")


class FixedComponent(Component, Fixed):
    """A fixed length within a mixture."""


class UniformComponent(Component, Uniform):
    """A uniform length within a mixture."""


class LognormalComponent(Component, Lognormal):
    """A lognormal within a mixture."""


class GammaComponent(Component, Gamma):
    """A gamma within a mixture."""


class WeibullComponent(Component, Weibull):
    """A Weibull within a mixture."""


class EmpiricalComponent(Component, Empirical):
    """A measured distribution within a mixture."""


class QuantilesComponent(Component, Quantiles):
    """A distribution by its quantiles within a mixture."""


class Mixture(WorkloadPart):
    """Each request draws its component by weight, then its length from that."""

    dist: Literal["mixture"]
    components: tuple[
        Annotated[
            FixedComponent
            | UniformComponent
            | LognormalComponent
            | GammaComponent
            | WeibullComponent
            | EmpiricalComponent
            | QuantilesComponent,
            Field(discriminator="dist"),
        ],
        ...,
    ] = Field(min_length=1, description="what is mixed, each with its weight")


Lengths = Annotated[
    Fixed | Uniform | Lognormal | Gamma | Weibull | Mixture | Empirical | Quantiles | Listed,
    Field(discriminator="dist"),
]

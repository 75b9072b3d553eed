"""What a user writes for when requests arrive: processes and the laws of their gaps."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from simslm.scenario.lengths import Lengths, Probabilities, WorkloadPart, check_quantiles

LONGEST_S = 2.0**32
"""No arrival lies beyond: up to here a double resolves a microsecond."""

MOST_REQUESTS = 100_000_000
"""No workload has more."""

MOST_CLIENTS = 100_000
"""No population has more."""


Rate = Annotated[float, Field(gt=0, le=1e12, description="mean arrival rate, requests per second")]


class Deterministic(WorkloadPart):
    """One request every ``1 / rate_rps`` seconds, the first at 0."""

    process: Literal["deterministic"]
    rate_rps: Rate


class Poisson(WorkloadPart):
    """Independent exponential gaps."""

    process: Literal["poisson"]
    rate_rps: Rate


class GammaGaps(WorkloadPart):
    """Independent gamma gaps: burstier than Poisson when ``cv`` is above 1, smoother when below."""

    process: Literal["gamma"]
    rate_rps: Rate
    cv: float = Field(ge=1e-6, le=1e3, description="coefficient of variation of the gaps; 1 is Poisson")


class WeibullGaps(WorkloadPart):
    """Independent Weibull gaps: of the same spread as gamma gaps, with fewer very short and more very long ones."""

    process: Literal["weibull"]
    rate_rps: Rate
    cv: float = Field(ge=0.01, le=100, description="coefficient of variation of the gaps; 1 is Poisson")


class Mmpp(WorkloadPart):
    """A Markov-modulated Poisson process: a rate per state, visited in order and round again."""

    process: Literal["mmpp"]
    rates_rps: tuple[Annotated[float, Field(ge=0, le=1e12)], ...] = Field(
        min_length=2, description="arrival rate in each state, requests per second"
    )
    mean_dwell_s: tuple[Annotated[float, Field(ge=1e-9, le=LONGEST_S)], ...] = Field(
        description="mean time spent in each state, exponentially distributed"
    )

    @model_validator(mode="after")
    def _states_agree(self) -> Mmpp:
        if len(self.rates_rps) != len(self.mean_dwell_s):
            raise ValueError(
                f"rates_rps has {len(self.rates_rps)} states and mean_dwell_s {len(self.mean_dwell_s)}; "
                "give one of each per state"
            )
        if not any(self.rates_rps):
            raise ValueError("rates_rps is 0 in every state: nothing would ever arrive")
        return self


class AllAtOnce(WorkloadPart):
    """Every request at time 0."""

    process: Literal["all-at-once"]


class ListedArrivals(WorkloadPart):
    """Requests at listed times, as a client recorded them."""

    process: Literal["listed"]
    times_s: tuple[Annotated[float, Field(ge=0, le=LONGEST_S)], ...] = Field(
        min_length=1, description="when each request arrives, seconds, in order"
    )

    @model_validator(mode="after")
    def _ascending(self) -> ListedArrivals:
        if any(later < earlier for earlier, later in pairwise(self.times_s)):
            raise ValueError("times_s are not in order; sort them")
        return self


class ClosedLoopArrivals(WorkloadPart):
    """A fixed number of clients, each sending its next request when its last one has finished.

    With ``rate_rps`` requests become due by a Poisson process, and one that is due waits at its client while
    ``concurrency`` are in flight: ``--request-rate`` with ``--max-concurrency`` of ``vllm bench serve``.
    """

    process: Literal["closed-loop"]
    concurrency: int = Field(ge=1, description="clients, i.e. the most requests in flight")
    rate_rps: float | None = Field(
        default=None,
        gt=0,
        le=1e12,
        description="requests become due at this rate (Poisson), per second; null = whenever a client is free",
    )
    think_time_s: float = Field(default=0.0, ge=0, description="pause of a client between two requests")


class Diurnal(WorkloadPart):
    """A Poisson process of rate ``rate_rps * (1 + amplitude * sin(2 pi t / period_s))``."""

    process: Literal["diurnal"]
    rate_rps: Rate
    amplitude: float = Field(default=0.5, ge=0, le=1, description="swing of the rate, as a share of its mean")
    period_s: float = Field(
        default=86400.0, ge=1e-6, le=LONGEST_S, description="length of one swing; a day by default"
    )


class ExponentialLaw(WorkloadPart):
    """Gaps of a Poisson process."""

    dist: Literal["exponential"]


class GammaLaw(WorkloadPart):
    """Gamma gaps."""

    dist: Literal["gamma"]
    cv: float = Field(ge=1e-6, le=1e3, description="coefficient of variation; 1 is exponential")


class WeibullLaw(WorkloadPart):
    """Weibull gaps."""

    dist: Literal["weibull"]
    cv: float = Field(ge=0.01, le=100, description="coefficient of variation; 1 is exponential")


class QuantileLaw(WorkloadPart):
    """Gaps by their quantiles, straight lines between them."""

    dist: Literal["quantiles"]
    at: Probabilities | None = Field(
        default=None, description="probability of each, from 0 to 1; null = equally spaced"
    )
    values: tuple[Annotated[float, Field(ge=0, le=1e12)], ...] = Field(
        min_length=2, description="quantiles in any unit: only their ratios count"
    )

    @model_validator(mode="after")
    def _rising(self) -> QuantileLaw:
        check_quantiles(self.at, self.values)
        return self


GapLaw = Annotated[ExponentialLaw | GammaLaw | WeibullLaw | QuantileLaw, Field(discriminator="dist")]


class Curve(WorkloadPart):
    """A rate that follows a curve, over and over, with independent gaps of any law in the time that it measures.

    Gaps of mean 1 are drawn and mapped back through the integral of the rate: where the rate is twice as high, they
    are half as long. With exponential gaps that is a Poisson process of this rate.
    """

    shape: tuple[Annotated[float, Field(ge=0, le=1e12)], ...] = Field(
        default=(1.0,), min_length=1, description="rate in each step, in any unit: only ratios count"
    )
    step_s: float = Field(default=60.0, ge=1e-6, le=LONGEST_S, description="length of a step")
    gaps: GapLaw = Field(
        default=ExponentialLaw(dist="exponential"), description="law of the gaps, exponential by default"
    )

    @model_validator(mode="after")
    def _flows(self) -> Any:
        if not any(self.shape):
            raise ValueError("shape is 0 in every step: nothing would ever arrive")
        return self


class RateCurve(Curve):
    """Requests at a rate that follows a curve."""

    process: Literal["rate-curve"]
    rate_rps: Rate
    tick_s: float | None = Field(
        default=None, ge=1e-9, le=LONGEST_S, description="arrival times are cut to multiples of it"
    )


class Client(Curve):
    """One client, or ``count`` alike, of a population: its part of the requests, its rate, burstiness and lengths."""

    share: float = Field(
        gt=0, le=1e9, description="part of the requests, relative to the other entries' shares"
    )
    count: int = Field(default=1, ge=1, le=100_000, description="clients that divide the share")
    skew: float = Field(
        default=0.0,
        ge=0,
        le=10,
        description="the k-th of them sends in proportion to k ** -skew; 0 is equally",
    )
    prompt_tokens: Lengths | None = Field(default=None, description="its prompts; null = the workload's")
    output_tokens: Lengths | None = Field(default=None, description="its outputs; null = the workload's")


class ClientArrivals(WorkloadPart):
    """Many clients, each with a rate, a burstiness and lengths of its own (ServeGen, arXiv:2505.09999, section 4)."""

    process: Literal["clients"]
    rate_rps: Rate
    clients: tuple[Client, ...] = Field(min_length=1, description="who sends")

    @model_validator(mode="after")
    def _countable(self) -> ClientArrivals:
        if (count := sum(client.count for client in self.clients)) > MOST_CLIENTS:
            raise ValueError(f"{count:,} clients; there can be at most {MOST_CLIENTS:,}")
        return self


Arrivals = Annotated[
    Deterministic
    | Poisson
    | GammaGaps
    | WeibullGaps
    | Mmpp
    | AllAtOnce
    | ListedArrivals
    | ClosedLoopArrivals
    | Diurnal
    | RateCurve
    | ClientArrivals,
    Field(discriminator="process"),
]

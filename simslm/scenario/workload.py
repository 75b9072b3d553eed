"""What a user writes under ``workload:``: when requests arrive and how long they are, or what is replayed."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

LONGEST_S = 2.0**32
"""No arrival lies beyond: up to here a double resolves a microsecond."""

MOST_REQUESTS = 100_000_000
"""No workload has more."""

MOST_TOKENS = 1_000_000_000
"""No length, limit or parameter of a length is larger."""


class WorkloadPart(BaseModel):
    """A part of the workload: unknown keys refused, fields frozen, numbers finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# ---- when requests arrive ----------------------------------------------------------------------------------

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


class ClosedLoopArrivals(WorkloadPart):
    """A fixed number of clients, each sending its next request when its last one has finished."""

    process: Literal["closed-loop"]
    concurrency: int = Field(ge=1, description="clients, i.e. requests in flight")
    think_time_s: float = Field(default=0.0, ge=0, description="pause of a client between two requests")


class Diurnal(WorkloadPart):
    """A Poisson process of rate ``rate_rps * (1 + amplitude * sin(2 pi t / period_s))``."""

    process: Literal["diurnal"]
    rate_rps: Rate
    amplitude: float = Field(default=0.5, ge=0, le=1, description="swing of the rate, as a share of its mean")
    period_s: float = Field(
        default=86400.0, ge=1e-6, le=LONGEST_S, description="length of one swing; a day by default"
    )


Arrivals = Annotated[
    Deterministic | Poisson | GammaGaps | Mmpp | AllAtOnce | ClosedLoopArrivals | Diurnal,
    Field(discriminator="process"),
]

# ---- how long they are -------------------------------------------------------------------------------------


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
            | EmpiricalComponent,
            Field(discriminator="dist"),
        ],
        ...,
    ] = Field(min_length=1, description="what is mixed, each with its weight")


Lengths = Annotated[
    Fixed | Uniform | Lognormal | Gamma | Weibull | Mixture | Empirical | Listed,
    Field(discriminator="dist"),
]

# ---- what prompts share, and what clients are like ------------------------------------------------------------

PREFIX_UNIT_TOKENS = 16
"""Generated prefixes are shared in units of so many tokens: vLLM's default block."""

MOST_PREFIX_TOKENS = 100_000_000
"""All prefixes of a workload together are no longer."""


class Prefixes(WorkloadPart):
    """Shared system prompts: a share of the prompts begins with one of ``count`` texts, each equally likely.

    A prefix is part of the drawn prompt, not added to it; a prompt that is shorter is the beginning of one.
    """

    count: int = Field(ge=1, description="different prefixes")
    tokens: int = Field(
        ge=PREFIX_UNIT_TOKENS, description="length of each; what exceeds a multiple of 16 is not shared"
    )
    share: float = Field(default=1.0, gt=0, le=1, description="share of the prompts that begin with one")

    @model_validator(mode="after")
    def _bounded(self) -> Prefixes:
        if self.count * self.tokens > MOST_PREFIX_TOKENS:
            raise ValueError(
                f"count x tokens is {self.count * self.tokens:.3g}, but all prefixes together can have at most "
                f"{MOST_PREFIX_TOKENS:,} tokens"
            )
        return self


class PriorityShare(WorkloadPart):
    """A priority, and the share of the requests that have it."""

    value: int = Field(ge=-(2**53), le=2**53, description="the lower, the sooner")
    share: float = Field(gt=0, le=1e9, description="relative to the shares of the other priorities")


class Cancellations(WorkloadPart):
    """Clients who leave before their answer is complete, after an exponentially distributed time."""

    share: float = Field(gt=0, le=1, description="share of the clients who would leave")
    mean_after_s: float = Field(gt=0, le=LONGEST_S, description="mean time from sending to leaving, s")


# ---- a trace to replay -------------------------------------------------------------------------------------


ReplayFormat = Literal["azure-2023", "azure-2024", "burstgpt", "mooncake", "vidur", "llmservingsim", "csv"]


class Replay(WorkloadPart):
    """Arrivals and lengths from a recorded trace, in its original file format."""

    format: ReplayFormat = Field(
        description="file format; csv has the columns arrival_s,prompt_tokens,output_tokens and may have "
        "priority,session_id,patience_s"
    )
    path: str = Field(min_length=1, description="the file, relative to the scenario")
    time_scale: float = Field(
        default=1.0, gt=0, description="factor on arrival times; 0.5 doubles the rate, 2 halves it"
    )
    limit: int | None = Field(default=None, ge=1, description="replay only the first so many requests")


# ---- the whole ---------------------------------------------------------------------------------------------


DRAWN = ("arrivals", "prompt_tokens", "output_tokens")
"""What every generated workload states."""

GENERATED = ("num_requests", "duration_s", *DRAWN, "prefixes")
"""What only a generated workload may state."""


class Workload(WorkloadPart):
    """The requests of a run: generated (``arrivals`` and lengths), or a trace replayed.

    Class attributes:
        displaces: by key, those that an override of it drops.
    """

    displaces: ClassVar = {"replay": GENERATED} | dict.fromkeys(DRAWN, ("replay",))

    num_requests: int | None = Field(
        default=None, ge=1, le=MOST_REQUESTS, description="how many requests arrive"
    )
    duration_s: float | None = Field(
        default=None, gt=0, description="no request arrives at or after this time"
    )
    arrivals: Arrivals | None = Field(default=None, description="when requests arrive")
    prompt_tokens: Lengths | None = Field(default=None, description="length of the prompts")
    output_tokens: Lengths | None = Field(default=None, description="length of the outputs")
    max_tokens: int | None = Field(
        default=None,
        ge=1,
        le=MOST_TOKENS,
        description="declared limit of every output, all that policies see of its length; outputs end there; "
        "null = max_model_len minus the prompt",
    )
    prefixes: Prefixes | None = Field(
        default=None, description="beginnings that generated prompts share; a replay brings its own"
    )
    priorities: tuple[PriorityShare, ...] | None = Field(
        default=None,
        min_length=1,
        description="each request draws its priority; in place of those a replayed trace may have",
    )
    timeout_s: float | None = Field(
        default=None, gt=0, description="every client leaves that long after it has sent, if still unanswered"
    )
    cancellations: Cancellations | None = Field(default=None, description="clients that leave early")
    replay: Replay | None = Field(default=None, description="a recorded trace instead of generated requests")

    @property
    def files(self) -> tuple[str, ...]:
        """The files it reads, as it names them."""
        if self.replay is not None:
            return (self.replay.path,)
        lengths = (self.prompt_tokens, self.output_tokens)
        parts = [
            part for each in lengths for part in (each.components if isinstance(each, Mixture) else (each,))
        ]
        return tuple(part.file for part in parts if isinstance(part, Empirical))

    @model_validator(mode="after")
    def _replayed_or_generated(self) -> Workload:
        if self.replay is not None:
            given = [name for name in GENERATED if getattr(self, name) is not None]
            if given:
                raise ValueError(
                    f"replay takes arrivals and lengths from its file; remove {', '.join(given)} "
                    "(replay.limit and replay.time_scale shorten and scale a trace)"
                )
            return self
        missing = [name for name in DRAWN if getattr(self, name) is None]
        if missing:
            raise ValueError(f"{', '.join(missing)} missing; give all of {', '.join(DRAWN)}, or replay")
        self._bounded()
        return self

    def _bounded(self) -> None:
        if self.num_requests is None and isinstance(self.arrivals, AllAtOnce | ClosedLoopArrivals):
            raise ValueError(f"num_requests is missing; {self.arrivals.process} arrivals need it")
        if self.num_requests is None and self.duration_s is None:
            raise ValueError("give num_requests, duration_s, or both")

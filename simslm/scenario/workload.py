"""What a user writes under ``workload:``: when requests arrive and how long they are, or what is replayed."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from simslm.scenario.arrivals import (
    LONGEST_S,
    MOST_REQUESTS,
    AllAtOnce,
    Arrivals,
    ClientArrivals,
    ClosedLoopArrivals,
)
from simslm.scenario.lengths import MOST_TOKENS, Empirical, Lengths, Mixture, WorkloadPart
from simslm.scenario.programs import Graphs, ProgramPart, ProgramSpec, Sessions

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


TICKS_PER_S = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
"""By unit of time."""

ReplayFormat = Literal[
    "auto",
    "azure-2023",
    "azure-2024",
    "azure-2025",
    "burstgpt",
    "mooncake",
    "qwen-bailian",
    "ragpulse",
    "vidur",
    "vidur-lengths",
    "splitwise",
    "llmservingsim",
    "csv",
    "jsonl",
    "parquet",
]


class Thinning(WorkloadPart):
    """A random part of a trace's requests, or of its sessions with all their requests."""

    share: float = Field(gt=0, le=1, description="expected share that is kept")
    by: Literal["request", "session"] = Field(
        default="request",
        description="what is kept or left out as a whole; requests without a session stand for themselves",
    )


class RateScale(WorkloadPart):
    """More or fewer requests at the same times: each window of the trace is played ``factor`` times in its own time.

    The rate in every window is ``factor`` times what it was, and gaps that are short against a window keep their law,
    ``factor`` times as short: of a factor below 1 the first part of the window is played, slower; above 1, the window
    is played again and again, faster.
    """

    factor: float = Field(ge=1e-3, le=1e3, description="requests per second, relative to the trace's")
    window_s: float = Field(
        default=60.0, ge=1e-6, le=LONGEST_S, description="the rate is kept from windows of this length on"
    )


class Replay(WorkloadPart):
    """Arrivals and lengths from a recorded trace, in its original file format.

    What is asked for is done in this order: from_s and to_s, thin, rate_scale, copies, time_scale, repeat, limit.
    """

    format: ReplayFormat = Field(
        default="auto",
        description="file format, by default that which the file's columns name; csv, jsonl and parquet have "
        "prompt_tokens,output_tokens and may have arrival_s,priority,session_id,patience_s; without arrival_s give "
        "arrivals beside replay",
    )
    path: str = Field(min_length=1, description="the file, relative to the scenario")
    time_unit: Literal["s", "ms", "us", "ns"] | None = Field(
        default=None,
        description="unit of timestamps in mooncake and qwen-bailian files; null = ms for mooncake, s for the other",
    )
    hash_tokens: int | None = Field(
        default=None,
        ge=1,
        le=MOST_TOKENS,
        description="prompt tokens that one of hash_ids stands for; null = 512 for mooncake, 16 for qwen-bailian",
    )
    from_s: float | None = Field(
        default=None,
        ge=0,
        le=LONGEST_S,
        description="leave out what arrives earlier, seconds after the first",
    )
    to_s: float | None = Field(
        default=None, gt=0, le=LONGEST_S, description="leave out what arrives then or later"
    )
    thin: Thinning | None = Field(default=None, description="keep a random part")
    rate_scale: RateScale | None = Field(
        default=None, description="change the rate, keep its curve over time and the burstiness of the gaps"
    )
    copies: int = Field(
        default=1,
        ge=1,
        le=10_000,
        description="superpose so many copies, each shifted round the trace's span by an equal part of it; the copies' "
        "sessions and prefixes are others",
    )
    time_scale: float = Field(
        default=1.0, gt=0, description="factor on arrival times; 0.5 doubles the rate, 2 halves it"
    )
    repeat: int = Field(
        default=1,
        ge=1,
        le=1_000_000,
        description="play it so many times, one after the other, a mean gap between; sessions and prefixes are others",
    )
    limit: int | None = Field(default=None, ge=1, description="replay only the first so many requests")

    @property
    def dialect(self) -> dict[str, int]:
        """What is stated of the file's units, by the name that its reader knows."""
        stated = {
            "ticks_per_s": None if self.time_unit is None else TICKS_PER_S[self.time_unit],
            "unit_tokens": self.hash_tokens,
        }
        return {name: value for name, value in stated.items() if value is not None}

    @model_validator(mode="after")
    def _window_ordered(self) -> Replay:
        if self.to_s is not None and (self.from_s or 0.0) >= self.to_s:
            raise ValueError(f"from_s ({self.from_s:g}) is not before to_s ({self.to_s:g})")
        return self


# ---- the whole ---------------------------------------------------------------------------------------------


DRAWN = ("arrivals", "prompt_tokens", "output_tokens")
"""What every generated workload states."""

GENERATED = (
    "num_requests",
    "duration_s",
    "prompt_tokens",
    "output_tokens",
    "correlation",
    "prefixes",
    "programs",
)
"""What only a generated workload may state; arrivals may take the place of those of a trace."""

FITTED = (*DRAWN, "correlation", "replay")
"""What a preset states, or stands in place of."""


class Workload(WorkloadPart):
    """The requests of a run: generated (``arrivals`` and lengths), or a trace replayed.

    Class attributes:
        displaces: by key, those that an override of it drops.
    """

    displaces: ClassVar = {
        "preset": FITTED,
        "replay": ("preset", "arrivals", *GENERATED),
        "prompt_tokens": ("replay",),
        "output_tokens": ("replay",),
    }

    preset: str | None = Field(
        default=None,
        min_length=1,
        description="a fitted workload, by its name (`simslm list workloads`) or its file, relative to the scenario; "
        "what else is stated here takes the place of what it says",
    )
    num_requests: int | None = Field(
        default=None, ge=1, le=MOST_REQUESTS, description="how many requests, or programs, arrive"
    )
    duration_s: float | None = Field(
        default=None, gt=0, description="no request or program arrives at or after this time"
    )
    arrivals: Arrivals | None = Field(default=None, description="when requests arrive")
    prompt_tokens: Lengths | None = Field(default=None, description="length of the prompts")
    output_tokens: Lengths | None = Field(default=None, description="length of the outputs")
    correlation: float | None = Field(
        default=None,
        ge=-1,
        le=1,
        description="rank correlation (Spearman) between prompt and output lengths, by a Gaussian copula; null = none",
    )
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
    programs: ProgramSpec | None = Field(
        default=None, description="requests that wait for others; then each arrival is that of a program"
    )
    replay: Replay | None = Field(default=None, description="a recorded trace instead of generated requests")

    @property
    def files(self) -> tuple[str, ...]:
        """The files it reads, as it names them."""
        if self.replay is not None:
            return (self.replay.path,)
        if isinstance(self.programs, Graphs):
            return (self.programs.file,)
        lengths = (self.prompt_tokens, self.output_tokens, *self._client_lengths)
        if isinstance(self.programs, ProgramPart):
            lengths += self.programs.lengths
        parts = [
            part for each in lengths for part in (each.components if isinstance(each, Mixture) else (each,))
        ]
        return tuple(part.file for part in parts if isinstance(part, Empirical))

    @model_validator(mode="after")
    def _replayed_or_generated(self) -> Workload:
        if self.replay is not None:
            given = [name for name in GENERATED if getattr(self, name) is not None]
            if isinstance(self.programs, Sessions):
                given.remove("programs")
            if given:
                raise ValueError(
                    f"replay takes its requests from its file; remove {', '.join(given)} "
                    "(replay.limit and replay.time_scale shorten and scale a trace)"
                )
            if isinstance(self.arrivals, ClientArrivals):
                raise ValueError("a replay has clients of its own; its arrivals can be any other process")
            return self
        if isinstance(self.programs, Sessions):
            raise ValueError("programs of kind sessions are those of a replay; give replay")
        needed = DRAWN if self.programs is None else ("arrivals", *self.programs.stated)
        missing = [name for name in needed if getattr(self, name) is None and not self._by_client(name)]
        if missing:
            raise ValueError(f"{', '.join(missing)} missing; give all of {', '.join(needed)}, or replay")
        unused = [name for name in needed if getattr(self, name) is not None and self._by_client(name)]
        if unused:
            raise ValueError(f"{', '.join(unused)} would not be used: every client has its own")
        if self.programs is not None:
            self._programs_agree(self.programs)
        self._bounded()
        return self

    @property
    def _client_lengths(self) -> tuple[Lengths | None, ...]:
        if not isinstance(self.arrivals, ClientArrivals):
            return ()
        return tuple(
            each for client in self.arrivals.clients for each in (client.prompt_tokens, client.output_tokens)
        )

    def _by_client(self, name: str) -> bool:
        """Whether every client has its own."""
        return (
            name != "arrivals"
            and isinstance(self.arrivals, ClientArrivals)
            and all(getattr(client, name) is not None for client in self.arrivals.clients)
        )

    def _programs_agree(self, programs: Any) -> None:
        """Programs state what is in their prompts; nothing else may."""
        foreign = [name for name in ("prefixes", "correlation") if getattr(self, name) is not None]
        foreign += [
            name for name in DRAWN[1:] if name not in programs.stated and getattr(self, name) is not None
        ]
        if foreign:
            raise ValueError(f"{', '.join(foreign)} cannot stand beside programs of kind {programs.kind}")
        if isinstance(self.arrivals, ClientArrivals):
            raise ValueError("programs arrive by any process but clients")

    @property
    def paced(self) -> bool:
        """Whether the clients of a closed loop send nothing before it is due."""
        return isinstance(self.arrivals, ClosedLoopArrivals) and self.arrivals.rate_rps is not None

    @model_validator(mode="after")
    def _paced_alone(self) -> Workload:
        if self.paced and self.programs is not None:
            raise ValueError("arrivals: rate_rps of a closed loop cannot stand beside programs")
        return self

    def _bounded(self) -> None:
        if self.num_requests is None and isinstance(self.arrivals, AllAtOnce | ClosedLoopArrivals):
            raise ValueError(f"num_requests is missing; {self.arrivals.process} arrivals need it")
        if self.num_requests is None and self.duration_s is None:
            raise ValueError("give num_requests, duration_s, or both")

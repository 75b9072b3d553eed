"""What a user writes under ``search:``: the points to try, what is good, and how to go about it."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

CONSTRAINT = re.compile(
    r"\s*(?P<path>[\w.-]+)\s*(?P<sign><=|>=)\s*(?P<bound>[-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*"
)
"""``ttft_s.p99 <= 0.5``."""


class SearchPart(BaseModel):
    """A part of the search: unknown keys refused, fields frozen, numbers finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Range(SearchPart):
    """All numbers between two, whole ones where both ends are and there is no other step."""

    low: int | float = Field(description="smallest value")
    high: int | float = Field(description="largest value")
    step: int | float | None = Field(
        default=None, gt=0, description="distance between two values, from low on; null = 1 for whole numbers"
    )
    log: bool = Field(default=False, description="draw evenly in the logarithm")

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs low above 0, got {self.low}")
        if self.log and self.step is not None:
            raise ValueError("log and step exclude each other")
        return self

    @property
    def whole(self) -> bool:
        """Whether its values are whole numbers."""
        return all(not isinstance(part, float) for part in (self.low, self.high, self.step))


Values = Annotated[
    Annotated[tuple[Any, ...], Field(min_length=1), Tag("list")] | Annotated[Range, Tag("range")],
    Discriminator(lambda value: "range" if isinstance(value, dict | Range) else "list"),
]


class Grid(SearchPart):
    """Every combination."""

    name: Literal["grid"]


class Random(SearchPart):
    """Combinations drawn evenly, none twice."""

    name: Literal["random"]
    num_points: int = Field(default=100, ge=1, le=1_000_000, description="how many are drawn")


class Nsga2(SearchPart):
    """NSGA-II (Deb et al. 2002) as optuna has it; the options have optuna's names."""

    name: Literal["nsga2"]
    num_points: int = Field(
        default=200, ge=1, le=1_000_000, description="different points that are simulated"
    )
    population_size: int = Field(default=24, ge=2, le=10_000, description="points of one generation")
    mutation_prob: float | None = Field(
        default=None, ge=0, le=1, description="of each parameter; null = 1 / number of parameters"
    )
    crossover_prob: float = Field(
        default=0.9, ge=0, le=1, description="of two parents, rather than a copy of one"
    )
    swapping_prob: float = Field(
        default=0.5, ge=0, le=1, description="of each parameter in crossover, to come from the other parent"
    )


class Halving(SearchPart):
    """Successive halving (Jamieson & Talwalkar 2016): short runs first, and longer ones for the best of them."""

    name: Literal["halving"]
    num_points: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="how many points are drawn to begin with; null = every one",
    )
    rungs: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        default=(1 / 16, 1 / 4, 1.0),
        min_length=1,
        description="share of the requests that each round simulates",
    )
    keep: float = Field(
        default=1 / 4, gt=0, lt=1, description="share of the points that a round lets through"
    )
    at_least: int = Field(
        default=8,
        ge=1,
        description="least number of points that a round lets through, if there are so many",
    )

    @field_validator("rungs")
    @classmethod
    def _up_to_all(cls, rungs: tuple[float, ...]) -> tuple[float, ...]:
        if any(later <= earlier for earlier, later in pairwise(rungs)) or rungs[-1] != 1:
            raise ValueError(f"rungs grow and end at 1, got {', '.join(f'{rung:g}' for rung in rungs)}")
        return rungs


class Advisor(SearchPart):
    """The Batching Configuration Advisor (Recasens et al. 2025, arXiv:2503.08311, section VI): the batch beyond which
    throughput does not pay for latency, and replicas in the memory that it leaves free."""

    name: Literal["advisor"]
    epsilon: float = Field(
        default=0.1, gt=0, lt=1, description="least T(B) / (B T(1)), T being total tokens/s at batch limit B"
    )
    latency_factor: float = Field(
        default=2.0, ge=1, le=1e6, description="largest mean ITL, as a multiple of that at batch limit 32"
    )


BATCH_LIMIT = "deployment.engine.max_num_seqs"
"""The one key that the advisor's space may have."""

_Method = Annotated[Grid | Random | Nsga2 | Halving | Advisor, Field(discriminator="name")]

Method = Annotated[
    _Method,
    BeforeValidator(
        lambda value: {"name": value} if isinstance(value, str) else value,
        json_schema_input_type=Literal["grid", "random", "nsga2", "halving", "advisor"] | _Method,
    ),
]


class Capacity(SearchPart):
    """For each point, the highest value of one key that still meets the SLO."""

    of: str = Field(min_length=1, description="dotted path of the key, e.g. workload.arrivals.rate_rps")
    relative_tolerance: float = Field(
        default=0.02,
        ge=1e-6,
        le=1,
        description="largest gap between a value that meets it and one that misses it",
    )
    low: int | float | None = Field(
        default=None,
        gt=0,
        description="smallest value tried; null = 1/1024 of the scenario's (1 where whole)",
    )
    high: int | float | None = Field(
        default=None, gt=0, description="largest value tried; null = 1,048,576 times the scenario's"
    )


class Search(SearchPart):
    """What to explore around the scenario; simulating it runs the scenario as it stands."""

    space: dict[str, Values] = Field(
        default={},
        description="dotted path of a key to the values it may take: a list, or {low, high, step, log} where points "
        "are drawn; at least one key, but for the advisor",
    )
    objectives: dict[str, Literal["min", "max"]] = Field(
        min_length=1, description="dotted path into summary.json to what is better"
    )
    constraints: tuple[str, ...] = Field(
        default=(), description='bounds on the summary: "ttft_s.p99 <= 0.5" or ">="'
    )
    slo: Literal["constraint", "ignored"] = Field(
        default="constraint",
        description="the scenario's own SLO, and those of its classes: slo.attainment is a constraint unless "
        "constraints bound it themselves; ignored = points may miss it",
    )
    finished_share: float = Field(
        default=0.99, ge=0, le=1,
        description="least share of arrived requests that finish, where no SLO is a constraint and constraints bound "
        "none of requests.*; rejected, failed and unfinished ones are the rest; 0 = any",
    )  # fmt: skip
    rejected_share: float = Field(
        default=0.01, ge=0, le=1,
        description="largest share of arrived requests that are rejected, where an SLO is a constraint and constraints "
        "bound none of requests.*: an SLO that lets some be missed is no leave to turn them away; 1 = as many as the "
        "SLO lets be missed",
    )  # fmt: skip
    capacity: Capacity | None = Field(
        default=None, description="null = as many requests as the scenario states"
    )
    method: Method = Field(
        default=Grid(name="grid"), description="how to explore; a bare name takes the defaults"
    )
    replications: int = Field(
        default=5,
        ge=1,
        le=1000,
        description="seeds of a point near the frontier: seed, seed + 1, ...; 1 = no intervals",
    )
    near: float = Field(
        default=0.02, ge=0, le=1,
        description="near: not dominated any more if it were better by this share in every objective",
    )  # fmt: skip
    margin: float = Field(
        default=0.01, ge=0, lt=1,
        description="differences up to this share of a figure do not count against a point that is surely better by "
        "more in another, and points that differ by no more in every objective are the same; 0 = any difference counts",
    )  # fmt: skip
    confidence: float = Field(
        default=0.95, gt=0.5, lt=1, description="of the intervals and of the paired test"
    )
    reference: dict[str, float] | None = Field(
        default=None,
        description="reference point of the hypervolume, by objective; null = a tenth of its range beyond the worst",
    )

    @field_validator("constraints")
    @classmethod
    def _bounds(cls, constraints: tuple[str, ...]) -> tuple[str, ...]:
        for text in constraints:
            if not CONSTRAINT.fullmatch(text):
                raise ValueError(f"expected a path, <= or >=, and a number, got {text!r}")
        return constraints

    @model_validator(mode="after")
    def _agrees(self) -> Search:
        if isinstance(self.method, Advisor):
            self._leaves_room_for_advice()
        elif not self.space:
            raise ValueError("space: nothing varies; name a key and the values it may take")
        ranges = [path for path, values in self.space.items() if isinstance(values, Range)]
        whole = isinstance(self.method, Grid | Advisor) or (
            isinstance(self.method, Halving) and self.method.num_points is None
        )
        if ranges and whole:
            raise ValueError(
                f"{self.method.name} tries every combination, and {ranges[0]} is a range: give a list of its values, "
                "or choose random, nsga2, or halving with num_points"
            )
        if self.reference is not None and set(self.reference) != set(self.objectives):
            raise ValueError(f"reference has one number for each objective: {', '.join(self.objectives)}")
        return self

    def _leaves_room_for_advice(self) -> None:
        """The advisor chooses replicas and KV blocks itself, and compares throughput at the scenario's own load."""
        others = [path for path in self.space if path != BATCH_LIMIT]
        if others:
            raise ValueError(f"the advisor varies {BATCH_LIMIT} alone, and space has {others[0]}")
        if self.capacity is not None:
            raise ValueError("the advisor compares throughput at the scenario's own load: leave out capacity")

"""The pieces of a search: what each trial simulates, and its outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

FINISHED, INFEASIBLE = "finished", "infeasible"


@dataclass(frozen=True, slots=True)
class Trial:
    """One point simulated under one seed; with a capacity, one search for its highest rate.

    Attributes:
        number: counts trials in the order in which they were asked for.
        point: number of the point.
        parameters: of the point, by dotted path.
        replication: added to the scenario's seed.
        share: of the requests; 1 but in the early rounds of halving.
    """

    number: int
    point: int
    parameters: Mapping[str, Any]
    replication: int = 0
    share: float = 1.0

    @property
    def full(self) -> bool:
        """Whether all requests are simulated."""
        return self.share == 1.0


@dataclass(frozen=True, slots=True)
class Attained:
    """The capacity of a point under one seed.

    Attributes:
        value: the highest value that met the SLO.
        missed: the lowest that did not; None when the highest that may be tried met it.
        simulations: values that were tried.
        short: whether the run is too short to show an overload, see :mod:`simslm.search.run_length`.
    """

    value: float
    missed: float | None
    simulations: int
    short: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came out of a trial.

    Attributes:
        status: finished, or infeasible: the point cannot be, or has no figure for an objective.
        reason: why it is infeasible.
        values: every figure of the summary that has a value, by path, with misses counted (a latency may be infinite),
            the shares of requests by what became of them, and with a capacity that; those that objectives and
            constraints are about are among them.
        capacity: where the search asks for it.
        sampled: by path, the interval that the requests of the run give, see :mod:`simslm.comparison.intervals`; of
            the second seed of a point alone.
        changes: keys of the scenario that were set beside the point's and the capacity's, by dotted path.
        requests: simulated, over all simulations of the trial.
        source, engine: where its costs come from; empty when it is infeasible.
    """

    status: Literal["finished", "infeasible"]
    reason: str = ""
    values: Mapping[str, float] = field(default_factory=dict)
    capacity: Attained | None = None
    sampled: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    changes: Mapping[str, Any] = field(default_factory=dict)
    requests: int = 0
    source: str = ""
    engine: str = ""

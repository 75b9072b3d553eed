"""Runs that are long enough to show an overload: what a capacity may be read from.

In a run that is short beside the time a request takes, all requests find a free slot before the first has finished,
and meet an SLO that they would miss in the long run. So no rate counts as served until the run has
:data:`TIMES_IN_FLIGHT` times as many requests as are in flight at once. Search and plan hold capacities to this alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from typing import Any

from simslm.errors import InfeasibleError
from simslm.scenario.schema import Scenario
from simslm.scenario.workload import Workload
from simslm.workload import RequestArrays

TIMES_IN_FLIGHT = 10
"""Requests of a run beside those in flight at once (rate x mean E2E, Little's law) from which it shows an overload."""

MOST_REQUESTS = 1_000_000
"""Most requests of one simulation."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One simulation.

    Attributes:
        summary: what came out.
        requests: how many were simulated.
        missed: the figures that differ once misses are counted, by path, see :mod:`simslm.metrics.misses`.
        sampled: see :class:`~simslm.search.trial.Outcome`.
    """

    summary: Mapping[str, Any]
    requests: int
    missed: Mapping[str, float] = field(default_factory=dict)
    sampled: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Lasted:
    """A run that is long enough, or misses the SLO anyway.

    Attributes:
        seen: the simulation.
        changes: of the workload, by dotted path: what made it that long.
        short: whether it is too short all the same, because its requests are recorded.
        requests: over all simulations that it took.
    """

    seen: Seen
    changes: Mapping[str, Any]
    short: bool
    requests: int


def simulate_long_enough(
    scenario: Scenario,
    run: Callable[[Mapping[str, Any]], Seen],
    wanted: float,
    rejected: float,
    lengthen: bool = True,
) -> Lasted:
    """Simulates, and again with more requests while the SLO seems to be met by too few.

    Args:
        scenario: that is simulated.
        run: simulates it with some keys changed.
        wanted: the attainment that is enough.
        rejected: largest share of the requests that may be rejected, see :func:`attained`.
        lengthen: False takes the run as it is.

    Raises:
        InfeasibleError: it takes too many requests to tell.
    """
    changes: Mapping[str, Any] = {}
    spent, first = 0, 0
    while True:
        seen = run(changes)
        spent += seen.requests
        held, enough = _held(seen.summary), needed(scenario, seen.summary)
        if attained(seen.summary, rejected) < wanted or held >= enough:
            return Lasted(seen, changes, False, spent)
        if recorded(scenario) or not lengthen:
            return Lasted(seen, changes, True, spent)
        # At least double: in a longer run requests stay longer, so the need grows with the run and small steps would
        # not end.
        more = max(enough, 2 * held)
        if more > MOST_REQUESTS:
            raise InfeasibleError(
                f"it takes a run of {more:,} requests to tell, more than the {MOST_REQUESTS:,} that are simulated"
            )
        # Shares are of the workload as it is stated, not of the last run.
        first = first or held
        changes = resized(scenario, more / first, list)


def attained(summary: Mapping[str, Any], rejected: float) -> float:
    """The SLO attainment of a run; 0 where too large a share of its requests is rejected: an attainment below 100 %
    allows late requests, not rejected ones."""
    counts = summary["requests"]
    return 0.0 if counts["rejected"] > rejected * counts["arrived"] else summary["slo"]["attainment"]


def needed(scenario: Scenario, summary: Mapping[str, Any]) -> int:
    """How many requests (or programs) a run needs to show an overload.

    The rate is the one that arrives; where clients wait for answers, the one that is served.
    """
    rate_rps = getattr(scenario.workload.arrivals, "rate_rps", None)
    if rate_rps is None or scenario.workload.classes is not None:
        rate_rps = summary["throughput"]["requests_per_s"]
        stay_s = summary["e2e_s"]["mean"]
    else:
        stay_s = _stay_s(summary)
    return ceil(TIMES_IN_FLIGHT * rate_rps * (stay_s or 0.0))


def _held(summary: Mapping[str, Any]) -> int:
    return (summary.get("programs") or summary["requests"])["arrived"]


def _stay_s(summary: Mapping[str, Any]) -> float | None:
    """Mean time in the system of what arrives: of programs where there are any, else of requests."""
    jct_s = summary["programs"]["jct_s"]["mean"] if "programs" in summary else None
    return summary["e2e_s"]["mean"] if jct_s is None else jct_s


def recorded(scenario: Scenario) -> bool:
    """Whether some requests are replayed: there are no more of them than were recorded."""
    parts = (scenario.workload, *(scenario.workload.classes or {}).values())
    return any(part.replay is not None for part in parts)


def resized(scenario: Scenario, share: float, requests: Callable[[], Any]) -> dict[str, Any]:
    """Overrides that make a workload shorter or longer: its requests times a share, or its time where it states no
    number.

    The requests of the shorter run are the first of the longer one; those of each class where there are classes.

    Args:
        scenario: whose workload it is.
        share: above 0; above 1 only where nothing is replayed.
        requests: makes the whole workload, for replays alone.
    """
    workload = scenario.workload
    found = _part("workload", workload, share, lambda: len(requests()))
    for number, (name, each) in enumerate((workload.classes or {}).items()):
        if not each.sharing:
            place = f"workload.classes.{name}"
            found |= _part(place, each, share, partial(_of_class, requests, number))
    return found


def _of_class(requests: Callable[[], RequestArrays], number: int) -> int:
    """How many requests a class has."""
    of = requests().class_of
    assert of is not None
    return int((of == number).sum())


def _part(place: str, workload: Workload, share: float, count: Callable[[], int]) -> dict[str, Any]:
    """The same for one workload: that of the scenario, or of a class, ``count`` requests in all."""
    if workload.replay is not None:
        return {f"{place}.replay.limit": max(1, round(share * count()))}
    if workload.num_requests is not None:
        return {f"{place}.num_requests": max(1, round(share * workload.num_requests))}
    if workload.duration_s is not None:
        return {f"{place}.duration_s": share * workload.duration_s}
    return {}

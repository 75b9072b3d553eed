"""The highest rate (or concurrency) that still meets the SLO, by bracketing and bisection.

Every value is simulated under the same seed, and arrivals at another rate are the same arrivals stretched (common
random numbers). Attainment need not fall evenly with the rate: what is found is a value that meets the SLO next to
one that misses it, within the tolerance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import Any

from simslm.errors import InfeasibleError, ScenarioError
from simslm.scenario.schema import Scenario
from simslm.scenario.search import Capacity
from simslm.search.trial import Attained

LOWEST, HIGHEST = 2.0**-10, 2.0**20
"""Factors on the scenario's value beyond which nothing is tried, where the search does not say."""


@dataclass(frozen=True, slots=True)
class CapacityRange:
    """The values among which a capacity is looked for.

    Attributes:
        start: the scenario's value.
        low, high: smallest and largest value tried.
        whole: whether values are whole numbers.
        tolerance: the relative gap that is close enough.
    """

    start: float
    low: float
    high: float
    whole: bool
    tolerance: float

    def middle(self, low: float, high: float) -> float:
        """Between two values, in the geometric mean."""
        middle = sqrt(low * high)
        return max(min(round(middle), high - 1), low + 1) if self.whole else middle

    def close(self, low: float, high: float) -> bool:
        """Whether there is nothing left to tell between two values."""
        return high - low <= self.tolerance * low or (self.whole and high - low <= 1)


def span(scenario: Scenario, capacity: Capacity) -> CapacityRange:
    """The span of values for a scenario's capacity.

    Raises:
        ScenarioError: the key is no number of the scenario, or there is no SLO to meet.
    """
    where = scenario.where("search", "capacity", "of")
    if scenario.slo is None:
        raise ScenarioError(
            "search.capacity needs an slo to meet", where=scenario.where("search", "capacity")
        )
    value = _at(scenario, capacity.of)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise ScenarioError(
            f"search.capacity.of: {capacity.of} is no number above 0 in this scenario",
            where=where,
            remedy="name a key that the scenario states, such as workload.arrivals.rate_rps",
        )
    whole = isinstance(value, int)
    low = capacity.low or (1 if whole else value * LOWEST)
    high = capacity.high or value * HIGHEST
    if not low < high:
        raise ScenarioError(
            f"search.capacity: low ({low:g}) must be below high ({high:g})",
            where=scenario.where("search", "capacity"),
        )
    if whole:
        low, high = int(low), int(high)
    return CapacityRange(min(max(value, low), high), low, high, whole, capacity.relative_tolerance)


def highest(span: CapacityRange, attainment: Callable[[float], float], wanted: float) -> Attained:
    """The highest value whose attainment is at least ``wanted``.

    Args:
        span: where to look.
        attainment: simulates a value; called once for each, in an order that depends on nothing else.
        wanted: the attainment that is enough.

    Raises:
        InfeasibleError: even the lowest value misses it, or even the highest is met by a run too short to overload.
    """
    simulations = 0

    def meets(value: float) -> bool:
        nonlocal simulations, last
        simulations += 1
        last = attainment(value)
        return last >= wanted

    last = 0.0
    met, missed = span.start, span.start
    if meets(span.start):
        while met < span.high:
            missed = min(met * 2, span.high)
            if not meets(missed):
                break
            met = missed
        else:
            return Attained(met, None, simulations)
    else:
        if span.start == span.low or not meets(span.low):
            at = f"its attainment is {last:.4g}, wanted {wanted:g}"
            if not last:
                at = "no request keeps it, or more are rejected than search.rejected_share allows"
            raise InfeasibleError(f"no value from {span.low:.3g} on meets the SLO: at {span.low:.3g} {at}")
        met = missed
        while met > span.low:
            # The lowest value has been tried already, and met: reaching it ends the descent without another
            # simulation.
            met = max(met // 2 if span.whole else met / 2, span.low)
            if met == span.low or meets(met):
                break
            missed = met
    while not span.close(met, missed):
        middle = span.middle(met, missed)
        if meets(middle):
            met = middle
        else:
            missed = middle
    return Attained(met, missed, simulations)


def _at(scenario: Scenario, dotted: str) -> Any:
    """The value at a path of a scenario; None where there is none."""
    node: Any = scenario.model_dump()
    for key in dotted.split("."):
        if isinstance(node, list | tuple) and key.isdigit() and int(key) < len(node):
            node = node[int(key)]
        else:
            node = node.get(key) if isinstance(node, dict) else None
    return node

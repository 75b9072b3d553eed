"""What a search is after: figures of ``summary.json`` to be small or large, and bounds that others must keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simslm.errors import ScenarioError, nearest
from simslm.metrics.definitions import figures_of
from simslm.scenario.schema import Scenario
from simslm.scenario.search import CONSTRAINT, Advisor, Search

CAPACITY = "capacity.value"
"""The highest value that meets the SLO, beside the figures of the summary where the search asks for it."""

ADVISED = (
    "throughput.total_tokens_per_s",
    "itl_s.mean",
    "tpot_s.mean",
    "kv.peak_utilization",
    "kv.num_gpu_blocks",
)
"""What the advisor looks at, whatever the objectives."""


@dataclass(frozen=True, slots=True)
class Objective:
    """One figure and what is better; ``gain`` turns it into a number of which more is better."""

    path: str
    direction: str

    def gain(self, value: float) -> float:
        return value if self.direction == "max" else -value


@dataclass(frozen=True, slots=True)
class Constraint:
    """A bound on one figure.

    Attributes:
        text: as it was written.
        path, sign, bound: what it says.
    """

    text: str
    path: str
    sign: str
    bound: float

    def excess(self, value: float) -> float:
        """By how much a value is beyond the bound, as a share of the bound (of 1 where that is 0); 0 inside."""
        beyond = value - self.bound if self.sign == "<=" else self.bound - value
        return max(beyond, 0.0) / (abs(self.bound) or 1.0)


@dataclass(frozen=True, slots=True)
class Goals:
    """What is better, and what must hold.

    Attributes:
        objectives: at least one.
        constraints: perhaps none.
        beside: paths of further figures that the method needs.
    """

    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    beside: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """Every figure that is looked at, once."""
        wanted = (each.path for each in (*self.objectives, *self.constraints))
        return tuple(dict.fromkeys((*wanted, *self.beside)))

    def gains(self, values: Mapping[str, float]) -> tuple[float, ...]:
        """One number per objective, of which more is better."""
        return tuple(objective.gain(values[objective.path]) for objective in self.objectives)

    def excesses(self, values: Mapping[str, float]) -> dict[str, float]:
        """By constraint, its excess where it is broken."""
        found = {each.text: each.excess(values[each.path]) for each in self.constraints}
        return {text: excess for text, excess in found.items() if excess > 0}

    def violation(self, values: Mapping[str, float]) -> float:
        """The sum of all excesses, 0 for a point that may be chosen."""
        return sum(self.excesses(values).values())


def goals(scenario: Scenario, search: Search) -> Goals:
    """The objectives and constraints of a search.

    Raises:
        ScenarioError: one names a figure that a summary does not have, all such at once.
    """
    workload = scenario.workload
    figures = figures_of(workload.classes or (), workload.has_programs)
    known = (*figures, CAPACITY) if search.capacity is not None else figures
    problems = [
        _unknown(scenario, path, ("search", "objectives", path), known)
        for path in search.objectives
        if path not in known
    ]
    constraints = []
    for i, text in enumerate(search.constraints):
        match = CONSTRAINT.fullmatch(text)
        assert match is not None  # the model has made sure of it
        path = match["path"]
        if path not in known:
            problems.append(_unknown(scenario, path, ("search", "constraints", i), known))
        constraints.append(Constraint(text, path, match["sign"], float(match["bound"])))
    if problems:
        raise ScenarioError(problems[0], problems=problems)
    return Goals(
        tuple(Objective(path, direction) for path, direction in search.objectives.items()),
        tuple(constraints),
        ADVISED if isinstance(search.method, Advisor) else (),
    )


def _unknown(scenario: Scenario, path: str, keys: tuple[Any, ...], known: tuple[str, ...]) -> str:
    where = scenario.where(*keys)
    hint = nearest(path, known)
    if path == CAPACITY:
        hint = " without search.capacity"
    place = f"{where}: " if where else ""
    return f"{place}{'.'.join(map(str, keys[:2]))}: no figure {path!r} in summary.json{hint}"


def figure(summary: Mapping[str, Any], path: str) -> float | None:
    """The number at a dotted path of a summary; None where it has none."""
    value: Any = summary
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return None if value is None else float(value)

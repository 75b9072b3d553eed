"""The goals of a search: figures of ``summary.json`` to be small or large, and bounds that others must keep.

In all of them a request that did not finish is a miss with infinite latency, see :mod:`simslm.metrics.misses`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf, isinf
from typing import Any

from simslm.errors import ScenarioError, nearest
from simslm.metrics.figure_paths import figures_of
from simslm.scenario.control import is_controlled
from simslm.scenario.schema import Scenario
from simslm.scenario.search import CONSTRAINT, Advisor, Search
from simslm.scenario.slo import Slo

CAPACITY = "capacity.value"
"""The highest value that meets the SLO, beside the figures of the summary where the search asks for it."""

FINISHED_SHARE, REJECTED_SHARE = "requests.finished_share", "requests.rejected_share"
LOST = ("rejected", "failed", "unfinished")
SHARES = (FINISHED_SHARE, *(f"requests.{status}_share" for status in LOST))
"""Shares of the arrived requests by what became of them, beside the figures of the summary."""

REJECTED_DEFAULT = Search.model_fields["rejected_share"].default

ADVISED = (
    "throughput.total_tokens_per_s",
    "itl_s.mean",
    "tpot_s.mean",
    "kv.peak_utilization",
    "kv.num_gpu_blocks",
)
"""Figures that the advisor needs beside the objectives."""

DECIDING = (CAPACITY, "slo.goodput_rps", "slo.goodput_output_tokens_per_s")
RATES = "throughput."
"""Objectives that decide which point is best, where one of them is to be large."""


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
        origin: ``stated`` by the search, or where it comes from: ``slo``, or ``default``.
    """

    text: str
    path: str
    sign: str
    bound: float
    origin: str = "stated"

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

    @property
    def deciding(self) -> Objective:
        """The objective that the best point is best in: the first that is a capacity, a goodput or a throughput to be
        large, in this order; else the first of all."""
        large = [each for each in self.objectives if each.direction == "max"]
        for path in DECIDING:
            if found := [each for each in large if each.path == path]:
                return found[0]
        return next((each for each in large if RATES in each.path), self.objectives[0])

    def gains(self, values: Mapping[str, float]) -> tuple[float, ...]:
        """One number per objective, of which more is better."""
        return tuple(objective.gain(values[objective.path]) for objective in self.objectives)

    def excesses(self, values: Mapping[str, float]) -> dict[str, float]:
        """By constraint, its excess where it is broken."""
        found = {each.text: each.excess(values[each.path]) for each in self.constraints}
        return {text: excess for text, excess in found.items() if excess > 0}

    def violation(self, values: Mapping[str, float]) -> float:
        """The sum of all excesses, 0 for a point that may be chosen; infinite where a latency that is bounded is."""
        return sum(self.excesses(values).values())

    def distance(self, values: Mapping[str, float]) -> tuple[int, float, float]:
        """What orders points that break constraints, the nearest first: how many excesses are infinite, the sum of the
        others, and the share of requests that did not finish."""
        excesses = list(self.excesses(values).values())
        finite = [each for each in excesses if not isinf(each)]
        return len(excesses) - len(finite), sum(finite), 1 - values.get(FINISHED_SHARE, 1.0)


def goals(scenario: Scenario, search: Search) -> Goals:
    """The objectives and constraints of a search.

    Raises:
        ScenarioError: one names a figure that a summary does not have, all such at once.
    """
    workload = scenario.workload
    classes = tuple(workload.classes or ())
    of_class = (f"classes.{name}.{path}" for name in classes for path in SHARES)
    asked = scenario.deployment
    sections = {
        "gateway": asked.gateway is not None,
        "group_routing": asked.group_router is not None,
        "fleet": is_controlled(asked),
        "clocks": asked.power is not None,
    }
    figures = (*figures_of(classes, workload.has_programs, **sections), *SHARES, *of_class)
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
        (*constraints, *_implied(scenario, search, {each.path for each in constraints})),
        ADVISED if isinstance(search.method, Advisor) else (),
    )


def _implied(scenario: Scenario, search: Search, stated: set[str]) -> Iterator[Constraint]:
    """The constraints that hold unless the search states others: the SLO; without one, that requests are served."""
    for prefix, slo in _slos(scenario):
        attainment, share = f"{prefix}slo.attainment", f"{prefix}{FINISHED_SHARE}"
        if slo is not None and search.slo == "constraint":
            if attainment not in stated:
                yield _at_least(attainment, slo.attainment, "slo")
            continue
        bounded = any(path == attainment or path.startswith(f"{prefix}requests.") for path in stated)
        if search.finished_share and not bounded:
            yield _at_least(share, search.finished_share, "default")
    attained = [slo for _, slo in _slos(scenario) if slo is not None and search.slo == "constraint"]
    if attained and search.rejected_share < 1 and not any("requests." in path for path in stated):
        text = f"{REJECTED_SHARE} <= {search.rejected_share:.12g}"
        yield Constraint(text, REJECTED_SHARE, "<=", search.rejected_share, "default")


def allowed_rejections(scenario: Scenario) -> float:
    """The largest share of requests that may be rejected at a capacity: as the search says, else its default."""
    search = scenario.search
    if search is None:
        return REJECTED_DEFAULT
    stated = (match["path"] for match in map(CONSTRAINT.fullmatch, search.constraints) if match is not None)
    return (
        1.0
        if search.slo == "ignored" or any("requests." in path for path in stated)
        else search.rejected_share
    )


def _at_least(path: str, bound: float, origin: str) -> Constraint:
    return Constraint(f"{path} >= {bound:.12g}", path, ">=", bound, origin)


def _slos(scenario: Scenario) -> Iterator[tuple[str, Slo | None]]:
    """The SLO of a scenario, or of each of its classes, with what its paths in a summary begin with."""
    classes = scenario.workload.classes
    if classes is None:
        yield "", scenario.slo
        return
    for name, each in classes.items():
        yield f"classes.{name}.", each.slo or scenario.slo


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


def shares(summary: Mapping[str, Any]) -> dict[str, float]:
    """What became of the arrived requests, and of those of each class, by :data:`SHARES`."""
    found = _shares("", summary["requests"])
    for name, each in summary.get("classes", {}).items():
        found |= _shares(f"classes.{name}.", each["requests"])
    return found


def _shares(prefix: str, counts: Mapping[str, int]) -> dict[str, float]:
    arrived = counts["arrived"] or 1
    lost = {f"{prefix}requests.{status}_share": counts[status] / arrived for status in LOST}
    return {f"{prefix}{FINISHED_SHARE}": counts["finished"] / arrived, **lost}


def finite(value: float) -> float | None:
    """A figure for a JSON file: null where it is infinite, because requests were missed."""
    return None if isinf(value) else value


def from_file(value: float | None) -> float:
    """The figure that :func:`finite` wrote."""
    return inf if value is None else value

"""The points of a search: which keys of the scenario vary, and over what.

Every value is tried on the scenario by itself before anything is simulated: a key that does not exist, or a value
that it cannot take, is a fault of the scenario with its line, not a point that happens to be infeasible.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import exp, floor, log, prod
from typing import Any

import numpy as np

from simslm.errors import ScenarioError, SimslmError
from simslm.scenario.load import load_scenario
from simslm.scenario.schema import Scenario
from simslm.scenario.search import Range, Search

Parameters = Mapping[str, Any]

MOST_POINTS = 1_000_000
"""Combinations of a grid from which it is taken for a mistake."""


@dataclass(frozen=True, slots=True)
class Space:
    """What varies.

    Attributes:
        axes: by dotted path, the values of a key; sections before the keys inside them, so that a point can be
            written into a scenario in this order.
    """

    axes: dict[str, tuple[Any, ...] | Range]

    def __len__(self) -> int:
        """How many points there are, ranges left out."""
        return prod(len(axis) for axis in self.axes.values() if isinstance(axis, tuple))

    @property
    def finite(self) -> bool:
        """Whether all points can be listed."""
        return all(isinstance(axis, tuple) for axis in self.axes.values())

    def grid(self) -> Iterator[Parameters]:
        """Every point, the last key varying fastest."""
        lists = [axis if isinstance(axis, tuple) else () for axis in self.axes.values()]
        for values in product(*lists):
            yield dict(zip(self.axes, values, strict=True))

    def drawn(self, rng: np.random.Generator, count: int) -> list[Parameters]:
        """Different points, each combination as likely as any other; fewer where there are not so many."""
        if self.finite and count >= len(self):
            return list(self.grid())
        if self.finite and len(self) <= MOST_POINTS:
            chosen = rng.choice(len(self), size=count, replace=False)
            return [self._at(int(index)) for index in chosen]
        found: dict[str, Parameters] = {}
        for _ in range(100 * count):  # ranges of whole numbers may hold fewer than are asked for
            point = {path: _draw(axis, rng) for path, axis in self.axes.items()}
            found.setdefault(identity(point), point)
            if len(found) == count:
                break
        return list(found.values())

    def _at(self, index: int) -> Parameters:
        """A point of the grid by its number."""
        values = {}
        for path, axis in reversed(self.axes.items()):
            assert isinstance(axis, tuple)
            index, at = divmod(index, len(axis))
            values[path] = axis[at]
        return {path: values[path] for path in self.axes}


def identity(parameters: Parameters) -> str:
    """A text that is the same for equal points."""
    return json.dumps(parameters)


def _draw(axis: tuple[Any, ...] | Range, rng: np.random.Generator) -> Any:
    """One value; of a range, every step (or every number) with the same chance."""
    if isinstance(axis, tuple):
        return axis[int(rng.integers(len(axis)))]
    step = axis.step or (1 if axis.whole else None)
    if axis.log:
        ends = (axis.low - 0.5, axis.high + 0.5) if axis.whole else (axis.low, axis.high)
        value = exp(rng.uniform(log(ends[0]), log(ends[1])))
        return min(max(round(value), axis.low), axis.high) if axis.whole else value
    if step is None:
        return float(rng.uniform(axis.low, axis.high))
    return axis.low + step * int(rng.integers(floor((axis.high - axis.low) / step) + 1))


def space(scenario: Scenario, search: Search) -> Space:
    """The space of a search, each of its values tried.

    Raises:
        ScenarioError: a key does not exist or cannot take a value; all such at once.
    """
    order = sorted(search.space, key=lambda path: path.count("."))
    axes = {path: _unique(search.space[path]) for path in order}
    found = Space(axes)
    if found.finite and len(found) > MOST_POINTS and search.method.name in ("grid", "halving"):
        raise ScenarioError(
            f"search.space has {len(found):,} points; at most {MOST_POINTS:,} can be listed",
            where=scenario.where("search", "space"),
            remedy="shorten the lists, or choose random or nsga2",
        )
    problems = list(
        dict.fromkeys(fault for path, axis in axes.items() for fault in _faults(scenario, axes, path, axis))
    )
    if problems:
        raise ScenarioError(problems[0], problems=problems)
    return found


def _unique(axis: tuple[Any, ...] | Range) -> tuple[Any, ...] | Range:
    """The values, each once."""
    if isinstance(axis, Range):
        return axis
    return tuple({json.dumps(value): value for value in axis}.values())


def _faults(
    scenario: Scenario, axes: Mapping[str, Any], path: str, axis: tuple[Any, ...] | Range
) -> Iterator[str]:
    """What is wrong with the values of one key alone, for any values of the others.

    A rule between keys may hold for some combinations, so only a complaint about the key itself (or something in
    it) counts; a key inside a section that varies too is judged point by point.
    """
    if path.split(".")[0] == "search":
        yield _line(scenario, path, 0, "a search cannot vary itself")
        return
    if any(path.startswith(f"{other}.") for other in axes):
        return
    values = axis if isinstance(axis, tuple) else (axis.low, axis.high)
    for i, value in enumerate(values):
        try:
            load_scenario(plain(scenario), {path: value})
        except ScenarioError as error:
            yield from (
                _line(scenario, path, i, message)
                for problem in error.problems
                if (message := _about(path, problem)) is not None
            )


def _line(scenario: Scenario, path: str, number: int, message: str) -> str:
    where = scenario.where("search", "space", path, number)
    return f"{f'{where}: ' if where else ''}search.space: {message}"


def _about(path: str, problem: str) -> str | None:
    """The part of a complaint after its place, if it is about a key or something in it."""
    place, _, message = problem.partition(": ")
    if message.startswith((f"{path}: ", f"{path}.")):
        return message
    return f"{path}: {message}" if place.startswith("--set ") else None


def plain(scenario: Scenario) -> dict[str, Any]:
    """What the user stated, without the search, in the form in which :func:`load_scenario` takes it back."""
    stated = scenario.model_dump(mode="json", exclude_unset=True, exclude={"search"})
    return {"scenario": stated, "base_dir": str(scenario.base_dir.resolve())}


def overridden(stated: Mapping[str, Any], parameters: Parameters, more: Parameters | None = None) -> Scenario:
    """The scenario of a point.

    Args:
        stated: from :func:`plain`.
        parameters: the point's.
        more: what else is set, after them.

    Raises:
        ScenarioError: the values do not go together.
    """
    return load_scenario(stated, {**parameters, **(more or {})})


def infeasible_reason(error: SimslmError) -> str:
    """Why a point cannot be, without the places of a scenario that only existed for it."""
    problems = error.problems if isinstance(error, ScenarioError) else (str(error),)
    return "; ".join(_without_place(problem) for problem in problems)


def _without_place(problem: str) -> str:
    place, colon, message = problem.partition(": ")
    return message if colon and (place == "scenario" or place.startswith("--set")) else problem

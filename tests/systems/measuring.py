"""The figures of a claim: every side simulated under several seeds, and the ratio of the two with its interval."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from math import exp, log
from multiprocessing import get_context
from typing import Any

from systems.claim import Claim, Compared

from simslm.api import Found, observed, prepare
from simslm.comparison.student import interval
from simslm.errors import SimslmError
from simslm.scenario.load import load_scenario
from simslm.scenario.schema import Scenario
from simslm.scenario.search import CONSTRAINT, Capacity
from simslm.search.capacity import highest, span
from simslm.search.objectives import Constraint, figure

CONFIDENCE = 0.95
TOLERANCE = 0.02
"""Relative gap between the highest load that is met and the lowest that is missed."""


@dataclass(frozen=True)
class Measured:
    """One figure on both sides, seed by seed.

    Attributes:
        compared: the figure.
        system, baseline: its values, one for each seed, in the same order.
    """

    compared: Compared
    system: tuple[float, ...]
    baseline: tuple[float, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """By seed, how many times better the system is."""
        pairs = zip(self.system, self.baseline, strict=True)
        return tuple(
            ours / theirs if self.compared.better == "high" else theirs / ours for ours, theirs in pairs
        )

    @property
    def ratio(self) -> float:
        """The geometric mean of the ratios."""
        return exp(sum(map(log, self.ratios)) / len(self.ratios))

    @property
    def bounds(self) -> tuple[float, float]:
        """The t interval of the ratio, over the seeds; requests are the same on both sides (common random numbers)."""
        found = interval([log(ratio) for ratio in self.ratios], CONFIDENCE)
        assert found is not None  # a claim has two seeds at least
        return exp(found[0]), exp(found[1])

    @property
    def holds(self) -> bool | None:
        """Whether the ratio is what it has to be; None where nothing is asked of it."""
        least = self.compared.at_least
        return None if least is None else self.ratio >= least


_Answer = Mapping[str, Any] | float
"""A summary, or a capacity."""


@dataclass(frozen=True)
class _Task:
    """One side of one figure under one seed, as plain text: the same in every process, and equal where it is the same.

    Attributes:
        path: of the scenario.
        overrides: JSON of what is set in it.
        capacity: JSON of the compared capacity and its bounds, empty for figures of a summary.
    """

    path: str
    overrides: str
    capacity: str


def measured(claims: Sequence[Claim], jobs: int) -> list[list[Measured]]:
    """Simulates both sides of every figure of the claims; what several figures share is simulated once.

    Raises:
        SimslmError: a scenario is wrong, or a capacity cannot be told; the message names the scenario.
    """
    asked = [
        [
            (compared, [_sides(claim, compared, seed) for seed in range(claim.seeds)])
            for compared in claim.figures
        ]
        for claim in claims
    ]
    tasks = list(
        dict.fromkeys(task for figures in asked for _, pairs in figures for pair in pairs for task in pair)
    )
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        answers = dict(zip(tasks, pool.map(_answer, tasks), strict=True))
    return [
        [
            _measured(compared, [(answers[ours], answers[theirs]) for ours, theirs in pairs])
            for compared, pairs in figures
        ]
        for figures in asked
    ]


def _measured(compared: Compared, answers: Sequence[tuple[_Answer, _Answer]]) -> Measured:
    """A figure from what came out on both sides under each seed."""
    system, baseline = zip(*answers, strict=True)
    return Measured(
        compared,
        tuple(_value(answer, compared) for answer in system),
        tuple(_value(answer, compared) for answer in baseline),
    )


def _sides(claim: Claim, compared: Compared, seed: int) -> tuple[_Task, _Task]:
    assert claim.baseline is not None
    stated = load_scenario(claim.path).seed
    capacity = "" if compared.capacity is None else json.dumps([compared.capacity, *compared.within])
    system = {**compared.set, "seed": stated + seed}
    return tuple(  # type: ignore[return-value]
        _Task(str(claim.path), json.dumps(overrides, sort_keys=True), capacity)
        for overrides in (system, {**claim.baseline.set, **system})
    )


def _value(answer: _Answer, compared: Compared) -> float:
    if isinstance(answer, float):
        return answer
    value = figure(answer, compared.of or "")
    if value is None or value <= 0:
        raise SimslmError(f"{compared.of} is {value}: there is no ratio to form of it")
    return value


def _answer(task: _Task) -> _Answer:
    """The summary of a run, or the highest value of a key that is met."""
    scenario = load_scenario(task.path, json.loads(task.overrides))
    try:
        if not task.capacity:
            return observed(prepare(scenario)).summary
        key, *within = json.loads(task.capacity)
        return _highest(scenario, task, key, within)
    except SimslmError as error:
        raise SimslmError(str(error), where=f"{task.path} {task.overrides}") from None


def _highest(scenario: Scenario, task: _Task, key: str, within: Iterable[str]) -> float:
    """The highest value at which all bounds hold, or, without any, at which enough requests meet the SLO."""
    slo = scenario.slo
    where = span(scenario, Capacity(of=key, relative_tolerance=TOLERANCE))
    assert slo is not None  # span() has made sure of it
    bounds, found = [_bound(text) for text in within], Found()

    def attainment(value: float) -> float:
        at_value = load_scenario(task.path, {**json.loads(task.overrides), key: value})
        summary = observed(prepare(at_value, found)).summary
        if not bounds:
            return summary["slo"]["attainment"]
        return float(all(_within(summary, bound) for bound in bounds))

    attained = highest(where, attainment, 1.0 if bounds else slo.attainment)
    if attained.missed is None:
        raise SimslmError(f"{key} {attained.value:g} is still met: the run is too short to overload")
    return float(attained.value)


def _bound(text: str) -> Constraint:
    match = CONSTRAINT.fullmatch(text)
    assert match is not None  # the claim has made sure of it
    return Constraint(text, match["path"], match["sign"], float(match["bound"]))


def _within(summary: Mapping[str, Any], bound: Constraint) -> bool:
    value = figure(summary, bound.path)
    if value is None:
        raise SimslmError(f"{bound.path} has no value")
    return bound.excess(value) == 0

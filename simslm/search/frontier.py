"""From the outcomes of trials to the points nobody should do without: a pure function, whatever order they came in.

A point is its figures under one seed or, near the frontier, under several. It is on the frontier when it keeps all
constraints in the mean and no other point dominates it: of points under several seeds, beyond what the seeds leave
open (:mod:`simslm.search.intervals`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from simslm.search.intervals import surely_dominates
from simslm.search.objectives import Goals
from simslm.search.pareto import Gains, growth, hypervolume, non_dominated
from simslm.search.space import Parameters
from simslm.search.trial import FINISHED, Outcome, Trial


@dataclass(frozen=True, slots=True)
class Point:
    """What is known of one point.

    Attributes:
        number: of the point.
        parameters: its own.
        trial: number of its first trial with all requests.
        outcomes: under seed, seed + 1, ..., all finished; empty when the point cannot be.
        reason: why it cannot be.
    """

    number: int
    parameters: Parameters
    trial: int
    outcomes: tuple[Outcome, ...]
    reason: str = ""

    def mean(self, path: str) -> float:
        """A figure, over the seeds."""
        return sum(outcome.values[path] for outcome in self.outcomes) / len(self.outcomes)

    def means(self, goals: Goals) -> dict[str, float]:
        return {path: self.mean(path) for path in goals.paths}


def points(done: Iterable[tuple[Trial, Outcome]]) -> list[Point]:
    """The points that were simulated with all requests under the scenario's seed, by number."""
    by_point: dict[int, dict[int, tuple[Trial, Outcome]]] = {}
    for trial, outcome in done:
        if trial.full:
            by_point.setdefault(trial.point, {})[trial.replication] = (trial, outcome)
    found = []
    for number in sorted(by_point):
        seeds = by_point[number]
        if 0 not in seeds:
            continue
        first = seeds[0][0]
        outcomes = []
        while len(outcomes) in seeds:
            outcomes.append(seeds[len(outcomes)][1])
        bad = next((i for i, outcome in enumerate(outcomes) if outcome.status != FINISHED), None)
        if bad is None:
            found.append(Point(number, first.parameters, first.number, tuple(outcomes)))
        else:
            under = f" (under seed + {bad})" if bad else ""
            found.append(Point(number, first.parameters, first.number, (), outcomes[bad].reason + under))
    return found


def inside(found: Sequence[Point], goals: Goals) -> list[Point]:
    """The points that can be and keep all constraints."""
    return [point for point in found if point.outcomes and goals.violation(point.means(goals)) == 0]


def near(found: Sequence[Point], goals: Goals, margin: float) -> list[Point]:
    """The points that would not be dominated if they were better by ``margin``, relatively, in every objective.

    All are compared under the scenario's own seed, which is the one that all of them have.
    """
    gains = np.array([goals.gains(point.outcomes[0].values) for point in found])
    if not len(gains):
        return []
    front = gains[non_dominated([tuple(row) for row in gains.tolist()])]
    better = gains + margin * np.abs(gains)
    covered = [bool(np.any(np.all(front >= row, axis=1) & np.any(front > row, axis=1))) for row in better]
    return [point for point, away in zip(found, covered, strict=True) if not away]


def frontier(found: Sequence[Point], goals: Goals, confidence: float) -> list[Point]:
    """The points that no other dominates, each pair compared under the seeds that both have."""
    gains = {point.number: [goals.gains(outcome.values) for outcome in point.outcomes] for point in found}

    def dominated(point: Point) -> bool:
        mine = gains[point.number]
        for other in found:
            theirs = gains[other.number]
            count = min(len(mine), len(theirs))
            if surely_dominates(theirs[:count], mine[:count], confidence):
                return True
        return False

    return [point for point in found if not dominated(point)]


@dataclass(frozen=True, slots=True)
class Volume:
    """What the points dominate, all under the scenario's own seed.

    Attributes:
        reference: by objective.
        stated: whether the search states it; else it follows from the points, see :func:`beyond_the_worst`.
        total: of all points.
        growth: after each point in the order of their trials: the trial's number, and the volume so far.
    """

    reference: Mapping[str, float]
    stated: bool
    total: float
    growth: tuple[tuple[int, float], ...]


def volume(found: Sequence[Point], goals: Goals, reference: Mapping[str, float] | None) -> Volume | None:
    """The hypervolume of the means of the points; None without any."""
    if not found:
        return None
    ordered = sorted(found, key=lambda point: point.trial)
    gains = [goals.gains(point.outcomes[0].values) for point in ordered]
    chosen = beyond_the_worst(gains, goals) if reference is None else reference
    least: Gains = goals.gains(chosen)
    grown = growth(gains, least)
    trials = tuple((point.trial, size) for point, size in zip(ordered, grown, strict=True))
    return Volume(chosen, reference is not None, hypervolume(gains, least), trials)


def beyond_the_worst(gains: Sequence[Gains], goals: Goals) -> dict[str, float]:
    """A reference point by objective: a tenth of the range of its values beyond the worst of them, so that the ends
    of the frontier count too (of one value alone, a tenth of its size)."""
    found = {}
    for objective, column in zip(goals.objectives, zip(*gains, strict=True), strict=True):
        worst, best = min(column), max(column)
        size = best - worst or abs(worst) or 1.0
        found[objective.path] = objective.gain(worst - size / 10)  # a gain's gain is the value
    return found

"""From the outcomes of trials to the points that are worth choosing: a pure function that does not depend on their
order.

A point is its figures under one seed or, near the frontier, under several. It is on the frontier when it keeps all
constraints in the mean, no other beats it (:mod:`simslm.search.intervals`), and none that is as good stands for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite

import numpy as np

from simslm.metrics.figure_paths import metric_of
from simslm.scenario.search import Search
from simslm.search.intervals import merged, relations, standing
from simslm.search.objectives import SHARES, Goals
from simslm.search.pareto import Gains, growth, hypervolume, non_dominated
from simslm.search.space import Parameters
from simslm.search.trial import FINISHED, Outcome, Trial


@dataclass(frozen=True, slots=True)
class Point:
    """A point and the outcomes of its trials.

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

    @property
    def seedless(self) -> bool:
        """Whether seeds change nothing: under a second one every figure is the same to the last bit."""
        first, *more = self.outcomes
        return bool(more) and all(each.values == first.values for each in more)

    def mean(self, path: str) -> float:
        """A figure, over the seeds."""
        return sum(outcome.values[path] for outcome in self.outcomes) / len(self.outcomes)

    @property
    def shares(self) -> dict[str, float]:
        """What became of its requests, over the seeds, by :data:`~simslm.search.objectives.SHARES`."""
        return {path: self.mean(path) for path in SHARES}

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
    better = gains + margin * np.where(np.isfinite(gains), np.abs(gains), 0.0)
    covered = [bool(np.any(np.all(front >= row, axis=1) & np.any(front > row, axis=1))) for row in better]
    return [point for point, away in zip(found, covered, strict=True) if not away]


def nearness(asked: Search) -> float:
    """The margin within which a point is near the frontier: at least that within which points count as the same."""
    return max(asked.near if asked.replications > 1 else 0.0, asked.margin)


@dataclass(frozen=True, slots=True)
class Choice:
    """A point of the frontier.

    Attributes:
        point: itself.
        same: points that differ from it by no more than the margin in every objective, by number.
        equal: those of them that do not differ at all.
    """

    point: Point
    same: tuple[Point, ...] = ()
    equal: frozenset[int] = frozenset()


def frontier(found: Sequence[Point], goals: Goals, confidence: float, margin: float) -> list[Choice]:
    """The points that no other beats, one for those that are the same, the best in the deciding objective first.

    Each that is left out is beaten by one of them or by one that is the same as one of them, or is the same itself.

    Args:
        found: points that keep all constraints.
        goals: what is better.
        confidence: of the paired test.
        margin: see :func:`simslm.search.intervals.relations`.
    """
    gains = [[goals.gains(outcome.values) for outcome in point.outcomes] for point in found]
    compared = relations(gains, confidence, margin)
    order = ranks(found, goals)
    upright = standing(compared.beats, order)
    alike = compared.alike[np.ix_(upright, upright)]
    kept = [upright[i] for i in merged(alike, [order[i] for i in upright])]
    kept.sort(key=lambda each: order[each])
    same: dict[int, list[int]] = {i: [] for i in kept}
    for j in range(len(found)):
        first = next((i for i in kept if compared.alike[i, j]), None)
        if first is not None and j not in same:
            same[first].append(j)
    return [
        Choice(
            found[i],
            tuple(found[j] for j in others),
            frozenset(found[j].number for j in others if gains[j] == gains[i]),
        )
        for i, others in same.items()
    ]


def ranks(found: Sequence[Point], goals: Goals) -> list[int]:
    """The rank of each point from 0: those first of which every objective is finite, by the mean of the deciding
    objective, then of the others, then by number."""
    first = goals.deciding
    objectives = [first, *(each for each in goals.objectives if each is not first)]

    def worse(i: int) -> tuple[float, ...]:
        point = found[i]
        gains = [each.gain(point.mean(each.path)) for each in objectives]
        return (not all(map(isfinite, gains)), *(-gain for gain in gains), point.number)

    order = sorted(range(len(found)), key=worse)
    rank = [0] * len(found)
    for place, i in enumerate(order):
        rank[i] = place
    return rank


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
    """A reference point by objective: a tenth of the range of its finite values beyond the worst of them, so that the
    ends of the frontier count too (of one value alone, a tenth of its size), as far as the figure can be that."""
    found = {}
    for objective, column in zip(goals.objectives, zip(*gains, strict=True), strict=True):
        known = [gain for gain in column if isfinite(gain)] or [0.0]
        worst, best = min(known), max(known)
        size = best - worst or abs(worst) or 1.0
        least, most = possible(objective.path)
        value = objective.gain(worst - size / 10)  # a gain's gain is the value
        found[objective.path] = min(max(value, least), most)
    return found


def possible(path: str) -> tuple[float, float]:
    """The smallest and the largest value that a figure can have: none is negative, and no share is above 1."""
    metric = metric_of(path)
    share = path.endswith("_share") if metric is None else metric.unit == "1"
    return 0.0, 1.0 if share else inf

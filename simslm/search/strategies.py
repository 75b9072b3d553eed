"""How a space is explored: each strategy proposes points round by round and sees what became of them.

A strategy is a generator: it yields the points of a round, each with the share of the requests to simulate, and is
sent their outcomes in the same order. What it proposes follows from the seed and those outcomes alone, so a search
that is taken up again, or runs on more workers, proposes the same.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from simslm.errors import UsageError
from simslm.scenario.schema import Scenario
from simslm.scenario.search import Advisor, Grid, Halving, Nsga2, Random, Range
from simslm.search import advisor
from simslm.search.objectives import Goals
from simslm.search.pareto import best_first
from simslm.search.space import Parameters, Space, identity
from simslm.search.trial import FINISHED, Outcome
from simslm.workload.streams import stream

IDLE_ROUNDS = 20
"""Generations without a new point after which NSGA-II ends."""

NEVER = 1e12
"""The violation of an infeasible point: worse than that of any point that breaks a constraint. Also the value of an
infinite latency (requests were missed) in NSGA-II."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A point, and how much of the workload to simulate."""

    parameters: Parameters
    share: float = 1.0


Rounds = Generator[list[Proposal], list[Outcome], None]


def rounds(method: Any, space: Space, goals: Goals, scenario: Scenario) -> Rounds:
    """The rounds of a method.

    Args:
        method: with its options, from ``search.method``.
        space: what varies.
        goals: what is better.
        scenario: that is searched around.

    Raises:
        UsageError: the method needs a library that is not there.
    """
    return STRATEGIES[type(method)](method, space, goals, scenario)


def trials_planned(method: Any, space: Space) -> int:
    """How many trials the rounds will ask for, without replications: what progress is measured against."""
    count = getattr(method, "num_points", None)
    points = len(space) if count is None else min(count, len(space)) if space.finite else count
    if not isinstance(method, Halving):
        return points
    total = points
    for _ in method.rungs[1:]:
        points = min(max(ceil(points * method.keep), method.at_least), points)
        total += points
    return total


def _grid(method: Grid, space: Space, goals: Goals, scenario: Scenario) -> Rounds:
    del method, goals, scenario
    yield [Proposal(point) for point in space.grid()]


def _random(method: Random, space: Space, goals: Goals, scenario: Scenario) -> Rounds:
    del goals
    yield [Proposal(point) for point in space.drawn(stream(scenario.seed, "search"), method.num_points)]


def _halving(method: Halving, space: Space, goals: Goals, scenario: Scenario) -> Rounds:
    points = (
        list(space.grid())
        if method.num_points is None
        else space.drawn(stream(scenario.seed, "search"), method.num_points)
    )
    for i, share in enumerate(method.rungs):
        if i:
            points = points[: max(ceil(len(points) * method.keep), method.at_least)]
        outcomes = yield [Proposal(point, share) for point in points]
        points = [points[number] for number in ranked(outcomes, goals)]
        if not points:
            return


def ranked(outcomes: Sequence[Outcome], goals: Goals) -> list[int]:
    """Finished outcomes, the best first: those inside all constraints by rank and crowding, then the others by how
    much they break them (Deb et al. 2002, section VI)."""
    done = [i for i, outcome in enumerate(outcomes) if outcome.status == FINISHED]
    violation = {i: goals.violation(outcomes[i].values) for i in done}
    inside = [i for i in done if violation[i] == 0]
    best = best_first([goals.gains(outcomes[i].values) for i in inside])
    outside = sorted((i for i in done if violation[i] > 0), key=lambda i: goals.distance(outcomes[i].values))
    return [inside[i] for i in best] + outside


def _nsga2(method: Nsga2, space: Space, goals: Goals, scenario: Scenario) -> Rounds:
    study = _study(method, goals, scenario.seed)
    distributions = {path: _distribution(axis) for path, axis in space.axes.items()}
    seen: set[str] = set()
    idle = 0
    while len(seen) < method.num_points and idle < IDLE_ROUNDS:
        asked = [study.ask(distributions) for _ in range(method.population_size)]
        points = [_parameters(space, trial.params) for trial in asked]
        before = len(seen)
        for last, point in enumerate(points, start=1):
            seen.add(identity(point))
            if len(seen) == method.num_points:
                points = points[:last]
                break
        idle = idle + 1 if len(seen) == before else 0
        outcomes = yield [Proposal(point) for point in points]
        for trial, outcome in zip(asked, outcomes, strict=False):
            done = outcome.status == FINISHED
            violation = goals.violation(outcome.values) if done else NEVER
            trial.set_constraint("violation", min(violation, NEVER))
            gains = goals.gains(outcome.values) if done else [0.0] * len(goals.objectives)
            study.tell(trial, [max(gain, -NEVER) for gain in gains])


def _study(method: Nsga2, goals: Goals, seed: int) -> Any:
    """An optuna study of NSGA-II that is asked and told, and never runs anything itself."""
    try:
        import optuna
    except ModuleNotFoundError:
        raise UsageError(
            "search.method: nsga2 needs optuna", remedy="install it with: pip install 'simslm[search]'"
        ) from None
    sampler = optuna.samplers.NSGAIISampler(
        population_size=method.population_size,
        mutation_prob=method.mutation_prob,
        crossover_prob=method.crossover_prob,
        swapping_prob=method.swapping_prob,
        seed=int(stream(seed, "search").integers(2**32)),
    )
    maximize = optuna.study.StudyDirection.MAXIMIZE  # of gains, whatever the objective
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        return optuna.create_study(sampler=sampler, directions=[maximize] * len(goals.objectives))
    finally:
        optuna.logging.set_verbosity(verbosity)


def _distribution(axis: tuple[Any, ...] | Range) -> Any:
    """A list by position; a range as it is."""
    from optuna.distributions import FloatDistribution, IntDistribution

    if isinstance(axis, tuple):
        return IntDistribution(0, len(axis) - 1)
    if axis.whole:
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log, step=int(axis.step or 1))
    return FloatDistribution(axis.low, axis.high, log=axis.log, step=axis.step)


def _parameters(space: Space, chosen: Parameters) -> Parameters:
    return {
        path: axis[chosen[path]] if isinstance(axis, tuple) else chosen[path]
        for path, axis in space.axes.items()
    }


def _advisor(method: Advisor, space: Space, goals: Goals, scenario: Scenario) -> Rounds:
    del goals
    tried = advisor.batches(scenario, space)
    outcomes = yield [Proposal(advisor.single(scenario, batch)) for batch in tried]
    room = advisor.room(method, scenario, dict(zip(tried, outcomes, strict=True)))
    if room is not None and room.counts:
        yield [Proposal(point) for point in advisor.shared(scenario, room)]


STRATEGIES: dict[type, Callable[[Any, Space, Goals, Scenario], Rounds]] = {
    Grid: _grid,
    Random: _random,
    Nsga2: _nsga2,
    Halving: _halving,
    Advisor: _advisor,
}
"""By the options model of ``search.method``; another method is a model there and a generator here."""

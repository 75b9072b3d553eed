"""One trial: from a point to the figures of its simulation, or to why there are none.

Nothing here knows of other trials. What one trial looks up is kept for the next in the same process, and changes
no result.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any

from simslm.api import Found, Prepared, observed, prepare
from simslm.errors import InfeasibleError, ScenarioError, SimslmError
from simslm.metrics.definitions import FIGURES
from simslm.metrics.misses import CountMisses
from simslm.metrics.misses import figures as missed
from simslm.scenario.schema import Scenario
from simslm.scenario.search import Capacity
from simslm.scenario.workload import Workload
from simslm.search.capacity import Span, highest, span
from simslm.search.objectives import CAPACITY, SHARES, figure, shares
from simslm.search.space import infeasible_reason, overridden
from simslm.search.trial import FINISHED, INFEASIBLE, Attained, Outcome, Trial
from simslm.sim.world import OnStart
from simslm.workload import RequestArrays
from simslm.workload.supply import RequestStream


@dataclass(frozen=True, slots=True)
class Question:
    """What all trials of a search share, as plain text: the same in every process.

    Attributes:
        stated: JSON of the scenario and its folder, see :func:`simslm.search.space.plain`.
        paths: the figures that are wanted.
        capacity: JSON of the search's, empty without one.
    """

    stated: str
    paths: tuple[str, ...]
    capacity: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """One simulation.

    Attributes:
        summary: what came out.
        requests: how many were simulated.
        missed: the figures that differ once misses are counted, by path.
    """

    summary: Mapping[str, Any]
    requests: int
    missed: Mapping[str, float] = field(default_factory=dict)


class Evaluator:
    """Answers trials of one question, in one process."""

    def __init__(self, question: Question) -> None:
        self._stated = json.loads(question.stated)
        self._paths = question.paths
        self._capacity = Capacity.model_validate_json(question.capacity) if question.capacity else None
        self._found = Found()

    def evaluate(self, trial: Trial, on_start: OnStart | None = None) -> Outcome:
        """Simulates a trial.

        Args:
            trial: what to simulate.
            on_start: see :func:`simslm.api.simulate`.

        Raises:
            KeyboardInterrupt: it was stopped through ``on_start``.
            SimslmError: a trace cannot be used, or something named does not exist.
        """
        try:
            scenario = self._scenario(trial)
            if self._capacity is None:
                seen = self._simulate(prepare(scenario, self._found), on_start)
                return self._outcome(seen, seen.requests)
            return self._at_capacity(scenario, self._capacity, on_start)
        except (InfeasibleError, ScenarioError) as error:
            return Outcome(INFEASIBLE, infeasible_reason(error))
        except SimslmError as error:
            point = ", ".join(f"{path} {value}" for path, value in trial.parameters.items())
            raise type(error)(infeasible_reason(error), where=f"the point {point}") from None

    def _scenario(self, trial: Trial) -> Scenario:
        scenario = overridden(self._stated, trial.parameters)
        more: dict[str, Any] = {}
        if trial.replication:
            more["seed"] = scenario.seed + trial.replication
        if not trial.full:
            more |= shortened(scenario, trial.share, lambda: prepare(scenario, self._found).requests)
        return overridden(self._stated, trial.parameters, more) if more else scenario

    def _simulate(self, prepared: Prepared, on_start: OnStart | None) -> Seen:
        sink = CountMisses() if isinstance(prepared.workload, RequestStream) else None
        result = observed(prepared, on_start=on_start, sink=sink)
        if result.log.interrupted:
            raise KeyboardInterrupt
        return Seen(result.summary, len(prepared.workload), missed(result, sink))

    def _at_capacity(self, scenario: Scenario, capacity: Capacity, on_start: OnStart | None) -> Outcome:
        slo = scenario.slo
        assert slo is not None  # span() has made sure of it for the scenario, and a point cannot take it away
        where: Span = span(scenario, capacity)
        stated = {"scenario": scenario.model_dump(mode="json", exclude_unset=True)}
        stated |= {"base_dir": str(scenario.base_dir)}
        seen: dict[float, Seen] = {}

        def attainment(value: float) -> float:
            at_value = overridden(stated, {capacity.of: value})
            seen[value] = self._simulate(prepare(at_value, self._found), on_start)
            return seen[value].summary["slo"]["attainment"]

        attained = highest(where, attainment, slo.attainment)
        requests = sum(each.requests for each in seen.values())
        outcome = self._outcome(seen[attained.value], requests, attained)
        return replace(outcome, capacity=attained)

    def _outcome(self, seen: Seen, requests: int, attained: Attained | None = None) -> Outcome:
        summary = seen.summary
        found = {path: figure(summary, path) for path in dict.fromkeys((*FIGURES, *self._paths))}
        values = {path: value for path, value in found.items() if value is not None}
        values |= {path: value for path, value in seen.missed.items() if path in found}
        values |= {path: value for path, value in shares(summary).items() if path in (*SHARES, *self._paths)}
        if attained is not None:
            values[CAPACITY] = attained.value
        for path in self._paths:
            if path not in values:
                note = summary.get(path.partition(".")[0], {}).get("note", "")
                reason = f"{path} has no value{f': {note}' if note else ''}"
                return Outcome(INFEASIBLE, reason, requests=requests)
        cost = summary["cost"]
        return Outcome(
            FINISHED, values=values, requests=requests, source=cost["source"], engine=cost["engine"]
        )


def shortened(scenario: Scenario, share: float, requests: Callable[[], RequestArrays]) -> dict[str, Any]:
    """What makes a workload shorter: fewer requests, or less of its time where it states no number.

    The requests of the shorter run are the first of the longer one; those of each class where there are classes.
    """
    workload = scenario.workload
    shorter = _fewer("workload", workload, share, lambda: len(requests()))
    for number, (name, each) in enumerate((workload.classes or {}).items()):
        if not each.sharing:
            place = f"workload.classes.{name}"
            shorter |= _fewer(place, each, share, partial(_of_class, requests, number))
    return shorter


def _of_class(requests: Callable[[], RequestArrays], number: int) -> int:
    """How many requests a class has."""
    of = requests().class_of
    assert of is not None
    return int((of == number).sum())


def _fewer(place: str, workload: Workload, share: float, count: Callable[[], int]) -> dict[str, Any]:
    """The same for one workload: that of the scenario, or of a class, ``count`` requests in all."""
    if workload.replay is not None:
        return {f"{place}.replay.limit": max(1, round(share * count()))}
    if workload.num_requests is not None:
        return {f"{place}.num_requests": max(1, round(share * workload.num_requests))}
    if workload.duration_s is not None:
        return {f"{place}.duration_s": share * workload.duration_s}
    return {}


@lru_cache(maxsize=1)
def evaluator(question: Question) -> Evaluator:
    """The evaluator of a process that works for others: made once for a question."""
    return Evaluator(question)


def answer(question: Question, trial: Trial) -> Outcome:
    """What a worker process does."""
    return evaluator(question).evaluate(trial)

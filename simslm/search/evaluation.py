"""One trial: from a point to the figures of its simulation, or to why there are none.

Nothing here knows of other trials. What one trial looks up is kept for the next in the same process, and changes
no result.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from simslm.api import Found, Prepared, observed, prepare, sampled
from simslm.comparison.intervals import of_figures
from simslm.errors import InfeasibleError, ScenarioError, SimslmError
from simslm.metrics.figure_paths import FIGURES
from simslm.metrics.misses import CountMisses
from simslm.metrics.misses import figures as missed
from simslm.scenario.schema import Scenario
from simslm.scenario.search import Capacity
from simslm.search.capacity import CapacityRange, highest, span
from simslm.search.objectives import CAPACITY, SHARES, figure, shares
from simslm.search.run_length import Lasted, Seen, attained, resized, simulate_long_enough
from simslm.search.space import infeasible_reason, overridden
from simslm.search.trial import FINISHED, INFEASIBLE, Attained, Outcome, Trial
from simslm.sim.world import OnStart
from simslm.workload.supply import RequestStream


@dataclass(frozen=True, slots=True)
class Question:
    """What all trials of a search share, as plain text: the same in every process.

    Attributes:
        stated: JSON of the scenario and its folder, see :func:`simslm.search.space.plain`.
        paths: the figures that are wanted.
        capacity: JSON of the search's, empty without one.
        rejected: largest share of requests that may be rejected at a capacity.
    """

    stated: str
    paths: tuple[str, ...]
    capacity: str = ""
    rejected: float = 1.0


class Evaluator:
    """Answers trials of one question, in one process."""

    def __init__(self, question: Question) -> None:
        self._stated = json.loads(question.stated)
        self._paths = question.paths
        self._capacity = Capacity.model_validate_json(question.capacity) if question.capacity else None
        self._rejected = question.rejected
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
                prepared = prepare(scenario, self._found)
                seen = self._simulate(prepared, on_start, alone=trial.replication == 1)
                return self._outcome(seen, seen.requests)
            return self._at_capacity(scenario, self._capacity, trial.full, on_start)
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
            more |= resized(scenario, trial.share, lambda: prepare(scenario, self._found).requests)
        return overridden(self._stated, trial.parameters, more) if more else scenario

    def _simulate(self, prepared: Prepared, on_start: OnStart | None, alone: bool = False) -> Seen:
        """One simulation; where it stands ``alone``, its requests say how sure its figures are."""
        streamed = isinstance(prepared.workload, RequestStream)
        sink = CountMisses() if streamed else None
        result = observed(prepared, on_start=on_start, sink=sink)
        if result.log.interrupted:
            raise KeyboardInterrupt
        run = sampled(prepared.scenario, result) if alone else None
        known = {} if run is None else of_figures(run, self._paths)
        return Seen(result.summary, len(prepared.workload), missed(result, sink), known)

    def _at_capacity(
        self, scenario: Scenario, capacity: Capacity, full: bool, on_start: OnStart | None
    ) -> Outcome:
        """At the highest value that meets the SLO, each told by a run that is long enough (but in the early rounds of
        halving, which are short on purpose)."""
        slo = scenario.slo
        assert slo is not None  # span() has made sure of it for the scenario, and a point cannot take it away
        where: CapacityRange = span(scenario, capacity)
        stated = {"scenario": scenario.model_dump(mode="json", exclude_unset=True)}
        stated |= {"base_dir": str(scenario.base_dir)}
        lasted: dict[float, Lasted] = {}

        def attainment(value: float) -> float:
            at_value = {capacity.of: value}

            def run(changes: Mapping[str, Any]) -> Seen:
                changed = overridden(stated, at_value, changes)
                return self._simulate(prepare(changed, self._found), on_start)

            at = overridden(stated, at_value)
            lasted[value] = simulate_long_enough(at, run, slo.attainment, self._rejected, lengthen=full)
            return attained(lasted[value].seen.summary, self._rejected)

        found = highest(where, attainment, slo.attainment)
        chosen = lasted[found.value]
        requests = sum(each.requests for each in lasted.values())
        outcome = self._outcome(chosen.seen, requests, found)
        return replace(outcome, capacity=replace(found, short=chosen.short), changes=chosen.changes)

    def _outcome(self, seen: Seen, requests: int, capacity: Attained | None = None) -> Outcome:
        summary = seen.summary
        found = {path: figure(summary, path) for path in dict.fromkeys((*FIGURES, *self._paths))}
        values = {path: value for path, value in found.items() if value is not None}
        values |= {path: value for path, value in seen.missed.items() if path in found}
        values |= {path: value for path, value in shares(summary).items() if path in (*SHARES, *self._paths)}
        if capacity is not None:
            values[CAPACITY] = capacity.value
        for path in self._paths:
            if path not in values:
                note = summary.get(path.partition(".")[0], {}).get("note", "")
                reason = f"{path} has no value{f': {note}' if note else ''}"
                return Outcome(INFEASIBLE, reason, requests=requests)
        cost = summary["cost"]
        return Outcome(
            FINISHED,
            values=values,
            sampled=seen.sampled,
            requests=requests,
            source=cost["source"],
            engine=cost["engine"],
        )


@lru_cache(maxsize=1)
def evaluator(question: Question) -> Evaluator:
    """The evaluator of a process that works for others: made once for a question."""
    return Evaluator(question)


def answer(question: Question, trial: Trial) -> Outcome:
    """What a worker process does."""
    return evaluator(question).evaluate(trial)

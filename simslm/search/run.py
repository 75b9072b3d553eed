"""A search from beginning to end: rounds of the strategy, replications near the frontier, the frontier.

Which trials there are, and their numbers, follow from the scenario alone: outcomes are merged by number, and a
search that is taken up again asks for the same trials and finds some of them done.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simslm.api import prepare
from simslm.errors import InfeasibleError, ScenarioError
from simslm.scenario.schema import Scenario
from simslm.scenario.search import Advisor, Search
from simslm.search import advisor, executors, files
from simslm.search.capacity import span
from simslm.search.evaluation import Question
from simslm.search.executors import Executor, Obey
from simslm.search.frontier import Choice, Point, Volume, frontier, inside, near, nearness, points, volume
from simslm.search.journal import Journal, key
from simslm.search.objectives import Goals, allowed_rejections, goals
from simslm.search.space import identity, plain, space
from simslm.search.strategies import Proposal, rounds, trials_planned
from simslm.search.trial import FINISHED, Outcome, Trial
from simslm.sim.world import OnStart

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[int, int, str], None]
"""Takes trials done, trials in all as far as is known, and the best so far in words."""


@dataclass(frozen=True)
class SearchResult:
    """What a search answers.

    Attributes:
        scenario: that was searched around.
        goals: what was better.
        done: every trial with its outcome, by number.
        feasible: points that can be and keep all constraints.
        choices: those of them on the frontier, one for those that are the same, the best first.
        volume: what they dominate; None where there is none.
        interrupted: whether it was stopped before the end.
        again: the arguments of ``simslm simulate`` that give the scenario; empty when it is in no file.
    """

    scenario: Scenario
    goals: Goals
    done: tuple[tuple[Trial, Outcome], ...]
    feasible: tuple[Point, ...]
    choices: tuple[Choice, ...]
    volume: Volume | None
    interrupted: bool = False
    again: tuple[str, ...] = ()

    @property
    def points(self) -> tuple[Point, ...]:
        """The points of the frontier, the best first."""
        return tuple(choice.point for choice in self.choices)

    @cached_property
    def frontier(self) -> dict[str, Any]:
        """The contents of ``frontier.json``."""
        return files.content(self)

    @cached_property
    def trials(self) -> pd.DataFrame:
        """``trials.parquet`` as a frame: one row per trial."""
        return files.trials_arrow(self).to_pandas()

    @property
    def search(self) -> Search:
        """What was asked."""
        assert self.scenario.search is not None  # it could not have been run without
        return self.scenario.search


def search(
    scenario: Scenario,
    *,
    jobs: int = 1,
    executor: str = "local",
    directory: Path | None = None,
    resume: bool = False,
    again: Sequence[str] = (),
    progress: Progress | None = None,
    obey: Obey | None = None,
    on_start: OnStart | None = None,
) -> SearchResult:
    """Explores what a scenario's ``search`` section asks for.

    A KeyboardInterrupt, from ``obey`` or from the keyboard, ends it early with what is done.

    Args:
        scenario: from :func:`simslm.load_scenario`.
        jobs: workers; a script that asks for more than one local worker guards its own main module, as
            :mod:`multiprocessing` requires.
        executor: ``local`` or ``ray``.
        directory: where finished trials are noted as they come, to be taken up again after a crash; None = nowhere.
        resume: go on with what is noted there.
        again: the arguments of ``simslm simulate`` that give the scenario, for the commands that reproduce a point.
        progress: called after every trial.
        obey: called between trials.
        on_start: see :func:`simslm.api.simulate`; only with one local job.

    Raises:
        ScenarioError: the scenario has no ``search`` section, or it makes no sense.
        UsageError: the directory holds something else, or a library is missing.
        SimslmError: see :func:`simslm.api.prepare`.
    """
    asked = scenario.search
    if asked is None:
        raise ScenarioError(
            "has no search section",
            where=again[0] if again else scenario.name,
            remedy="state search.space and search.objectives (see `simslm search --help`)",
        )
    campaign = _Campaign(scenario, asked, progress or (lambda done, total, best: None))
    with _journal(campaign, directory, resume) as journal:
        campaign.journal = journal
        obey = obey or (lambda: None)
        try:
            with executors.executor(executor, campaign.question, jobs, obey, on_start) as campaign.executor:
                campaign.explore()
                campaign.replicate()
        except KeyboardInterrupt:
            campaign.interrupted = True
        if journal is not None and not campaign.interrupted:
            journal.finish()
    return campaign.result(tuple(again))


def _journal(
    campaign: _Campaign, directory: Path | None, resume: bool
) -> AbstractContextManager[Journal | None]:
    return nullcontext() if directory is None else Journal(directory, campaign.header(), resume)


@dataclass
class _Campaign:
    """A search under way.

    Attributes:
        numbers: of each trial that was asked for, by what it is.
        trials, outcomes: by number.
        point_numbers: of each point, by what it is.
    """

    scenario: Scenario
    asked: Search
    progress: Progress
    journal: Journal | None = None
    executor: Executor | None = None
    interrupted: bool = False
    numbers: dict[Any, int] = field(default_factory=dict)
    trials: list[Trial] = field(default_factory=list)
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    point_numbers: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.asked.method, Advisor):
            advisor.check(self.scenario)
        self.goals = goals(self.scenario, self.asked)
        self.space = space(self.scenario, self.asked)
        capacity = self.asked.capacity
        if capacity is not None:
            span(self.scenario, capacity)
        self.origins = self._origins()
        self.question = Question(
            json.dumps(plain(self.scenario)),
            self.goals.paths,
            "" if capacity is None else capacity.model_dump_json(),
            allowed_rejections(self.scenario),
        )
        self.planned = trials_planned(self.asked.method, self.space)
        self.best: tuple[float, str] = (float("-inf"), "")

    def header(self) -> dict[str, Any]:
        """What tells this search from another: all that its trials depend on."""
        return {
            "simslm": version("simslm"),
            "scenario": self.scenario.model_dump(mode="json"),
            **self.origins,
        }

    def explore(self) -> None:
        """The rounds of the strategy."""
        proposing = rounds(self.asked.method, self.space, self.goals, self.scenario)
        try:
            proposals = next(proposing)
            while True:
                numbers = [self._number(proposal) for proposal in proposals]
                self._run(numbers)
                proposals = proposing.send([self.outcomes[number] for number in numbers])
        except StopIteration:
            pass

    def replicate(self) -> None:
        """More seeds for the points near the frontier, until no other point is near.

        A second one for each of them; and further ones where that changed anything, which it does not in a replay.
        """
        replications = range(1, self.asked.replications)
        while True:
            close = near(inside(self._points(), self.goals), self.goals, self.asked.near)
            before = len(self.trials)
            for some in (replications[:1], replications[1:]):
                seedless = {point.number for point in self._points() if point.outcomes and point.seedless}
                self._run(
                    [
                        self._number(Proposal(point.parameters), replication)
                        for replication in some
                        for point in close
                        if point.number not in seedless
                    ]
                )
            if len(self.trials) == before:
                return

    def result(self, again: tuple[str, ...]) -> SearchResult:
        """The result of the trials that are done."""
        feasible = inside(self._points(), self.goals)
        chosen = near(feasible, self.goals, nearness(self.asked))
        return SearchResult(
            self.scenario,
            self.goals,
            tuple(self._done()),
            tuple(feasible),
            tuple(frontier(chosen, self.goals, self.asked.confidence, self.asked.margin)),
            volume(feasible, self.goals, self.asked.reference),
            self.interrupted,
            again,
        )

    def _points(self) -> list[Point]:
        return points(self._done())

    def _done(self) -> list[tuple[Trial, Outcome]]:
        return [(self.trials[number], self.outcomes[number]) for number in sorted(self.outcomes)]

    def _number(self, proposal: Proposal, replication: int = 0) -> int:
        """The number of a trial; a new one where it is asked for the first time."""
        point = self.point_numbers.setdefault(identity(proposal.parameters), len(self.point_numbers))
        trial = Trial(len(self.trials), point, dict(proposal.parameters), replication, proposal.share)
        number = self.numbers.setdefault(key(trial), trial.number)
        if number == trial.number:
            self.trials.append(trial)
        return number

    def _run(self, numbers: Sequence[int]) -> None:
        """Runs those of these trials that are not done yet."""
        wanted = [self.trials[number] for number in dict.fromkeys(numbers) if number not in self.outcomes]
        known = self.journal.known if self.journal is not None else {}
        left = []
        for trial in wanted:
            if key(trial) in known:
                self._take(trial, known[key(trial)])
            else:
                left.append(trial)
        assert self.executor is not None
        for trial, outcome in self.executor.run(left):
            if self.journal is not None:
                self.journal.add(trial, outcome)
            self._take(trial, outcome)

    def _take(self, trial: Trial, outcome: Outcome) -> None:
        self.outcomes[trial.number] = outcome
        if outcome.status == FINISHED and trial.full and self.goals.violation(outcome.values) == 0:
            first = self.goals.deciding
            gain = first.gain(outcome.values[first.path])
            if gain > self.best[0]:
                self.best = (gain, f"best {first.path} {outcome.values[first.path]:.4g}")
        self.progress(len(self.outcomes), max(self.planned, len(self.trials)), self.best[1])

    def _origins(self) -> dict[str, Any]:
        """The contents of the traces and files that the scenario as it stands names.

        Raises:
            ScenarioError: the scenario cannot be prepared at any point, or asks for energy without power.
        """
        try:
            prepared = prepare(self.scenario)
        except InfeasibleError:
            return {"traces": [], "files": {}}
        self._check_power([group.cost.idle_w is None and group.cost.power_note for group in prepared.groups])
        hashes = [group.cost.provenance.get("content_hash") for group in prepared.groups]
        return {"traces": [found for found in hashes if found], "files": prepared.files}

    def _check_power(self, notes: Sequence[str | bool]) -> None:
        note = next((note for note in notes if note is not False), None)
        wanted = next((path for path in self.goals.paths if path.startswith("energy.")), None)
        varies = any(path.split(".")[0] in ("cost", "model", "device") for path in self.space.axes)
        if note is not None and wanted is not None and not varies:
            key = "objectives" if wanted in self.asked.objectives else "constraints"
            raise ScenarioError(
                f"search.{key}: {wanted} has no value: {note or 'no power was measured'}",
                where=self.scenario.where("search", key, wanted),
            )

"""The requests of one workload: each by itself, or programs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from simslm.errors import ScenarioError
from simslm.scenario.arrivals import LONGEST_S, AllAtOnce
from simslm.scenario.lengths import Fixed
from simslm.scenario.programs import RecordedTime, Sessions
from simslm.scenario.workload import Workload
from simslm.workload.generate import generate
from simslm.workload.programs import program_columns, times_at
from simslm.workload.requests import ProgramArrays, RequestArrays
from simslm.workload.sessions import Pauses, in_sessions, thought_s
from simslm.workload.streams import stream

ONE = Fixed(dist="fixed", value=1)
BARE = {"prompt_tokens": ONE, "output_tokens": ONE, "prefixes": None, "programs": None, "correlation": None}
"""Overrides that leave the arrivals and clients of a workload and give each request one token."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What requests are made with.

    Attributes:
        seed: the scenario's, or one of a class.
        max_model_len: the longest context, tokens.
        base_dir: what paths are relative to.
    """

    seed: int
    max_model_len: int
    base_dir: Path

    def within(self, name: str) -> Origin:
        """The same with streams of its own: what one class draws does not depend on the others."""
        return replace(self, seed=int(stream(self.seed, f"class {name}").integers(2**63)))

    def requests(self, workload: Workload) -> RequestArrays:
        """The requests of a workload; its programs' where it has programs."""
        spec = workload.programs
        if spec is None:
            return self._plain(workload)
        if isinstance(spec, Sessions):
            requests = in_sessions(self._plain(workload), spec, self._pauses(workload, spec))
            _check_span(requests.arrival_s, requests.programs)
            return requests
        return self._programs(workload, self.starts(workload))

    def starts(self, workload: Workload) -> RequestArrays:
        """The arrivals of a workload, with their priorities, as requests of one token."""
        return self._plain(workload.model_copy(update=BARE))

    def arriving(self, workload: Workload, times_s: np.ndarray, source: str) -> RequestArrays:
        """The requests of a workload, arriving at these times instead of its own.

        Args:
            workload: of a class.
            times_s: never decreasing.
            source: where they come from, for reports.
        """
        if workload.programs is None:
            return replace(self._at_once(workload, len(times_s)), arrival_s=times_s, source=source)
        bare = self._at_once(workload.model_copy(update=BARE), len(times_s))
        return self._programs(workload, replace(bare, arrival_s=times_s))

    def _plain(self, workload: Workload) -> RequestArrays:
        return generate(workload, self.seed, self.max_model_len, self.base_dir)

    def _pauses(self, workload: Workload, spec: Sessions) -> Pauses:
        """The pauses of sessions: drawn, or as they were recorded."""
        times = spec.think_time_s
        if not isinstance(times, RecordedTime):
            draws = stream(self.seed, "programs.think_time_s")
            return lambda _gaps_s, elapsed_s, _stated_s: times_at(times, draws.random(len(elapsed_s)))
        replay = workload.replay
        assert replay is not None
        if workload.arrivals is not None or replay.rate_scale is not None or replay.copies > 1:
            raise ScenarioError(
                "workload.programs: pauses as recorded belong to the recorded times",
                remedy="leave out arrivals, rate_scale and copies, or state think_time_s",
            )
        return partial(thought_s, replay.time_scale)

    def _at_once(self, workload: Workload, count: int) -> RequestArrays:
        """So many requests of a workload without times."""
        arrivals = {"arrivals": AllAtOnce(process="all-at-once"), "num_requests": count, "duration_s": None}
        return self._plain(workload.model_copy(update=arrivals))

    def _programs(self, workload: Workload, starts: RequestArrays) -> RequestArrays:
        """The requests of a workload's programs, which start when ``starts`` arrive."""
        columns = program_columns(workload, starts, self.seed, self.base_dir)
        prompts, program_of = columns["prompt_tokens"], columns["programs"].program_of
        _check_span(columns["arrival_s"], columns["programs"])
        most = np.full(len(prompts), workload.max_tokens or 0, dtype=np.int64)
        if workload.max_tokens is None:
            most = np.maximum(self.max_model_len - prompts, 1)
        patience_s = None
        if workload.timeout_s is not None or workload.cancellations is not None:
            patience_s = self._at_once(workload.model_copy(update=BARE), len(prompts)).patience_s
        priority = None if starts.priority is None else starts.priority[program_of]
        return RequestArrays(max_tokens=most, priority=priority, patience_s=patience_s, **columns)


def _check_span(arrival_s: np.ndarray, programs: ProgramArrays | None) -> None:
    """Pauses and arrivals together are such that a double still tells microseconds."""
    assert programs is not None
    last_s = float(arrival_s.max() + programs.delay_s.sum())
    loops = (each.think_time_s * len(each.programs) for each in programs.clients)
    if not math.fsum((last_s, *loops)) <= LONGEST_S:
        raise ScenarioError(
            f"workload.programs: arrivals and pauses come to more than {LONGEST_S:.3g} s, to which time is kept",
            remedy="start fewer programs, or shorten their pauses",
        )

"""Recorded sessions whose users wait: the next request is sent when the last one is answered and thought about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from simslm.errors import ScenarioError
from simslm.scenario.programs import Sessions
from simslm.workload.calls import Call, Calls
from simslm.workload.requests import ProgramArrays, ProgramClients, RequestArrays

Pauses = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""The pauses before some requests: from the gaps between their arrivals and those before them in their sessions, from
how long the answers in between took, and from the pauses that the trace states, the last two NaN where they are not
known; all in seconds."""


def in_sessions(recorded: RequestArrays, spec: Sessions, pauses_s: Pauses) -> RequestArrays:
    """The requests of a replay as programs, session by session in the order in which sessions begin.

    The first request of a session is sent when it was (or when a client of a closed loop starts the session), each
    other one a pause after the last token of the one before. Requests of no session are sent when they were.

    Args:
        recorded: the replay.
        spec: how sessions go on.
        pauses_s: see :data:`Pauses`.

    Raises:
        ScenarioError: the replay has no sessions.
    """
    sessions = recorded.session_id
    if sessions is None:
        raise ScenarioError(
            "workload.programs: the replayed trace has no sessions",
            remedy="replay a trace with session identifiers, or leave programs out",
        )
    order, begins = _by_session(sessions)
    follows = ~begins
    delay_s = np.zeros(len(order))
    after = np.flatnonzero(follows)
    elapsed_s = np.full(len(order), np.nan) if recorded.elapsed_s is None else recorded.elapsed_s[order]
    stated_s = np.full(len(order), np.nan) if recorded.pause_s is None else recorded.pause_s[order]
    gaps_s = np.diff(recorded.arrival_s[order], prepend=0.0)
    delay_s[follows] = pauses_s(gaps_s[after], elapsed_s[after - 1], stated_s[after])
    program_of = np.cumsum(begins) - 1
    start_s, clients = recorded.arrival_s[order][begins], ()
    if (loop := recorded.closed_loop) is not None:
        number, start_s = np.arange(len(start_s)), np.full(len(start_s), np.nan)
        clients = (ProgramClients(loop.concurrency, loop.think_time_s, loop.until_s, programs=number),)
    programs = ProgramArrays(
        program_of, start_s, np.flatnonzero(follows) - 1, np.cumsum(follows), delay_s, clients
    )
    names = (
        "prompt_tokens",
        "output_tokens",
        "max_tokens",
        "priority",
        "patience_s",
        "elapsed_s",
        "pause_s",
        "session_id",
    )
    columns = {name: None if (column := getattr(recorded, name)) is None else column[order] for name in names}
    moved = replace(
        recorded,
        **columns,
        arrival_s=recorded.arrival_s[order][begins][program_of],
        source=f"{recorded.source}, {len(start_s):,} sessions",
        closed_loop=None,
        programs=programs,
        units=None if recorded.units is None else [recorded.units[row] for row in order.tolist()],
    )
    return _gone_on(moved, programs) if spec.history else moved


def thought_s(
    time_scale: float, gaps_s: np.ndarray, elapsed_s: np.ndarray, stated_s: np.ndarray
) -> np.ndarray:
    """How long users thought: what the trace states, else the gap less the time of the answer, 0 where the next request
    came earlier.

    Args:
        time_scale: of the replay: what users thought is scaled as the gaps are.
        gaps_s, elapsed_s, stated_s: see :data:`Pauses`.

    Raises:
        ScenarioError: the trace does not say of every answer how long it took.
    """
    known = ~np.isnan(stated_s)
    if np.isnan(elapsed_s[~known]).any():
        raise ScenarioError(
            "workload.programs: the replayed trace does not say how long each answer took, nor so the pause after it",
            remedy="state think_time_s in seconds or as a distribution",
        )
    return np.where(known, time_scale * stated_s, np.maximum(gaps_s - time_scale * elapsed_s, 0.0))


def _by_session(sessions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows session by session, and which of them begin one; rows of no session are one each."""
    alone = sessions < 0
    label = np.where(alone, sessions.max(initial=-1) + 1 + np.arange(len(sessions)), sessions)
    _, first, inverse = np.unique(label, return_index=True, return_inverse=True)
    order = np.argsort(first[inverse], kind="stable")
    return order, np.diff(first[inverse][order], prepend=-1) != 0


def _gone_on(requests: RequestArrays, programs: ProgramArrays) -> RequestArrays:
    """The same; a prompt that is long enough begins with the last prompt and answer of its session."""
    calls = Calls()
    prompts, outputs = requests.prompt_tokens.tolist(), requests.output_tokens.tolist()
    sizes = np.bincount(programs.program_of)
    first = 0
    for size in sizes.tolist():
        program = []
        for i in range(size):
            before = prompts[first + i - 1] + outputs[first + i - 1] if i else 0
            goes_on = i > 0 and prompts[first + i] > before
            own = prompts[first + i] - before if goes_on else prompts[first + i]
            program.append(Call(own, outputs[first + i], extends=i - 1 if goes_on else None))
        calls.add(program)
        first += size
    known = calls.columns()
    names = ("units", "context_units", "unit_tokens")
    return replace(requests, **{name: known[name] for name in names})

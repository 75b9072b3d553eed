"""Programs for tests: written down by hand, or random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from simslm.sim.deployment import Deployment
from simslm.workload.calls import Call, Calls, Text
from simslm.workload.requests import ProgramArrays, ProgramClients
from support.scenarios import deployments
from support.synthetic import Lists


def programs(
    written: Sequence[Sequence[Call]], start_s: Any, clients: tuple[ProgramClients, ...] = ()
) -> Lists:
    """A workload of programs; those that start at NaN are the clients'."""
    calls = Calls()
    for program in written:
        calls.add(program)
    columns = calls.columns()
    program_of = columns["program_of"]
    start_s = np.broadcast_to(np.asarray(start_s, dtype=float), len(written)).copy()
    arrays = ProgramArrays(
        program_of, start_s, columns["parents"], columns["parent_ends"], columns["delay_s"], clients
    )
    return Lists.of(
        np.nan_to_num(start_s)[program_of],
        columns["prompt_tokens"],
        columns["output_tokens"],
        units=columns["units"],
        unit_tokens=columns["unit_tokens"],
        context_units=columns["context_units"],
        session_id=program_of,
        programs=arrays,
    )


@st.composite
def calls(draw: st.DrawFn) -> list[Call]:
    """A program of up to eight requests: any graph, with pauses, shared texts, reasoning."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    longest = draw(st.sampled_from([3, 40]))
    found: list[Call] = []
    for number in range(draw(st.integers(1, 8))):
        known = list(range(number))
        parents = [each for each in known if rng.random() < 0.3]
        reads = [each for each in parents if rng.random() < 0.3]
        extends = int(rng.integers(number)) if number and rng.random() < 0.6 else None
        text = Text("system", 20) if extends is None and rng.random() < 0.5 else None
        shared = Text(("asked", int(rng.integers(2))), 30) if rng.random() < 0.3 else None
        own, output = (int(each) for each in rng.integers(1, longest, 2))
        delay_s = float(rng.choice([0.0, 2.0**-8, 0.3]))
        thought = int(rng.integers(longest)) if rng.random() < 0.3 else 0
        found.append(Call(own, output, text, extends, shared, reads, parents, delay_s, thought))
    return found


@st.composite
def program_workloads(draw: st.DrawFn) -> Lists:
    """Up to eight programs, of which some may be started by clients, with impatient ones among their users."""
    written = draw(st.lists(calls(), min_size=1, max_size=8))
    count = len(written)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    closed = draw(st.integers(0, count))
    start_s = np.append(np.full(closed, np.nan), np.sort(rng.choice([0.0, 0.01, 0.5, 1.0], count - closed)))
    clients: tuple[ProgramClients, ...] = ()
    if closed:
        until = draw(st.sampled_from([None, 0.2]))
        think_s = draw(st.sampled_from([0.0, 0.25]))
        clients = (ProgramClients(draw(st.integers(1, 3)), think_s, until, programs=np.arange(closed)),)
    requests = programs(written, start_s, clients)
    size = len(requests.prompt_tokens)
    if draw(st.booleans()):
        requests.priority = rng.integers(0, 3, size)
    if draw(st.booleans()):
        patience = rng.exponential(draw(st.sampled_from([0.02, 1.0])), size)
        requests.patience_s = np.where(rng.random(size) < 0.3, patience, np.inf)
    return requests


@st.composite
def program_scenarios(draw: st.DrawFn, **named: str) -> tuple[Lists, Deployment]:
    """Random programs and what serves them."""
    requests = draw(program_workloads())
    return requests, draw(deployments(requests, **named))

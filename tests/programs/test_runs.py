"""Requests that depend on requests: closed forms, the fate of what depends on the lost, and jumping is stepping."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from support.invariants import same_logs, simulate
from support.programs import program_scenarios, programs
from support.scenarios import examples
from support.synthetic import LinearCost, deployment

from simslm.sim.log import FAILED, FINISHED, REJECTED
from simslm.workload.calls import Call
from simslm.workload.requests import ProgramClients

TICK = 2.0**-8
STEADY = LinearCost(TICK, 0.0, 0.0, 0.0, 0.0)
"""Every iteration takes the same, whatever is in it: sums of it are exact."""


@settings(max_examples=examples(150), deadline=None)
@given(program_scenarios())
def test_jumping_is_stepping(scenario):
    requests, engine = scenario
    jumped = simulate(requests, engine, jump=True)
    stepped = simulate(requests, engine, jump=False)
    same_logs(jumped.log, stepped.log)
    assert jumped.summary == stepped.summary


@pytest.mark.slow
def test_the_random_programs_reach_what_they_are_for():
    """Of 600, some wait, lose a request and what depends on it, find outputs cached, or are started by clients."""
    reached: Counter[str] = Counter()

    @settings(max_examples=600, derandomize=True, deadline=None, database=None)
    @given(program_scenarios())
    def look(scenario):
        requests, engine = scenario
        log = simulate(requests, engine).log
        status = np.array(log.requests.status)
        waits = np.diff(requests.programs.parent_ends, prepend=0) > 0
        reached.update(
            waited=bool((waits & (status == FINISHED)).any()),
            joined=bool((np.diff(requests.programs.parent_ends, prepend=0) > 1)[status == FINISHED].any()),
            paused=bool((requests.programs.delay_s > 0)[status == FINISHED].any()),
            rejected=bool((status == REJECTED).any()),
            failed=bool((status == FAILED).any()),
            dropped=bool((waits & np.isnan(log.arrival_s)).any()),
            cached=bool(np.array(log.requests.cached_prompt_tokens)[waits].any()),
            closed=bool(requests.programs.clients),
            preempted=bool(np.array(log.requests.preemptions).any()),
        )

    look()
    assert min(reached.values()) >= 3, reached


@pytest.mark.parametrize("jump", [True, False])
def test_a_chain_alone_is_a_sum(jump):
    """One program on an idle replica: each request takes its output in ticks, and its pause before."""
    outputs, pauses_s = [5, 1, 7, 2], [0.5, 0.0, 3 * TICK, 0.25]
    chain = [
        Call(10, output, after=[i - 1] if i else [], delay_s=pause)
        for i, (output, pause) in enumerate(zip(outputs, pauses_s, strict=True))
    ]
    columns = simulate(programs([chain], 1.0), deployment(cost=STEADY), jump=jump).request_columns
    begin_s = 1.0
    for row, (output, pause_s) in enumerate(zip(outputs, pauses_s, strict=True)):
        begin_s += pause_s
        assert columns["arrival_s"][row] == columns["first_scheduled_s"][row] == begin_s
        begin_s += output * TICK
        assert columns["finish_s"][row] == begin_s


@pytest.mark.parametrize("jump", [True, False])
def test_a_join_waits_for_the_last_of_its_parents(jump):
    """A root, four branches of different lengths side by side, and a join a pause after the longest."""
    outputs = [3, 9, 4, 1]
    root = Call(10, 2)
    branches = [Call(10, output, after=[0]) for output in outputs]
    join = Call(1, 6, reads=range(1, 5), delay_s=0.125)
    result = simulate(programs([[root, *branches, join]], 0.0), deployment(cost=STEADY), jump=jump)
    columns = result.request_columns
    assert columns["finish_s"][1:5].tolist() == [(2 + output) * TICK for output in outputs]
    assert columns["arrival_s"][5] == (2 + max(outputs)) * TICK + 0.125
    assert columns["finish_s"][5] == columns["arrival_s"][5] + 6 * TICK
    assert columns["prompt_tokens"][5] == sum(outputs) + 1


def test_a_join_between_replicas_waits_for_both():
    """Two branches on two replicas, one of them held up by other work that came before."""
    busy = [Call(10, 40)]
    fork = [Call(10, 4), Call(10, 4), Call(10, 1, after=[0, 1])]
    engine = deployment(cost=STEADY, replicas=2, max_num_seqs=1)
    columns = simulate(programs([busy, fork], [0.0, 0.0]), engine).request_columns
    assert columns["replica"].tolist()[:3] == [0, 1, 0]
    assert columns["finish_s"][2] == 44 * TICK
    assert columns["arrival_s"][3] == 44 * TICK


@pytest.mark.parametrize("jump", [True, False])
def test_what_depends_on_a_rejected_request_is_never_sent_and_the_rest_goes_on(jump):
    """The second of three branches can never fit: its child, and the join, are lost; the others finish."""
    too_long = Call(5000, 2, after=[0])
    program = [
        Call(10, 2),
        Call(10, 3, after=[0]),
        too_long,
        Call(10, 4, after=[0]),
        Call(10, 1, after=[2]),
        Call(10, 1, after=[1, 3, 4]),
        Call(10, 2, after=[1, 3]),
    ]
    result = simulate(programs([program], 0.0), deployment(cost=STEADY), jump=jump)
    assert np.array(result.log.requests.status)[[0, 1, 2, 3, 6]].tolist() == [
        FINISHED,
        FINISHED,
        REJECTED,
        FINISHED,
        FINISHED,
    ]
    assert np.isnan(result.log.arrival_s[[4, 5]]).all()
    assert result.request_columns["request_id"].tolist() == [0, 1, 2, 3, 6]
    assert result.summary["requests"] == {
        "arrived": 5,
        "finished": 4,
        "rejected": 1,
        "failed": 0,
        "unfinished": 0,
    }


def test_what_depends_on_a_client_that_left_is_never_sent():
    """Its patience ends while it waits, or while it runs; a child that another parent had not finished for, too."""
    program = [Call(10, 50), Call(10, 400, after=[0]), Call(10, 9, after=[1]), Call(10, 9, after=[0, 2])]
    requests = programs([program], 0.0)
    requests.patience_s = np.array([np.inf, 100 * TICK, np.inf, np.inf])
    result = simulate(requests, deployment(cost=STEADY))
    assert result.request_columns["status"].tolist() == [FINISHED, FAILED]
    assert np.isnan(result.log.arrival_s[2:]).all()


def test_clients_start_the_next_program_when_all_of_the_last_is_over():
    """One client, three programs: the second loses its first request, which is all that is sent of it."""
    chain = [Call(10, 3), Call(10, 5, after=[0], delay_s=0.25)]
    lost = [Call(5000, 3), Call(10, 5, after=[0])]
    clients = (ProgramClients(1, 0.5, programs=np.arange(3)),)
    result = simulate(programs([chain, lost, chain], np.nan, clients), deployment(cost=STEADY))
    begin_s, over_s = result.log.arrival_s[[0, 2, 4]], 8 * TICK + 0.25
    assert begin_s.tolist() == [0.0, over_s + 0.5, over_s + 1.0]
    assert result.request_columns["request_id"].tolist() == [0, 1, 2, 4, 5]


def test_clients_stop_when_their_time_is_up():
    clients = (ProgramClients(2, 0.0, 10.5 * TICK, programs=np.arange(9)),)
    chain = [Call(10, 2), Call(10, 3, after=[0])]
    log = simulate(programs([chain] * 9, np.nan, clients), deployment(cost=STEADY)).log
    assert [t for t in log.arrival_s[::2].tolist() if t == t] == [
        0,
        0,
        5 * TICK,
        5 * TICK,
        10 * TICK,
        10 * TICK,
    ]


def test_programs_arrive_in_order_of_time_whatever_their_order_of_pauses():
    """Requests that depend on none may have a pause after their program's start."""
    late_first = [Call(10, 1, delay_s=2.0), Call(10, 1)]
    log = simulate(programs([late_first, [Call(10, 1)]], [0.0, 1.0]), deployment(cost=STEADY)).log
    assert log.arrival_s.tolist() == [2.0, 0.0, 1.0]


@pytest.mark.slow
def test_a_deep_chain_and_a_wide_join():
    """Ten thousand requests one after the other, and one that waits for two thousand at once."""
    deep = [Call(1, 1, after=[i - 1] if i else []) for i in range(10_000)]
    wide = [*(Call(1, 1) for _ in range(2000)), Call(1, 1, after=range(2000))]
    lost = [Call(5000, 1), *(Call(1, 1, after=[i]) for i in range(10_000))]
    result = simulate(programs([deep, wide, lost], 0.0), deployment(cost=STEADY, max_num_seqs=256))
    finish_s = result.log.requests.finish_s
    assert all(one < other for one, other in pairwise(finish_s[:10_000]))
    assert result.log.arrival_s[12_000] == max(finish_s[10_000:12_000])
    assert result.summary["requests"]["arrived"] == 12_002

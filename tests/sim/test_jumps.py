"""Jumping over k iterations leaves the same bits as stepping through them; the invariants hold throughout."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from support.invariants import same_logs, simulate
from support.synthetic import Lists, Loop, deployment

from simslm.policies.registry import registered


@st.composite
def scenarios(draw: st.DrawFn):
    """A random workload and deployment, often short of KV blocks."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(1, 60))
    rate = draw(st.sampled_from([0.5, 10.0, 100.0, 2000.0]))
    arrivals = np.cumsum(rng.exponential(1 / rate, count))
    if draw(st.booleans()):
        arrivals = np.round(arrivals, draw(st.integers(0, 2)))
    loop = Loop(draw(st.integers(1, 12)), draw(st.sampled_from([0.0, 0.25]))) if draw(st.booleans()) else None
    longest = draw(st.sampled_from([3, 60, 300]))
    requests = Lists.of(
        arrivals, rng.integers(1, longest + 1, count), rng.integers(1, longest + 1, count), loop
    )
    block_size = draw(st.sampled_from([1, 4, 16]))
    engine = deployment(
        batching=draw(st.sampled_from([entry.name for entry in registered("batching")])),
        router=draw(st.sampled_from([entry.name for entry in registered("routing")])),
        replicas=draw(st.integers(1, 3)),
        max_num_seqs=draw(st.integers(1, 24)),
        max_num_batched_tokens=draw(st.sampled_from([24, 64, 512])),
        block_size=block_size,
        num_gpu_blocks=draw(st.integers(1, 3 * longest // block_size + 4)),
    )
    return requests, engine


@settings(max_examples=150, deadline=None)
@given(scenarios())
def test_jumping_is_stepping(scenario):
    requests, engine = scenario
    jumped = simulate(requests, engine, jump=True)
    stepped = simulate(requests, engine, jump=False)
    same_logs(jumped.log, stepped.log)
    assert jumped.summary == stepped.summary


def test_the_random_scenarios_reach_what_they_are_for():
    """A crowd on few blocks is preempted, and a lone request is taken in one jump after its prompt."""
    rng = np.random.default_rng(1)
    crowd = Lists.of(np.zeros(40), rng.integers(1, 100, 40), rng.integers(50, 200, 40))
    result = simulate(crowd, deployment(num_gpu_blocks=40, max_num_seqs=16))
    assert result.summary["kv"]["preemptions"] > 10
    lone = simulate(Lists.of([0.0], 100, 500), deployment())
    assert len(lone.tables[0]) == 500
    assert lone.log.events < 8

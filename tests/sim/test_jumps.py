"""Jumping over k iterations leaves the same bits as stepping through them; the invariants hold throughout."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from support.invariants import same_logs, simulate
from support.scenarios import examples, scenarios
from support.synthetic import Lists, deployment


@settings(max_examples=examples(200), deadline=None)
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

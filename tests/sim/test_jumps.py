"""Jumping over k iterations leaves the same bits as stepping through them; the invariants hold throughout."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from support.invariants import same_logs, simulate
from support.scenarios import examples, scenarios
from support.synthetic import Lists, deployment

from simslm.sim.log import FAILED, REJECTED


@settings(max_examples=examples(200), deadline=None)
@given(scenarios())
def test_jumping_is_stepping(scenario):
    requests, engine = scenario
    jumped = simulate(requests, engine, jump=True)
    stepped = simulate(requests, engine, jump=False)
    same_logs(jumped.log, stepped.log)
    assert jumped.summary == stepped.summary


def test_the_random_scenarios_reach_what_they_are_for():
    """Of 150, some are preempted, padded, refused, left by clients, served from a prefix cache, or share a device."""
    reached: Counter[str] = Counter()

    @settings(max_examples=150, derandomize=True, deadline=None, database=None)
    @given(scenarios())
    def look(scenario):
        requests, engine = scenario
        result = simulate(requests, engine)
        columns, limits = result.request_columns, engine.groups[0].engine
        preempted = bool(columns["preemptions"].any())
        reached.update(
            preempted=preempted,
            swapped=preempted and limits.swap_blocks > 0,
            padded=any((t.columns["decode_seqs"] > t.columns["decoding"]).any() for t in result.tables),
            rejected=bool((columns["status"] == REJECTED).any()),
            failed=bool((columns["status"] == FAILED).any()),
            cached=bool(columns["cached_prompt_tokens"].any()),
            shared=sum(map(len, result.tables)) > max(map(len, result.tables)),
        )

    look()
    assert min(reached.values()) >= 3, reached


def test_a_crowd_is_preempted_and_a_lone_request_jumps():
    rng = np.random.default_rng(1)
    crowd = Lists.of(np.zeros(40), rng.integers(1, 100, 40), rng.integers(50, 200, 40))
    result = simulate(crowd, deployment(num_gpu_blocks=40, max_num_seqs=16))
    assert result.summary["kv"]["preemptions"] > 10
    lone = simulate(Lists.of([0.0], 100, 500), deployment())
    assert len(lone.tables[0]) == 500
    assert lone.log.events < 8

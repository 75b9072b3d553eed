"""Jumping over k iterations leaves the same bits as stepping through them; the invariants hold throughout."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, seed, settings
from support.invariants import same_logs, simulate
from support.scenarios import examples, scenarios
from support.synthetic import LinearCost, Lists, Loop, deployment

from simslm.policies.registry import lookup
from simslm.sim.log import FAILED, FINISHED, REJECTED


@settings(max_examples=examples(200), deadline=None)
@given(scenarios())
def test_jumping_is_stepping(scenario):
    requests, engine = scenario
    jumped = simulate(requests, engine, jump=True)
    stepped = simulate(requests, engine, jump=False)
    same_logs(jumped.log, stepped.log)
    assert jumped.summary == stepped.summary


@pytest.mark.slow
def test_the_random_scenarios_reach_what_they_are_for():
    """Of a few hundred, some are preempted, padded, refused, left by clients, served from a prefix cache, share a
    device, go from one replica to another, or are swapped while others run."""
    reached: Counter[str] = Counter()

    @settings(max_examples=300, deadline=None, database=None)
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
            handed_over=bool(result.log.moves),
            swapped_aside=preempted and limits.swap_overlap,
        )

    for number in range(6):  # what is drawn depends on the policies that other tests have registered
        seed(number)(look)()
        if min(reached.values()) >= 3:
            break
    assert min(reached.values()) >= 3, reached


def test_replicas_that_end_at_the_same_time_take_their_turns_in_order():
    """A client answered by the second replica sends to the first, which has begun its next iteration by then."""
    requests = Lists.of(np.zeros(3), 1, [9, 4, 2], Loop(2))
    steady = deployment(replicas=2, cost=LinearCost(2.0**-8, 0.0, 0.0, 0.0, 0.0))
    for jump in (True, False):
        columns = simulate(requests, steady, jump=jump).request_columns
        assert columns["replica"].tolist() == [0, 1, 0]
        assert columns["arrival_s"][2] == 4 * 2.0**-8
        assert columns["first_scheduled_s"][2] == 5 * 2.0**-8


def test_a_client_that_leaves_does_not_move_the_host_phase_of_a_replica_that_shares():
    """Another replica joins the device while an iteration is under way, and then a client of that iteration leaves."""
    requests = Lists.of([0.0, 0.1], 5, [100, 50], patience_s=np.array([0.1005, np.inf]))
    shared = deployment(replicas=2, replicas_per_device=2)
    same_logs(simulate(requests, shared).log, simulate(requests, shared, jump=False).log)


def test_with_late_output_a_slot_is_free_one_iteration_after_the_last_token():
    """One slot, two requests: the second begins when the iteration after the first one's last token has ended."""
    tick = 2.0**-8
    cost = LinearCost(tick, 0.0, 0.0, 0.0, 0.0)
    for output in (1, 3):
        requests = Lists.of([0.0, 0.0], 5, [output, output])
        for late in (False, True):
            engine = deployment(cost=cost, max_num_seqs=1, late_output=late)
            for jump in (True, False):
                columns = simulate(requests, engine, jump=jump).request_columns
                first, second = columns["finish_s"][0], columns["first_scheduled_s"][1]
                assert (first, second) == (output * tick, (output + late) * tick)


def test_with_late_output_an_iteration_with_prompts_says_how_many_outputs_are_unread():
    """The second prompt comes while the first sequence decodes; alone and without late output nothing is unread."""
    tick = 2.0**-8
    cost = LinearCost(tick, 0.0, 0.0, 0.0, 0.0)
    requests = Lists.of([0.0, 2.5 * tick], 5, [6, 6])
    for late in (False, True):
        (table,) = simulate(requests, deployment(cost=cost, late_output=late)).tables
        prompts = table.columns["prefill_seqs"] > 0
        assert table.columns["unread_seqs"][prompts].tolist() == [0, int(late)]
        assert not table.columns["unread_seqs"][~prompts].any()


def test_with_late_output_a_finished_sequence_makes_room_without_a_preemption():
    """The youngest is the first to go, and it is done already (``_schedule_running`` of vllm/core/scheduler.py)."""
    requests = Lists.of([0.0, 0.0], 1, [3, 2])
    tight = deployment(
        num_gpu_blocks=5,
        block_size=1,
        watermark=0.0,
        late_output=True,
        cost=LinearCost(2.0**-8, 0.0, 0.0, 0.0, 0.0),
    )
    for jump in (True, False):
        columns = simulate(requests, tight, jump=jump).request_columns
        assert columns["preemptions"].tolist() == [0, 0]
        assert columns["finish_s"].tolist() == [3 * 2.0**-8, 2 * 2.0**-8]


def test_a_client_that_leaves_while_its_last_token_is_computed_has_no_answer():
    """The whole answer is one token, then two: the client is gone before the iteration with the last one ends."""
    cost = LinearCost(2.0**-8, 0.0, 0.0, 0.0, 0.0)
    for output, patience in ((1, 2.0**-9), (2, 3 * 2.0**-9)):
        requests = Lists.of([0.0], 5, [output], patience_s=np.array([patience]))
        for jump in (True, False):
            columns = simulate(requests, deployment(cost=cost), jump=jump).request_columns
            assert columns["status"].tolist() == [FAILED]
            assert np.isnan(columns["finish_s"]).all()


def test_what_routing_and_admission_see_is_as_of_now():
    """Blocks taken in the iterations of a jump that are over count for a limit on KV utilisation."""
    limits = lookup("admission", "limits")
    requests = Lists.of([0.0, 0.2], 16, [120, 1])
    for least, status in ((0.4, REJECTED), (0.6, FINISHED)):
        guarded = deployment(
            num_gpu_blocks=10,
            admission=limits.cls(limits.options(max_kv_utilization=least)),
            max_model_len=300,
        )
        for jump in (True, False):
            assert simulate(requests, guarded, jump=jump).request_columns["status"][1] == status


def test_a_crowd_is_preempted_and_a_lone_request_jumps():
    rng = np.random.default_rng(1)
    crowd = Lists.of(np.zeros(40), rng.integers(1, 100, 40), rng.integers(50, 200, 40))
    result = simulate(crowd, deployment(num_gpu_blocks=40, max_num_seqs=16))
    assert result.summary["kv"]["preemptions"] > 10
    lone = simulate(Lists.of([0.0], 100, 500), deployment())
    assert len(lone.tables[0]) == 500
    assert lone.log.events < 8

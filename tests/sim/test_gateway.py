"""A gateway answers before replicas do: when, what of, and what that does to those who wait for the answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.invariants import same_logs, simulate
from support.programs import programs
from support.scenarios import Choice
from support.synthetic import LinearCost, Lists, Loop, deployment

from simslm.policies.gateway import Answer
from simslm.sim.deployment import Deployment
from simslm.sim.log import FAILED, FINISHED
from simslm.workload.calls import Call

SECOND = LinearCost(1.0, 0.0, 0.0, 0.0, 0.0)
"""Every iteration takes a second, so that a request of n tokens alone on a replica takes n seconds."""


def cached(**options: Any) -> Deployment:
    """One replica behind a response cache that answers after a quarter of a second."""
    gateway = Choice("gateway", "response-cache", {"latency_s": 0.25, **options})
    return replace(deployment(cost=SECOND), gateway=gateway.make)


def asked(arrival_s: Any, texts: str, output: Any = 3, **more: Any) -> Lists:
    """Prompts of 16 tokens, each the text of a letter."""
    units = [(ord(text),) for text in texts]
    return Lists.of(arrival_s, 16, output, units=units, unit_tokens=16, **more)


def told(requests: Any, served: Deployment) -> Any:
    """The run, in jumps and step by step to the same bits."""
    result = simulate(requests, served)
    same_logs(result.log, simulate(requests, served, jump=False).log)
    return result


def test_an_equal_prompt_is_answered_whole_after_the_latency():
    """a and b take 3 s each; the second a comes when its answer is known, and needs no replica."""
    result = told(asked([0, 10, 20], "aba"), cached())
    columns, summary = result.request_columns, result.summary
    assert columns["replica"].tolist() == [0, 0, -1]
    assert columns["finish_s"].tolist() == [3, 13, 20.25]
    assert columns["first_token_s"].tolist() == [1, 11, 20.25]
    assert np.isnan(columns["first_scheduled_s"][2])
    assert columns["energy_j"][2] == 0
    assert summary["gateway"] == {"answered": 1, "answered_share": 1 / 3}
    assert summary["makespan_s"] == 20.25
    assert summary["requests"]["finished"] == 3
    assert summary["throughput"]["output_tokens_per_s"] == 9 / 20.25
    assert summary["itl_s"]["mean"] == pytest.approx(4 / 6)
    assert summary["population"]["itl_s"] == 6
    assert summary["population"]["queue_s"] == 2
    assert len(result.tables[0]) == 6


def test_an_answer_may_go_out_at_a_pace():
    result = told(asked([0, 10], "aa", 5), cached(tokens_per_s=8.0))
    columns = result.request_columns
    assert columns["first_token_s"][1] == 10.25
    assert columns["finish_s"][1] == 10.75
    assert columns["tpot_s"][1] == 0.125
    assert result.summary["itl_s"]["mean"] == pytest.approx((4 * 1 + 4 * 0.125) / 8)


def test_equal_requests_under_way_are_all_served():
    columns = told(asked([0, 1], "aa"), cached()).request_columns
    assert columns["replica"].tolist() == [0, 0]


def test_an_answer_is_used_up_to_its_time_to_live():
    """Known from 3 s on, for 5 s: asked at 8 s it is used, asked a second later it is not."""
    columns = told(asked([0, 8, 9], "aaa"), cached(ttl_s=5.0)).request_columns
    assert columns["replica"].tolist() == [0, -1, 0]


def test_the_least_recently_used_goes_first():
    """Two are kept: a, asked for again, stays when c comes, and b goes."""
    columns = told(asked([0, 10, 20, 30, 40, 50], "abacab"), cached(max_entries=2)).request_columns
    assert columns["replica"].tolist() == [0, 0, -1, 0, -1, 0]


def test_a_prompt_that_the_hashes_do_not_cover_is_not_known():
    requests = asked([0, 10], "aa")
    requests.prompt_tokens[:] = 17
    assert told(requests, cached()).request_columns["replica"].tolist() == [0, 0]


def test_clients_of_a_closed_loop_go_on_from_the_gateways_answers():
    """One client: 3 s of service, then an answer of 0.25 s for each, and half a second of thought after each."""
    result = told(asked([0, 0, 0], "aaa", loop=Loop(1, 0.5)), cached())
    assert result.request_columns["arrival_s"].tolist() == [0, 3.5, 4.25]
    assert result.request_columns["finish_s"].tolist() == [3, 3.75, 4.5]


def test_calls_go_on_from_the_gateways_answers():
    """Two equal programs: the second's first call is answered by the gateway, and its second starts from there."""
    program = [Call(16, 3), Call(16, 3, after=[0], delay_s=1.0)]
    requests = programs([program, program], [0.0, 20.0])
    requests.units, requests.unit_tokens = [(1,), (2,), (1,), (3,)], 16
    columns = told(requests, cached()).request_columns
    assert columns["replica"].tolist() == [0, 0, -1, 0]
    assert columns["arrival_s"].tolist() == [0, 4, 20, 21.25]


def test_a_client_may_leave_before_the_gateway_answers():
    requests = asked([0, 10, 20], "aaa", patience_s=np.array([np.inf, 0.125, 0.5]))
    result = told(requests, cached())
    assert result.request_columns["status"].tolist() == [FINISHED, FAILED, FINISHED]
    assert np.isnan(result.request_columns["first_token_s"][1])
    assert result.log.answered == 1


def test_a_gateway_is_asked_before_it_matters_who_could_serve():
    """A prompt that no replica could hold is answered, and one that is not answered is rejected."""

    class Odd:
        needs_units = False

        def answer(self, request: Any) -> Answer | None:
            return Answer(0.5) if request.request_id % 2 else None

        def finished(self, request: Any, at_s: float) -> None: ...

    requests = Lists.of([0, 0], 10_000, 2)
    counts = told(requests, replace(deployment(cost=SECOND), gateway=Odd)).summary["requests"]
    assert (counts["finished"], counts["rejected"]) == (1, 1)


def test_a_gateway_that_answers_everything_needs_no_replica():
    class All:
        needs_units = False

        def answer(self, request: Any) -> Answer | None:
            return Answer(0.5)

        def finished(self, request: Any, at_s: float) -> None:
            raise AssertionError("nothing is served")

    summary = told(Lists.of([0, 1], 5, 2), replace(deployment(), gateway=All)).summary
    assert summary["makespan_s"] == 1.5
    assert summary["energy"]["total_j"] == summary["energy"]["idle_j"] == pytest.approx(60 * 1.5)
    assert summary["kv"]["cached_prompt_share"] == 0


def test_what_arrives_is_shown_with_its_program_stage_and_deadline():
    seen = []

    class Looking:
        needs_units = False

        def answer(self, request: Any) -> Answer | None:
            seen.append((request.request_id, request.program, request.stage, request.deadline_s))
            return None

        def finished(self, request: Any, at_s: float) -> None: ...

    program = [Call(16, 2), Call(16, 2, after=[0])]
    requests = programs([program, program], [0.0, 10.0])
    requests.patience_s = np.array([np.inf, np.inf, 50.0, np.inf])
    served = replace(deployment(cost=SECOND), gateway=Looking, e2e_slo_s=np.array([60.0, np.inf, 60.0, 60.0]))
    simulate(requests, served)
    assert seen == [(0, 0, 0, 60.0), (1, 0, 1, np.inf), (2, 1, 0, 60.0), (3, 1, 1, 72.0)]

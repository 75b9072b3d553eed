"""Which group serves a request, and what it means that another serves it anew."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.invariants import priced, same_logs, simulate
from support.observed import observe
from support.programs import program_workloads, programs
from support.scenarios import Choice, examples
from support.synthetic import FixedDemand, LinearCost, Lists, Loop, deployment

from simslm.errors import SimslmError
from simslm.policies.draws import BLOCK, KEPT_BLOCKS, Numbered
from simslm.policies.group_routing import GroupRouting
from simslm.sim.deployment import Deployment
from simslm.sim.log import FAILED, FINISHED, REJECTED, GroupCounts
from simslm.workload.calls import Call

NAN = float("nan")


def ticking(seconds: float) -> LinearCost:
    """A cost of so many seconds for every iteration."""
    return LinearCost(seconds, 0.0, 0.0, 0.0, 0.0)


def groups(router: Any, *costs: float, **options: Any) -> Deployment:
    """One replica for each cost, by itself on a device: every iteration of it takes so many seconds."""
    served = deployment(**options)
    made = tuple(
        replace(served.groups[0], name=f"group {i}", devices=(i,), cost=ticking(each))
        for i, each in enumerate(costs)
    )
    return replace(served, groups=made, group_router=router if callable(router) else router.make)


def cascade(*acceptance: float, verdict_s: float = 0.0) -> Choice:
    return Choice("group-routing", "cascade", {"acceptance": acceptance, "verdict_s": verdict_s})


NEVER = cascade(0.0)


def told(requests: Lists, served: Deployment) -> Any:
    """The run, in jumps and step by step to the same bits."""
    result = simulate(requests, served)
    same_logs(result.log, simulate(requests, served, jump=False).log)
    return result


# ---- escalation ----------------------------------------------------------------------------------------------


def test_a_request_that_is_escalated_counts_once_from_its_first_arrival():
    """Three tokens: 3 s on the first group, then, anew, 6 s on the second."""
    result = told(Lists.of([1.0], 16, 3), groups(NEVER, 1.0, 2.0))
    columns = {name: column[0] for name, column in result.request_columns.items()}
    assert columns["arrival_s"] == columns["first_scheduled_s"] == 1
    assert columns["first_token_s"] == 6
    assert columns["finish_s"] == 10
    assert (columns["ttft_s"], columns["e2e_s"], columns["tpot_s"], columns["queue_s"]) == (5, 9, 2, 0)
    assert (columns["replica"], columns["escalations"]) == (1, 1)
    assert result.log.moves == ((0, 0, 1, 4.0, "escalation"),)
    assert result.log.groups == (GroupCounts("group 0", 1, 0, 1), GroupCounts("group 1", 1, 1, 0))
    assert result.summary["group_routing"]["escalations"] == 1
    assert result.summary["requests"]["arrived"] == 1
    assert result.summary["throughput"]["output_tokens_per_s"] == pytest.approx(3 / 9)
    assert result.summary["population"]["itl_s"] == 2
    assert result.summary["itl_s"]["mean"] == 2
    assert [float(table.columns["prefill_tokens"].sum()) for table in result.tables] == [16, 16]
    assert columns["energy_j"] == pytest.approx(300 * (3 + 6))


def test_an_accepted_answer_of_a_group_that_is_judged_goes_out_whole():
    """It is held back until its last token, and its verdict; the last group's goes out as it is computed."""
    result = told(Lists.of([0.0], 16, 3), groups(cascade(1.0), 1.0, 2.0))
    columns = result.request_columns
    assert columns["first_token_s"] == columns["finish_s"] == 3
    assert columns["tpot_s"] == 0
    assert columns["escalations"] == 0
    assert result.summary["itl_s"]["max"] == 0
    assert result.summary["population"]["itl_s"] == 2


@pytest.mark.parametrize("accepted", [1.0, 0.0])
def test_a_verdict_takes_its_time(accepted):
    """An answer of 3 s, a quarter of a second for the verdict, and 6 s more where it is not accepted."""
    columns = told(
        Lists.of([0.0], 16, 3), groups(cascade(accepted, verdict_s=0.25), 1.0, 2.0)
    ).request_columns
    assert columns["finish_s"] == (3.25 if accepted else 9.25)
    assert columns["first_token_s"] == (3.25 if accepted else 5.25)


def test_three_groups_are_tried_in_order():
    result = told(Lists.of([0.0], 16, 1), groups(cascade(0.0, 0.0), 1.0, 2.0, 4.0))
    assert result.request_columns["finish_s"] == 7
    assert result.request_columns["escalations"] == 2
    assert [group.escalated for group in result.log.groups] == [1, 1, 0]


def test_the_stated_share_is_accepted():
    count = 4000
    requests = Lists.of(np.arange(count) * 4.0, 4, 1)
    result = simulate(requests, groups(cascade(0.75), 1.0, 1.0))
    assert result.log.groups[0].answered == pytest.approx(0.75 * count, abs=4 * (count * 0.75 * 0.25) ** 0.5)


@pytest.mark.parametrize(
    ("patience_s", "status", "first_token_s", "groups_asked"),
    [
        (2.0, FAILED, NAN, 1),
        (3.125, FAILED, NAN, 1),
        (4.0, FAILED, NAN, 2),
        (7.0, FAILED, 5.25, 2),
        (20.0, FINISHED, 5.25, 2),
    ],
)
def test_patience_runs_from_the_first_arrival(patience_s, status, first_token_s, groups_asked):
    """The client leaves: during the first answer, its verdict, the second answer before and after its first token."""
    requests = Lists.of([0.0], 16, 3)
    requests.patience_s = np.array([patience_s])
    result = told(requests, groups(cascade(0.0, verdict_s=0.25), 1.0, 2.0))
    assert result.request_columns["status"] == status
    assert result.request_columns["first_scheduled_s"] == 0
    assert np.array_equal(result.request_columns["first_token_s"], [first_token_s], equal_nan=True)
    assert sum(group.requests for group in result.log.groups) == groups_asked


def test_clients_of_a_closed_loop_wait_for_the_answer_that_goes_out():
    columns = told(Lists.of([0, 0], 16, 3, Loop(1, 1.0)), groups(NEVER, 1.0, 2.0)).request_columns
    assert columns["arrival_s"].tolist() == [0, 10]
    assert columns["finish_s"].tolist() == [9, 19]


def test_calls_of_a_program_wait_for_the_answer_that_goes_out():
    requests = programs([[Call(16, 3), Call(16, 3, after=[0], delay_s=0.5)]], [0.0])
    columns = told(requests, groups(NEVER, 1.0, 2.0)).request_columns
    assert columns["arrival_s"].tolist() == [0, 9.5]


def test_an_answer_goes_out_where_the_next_group_does_not_let_the_request_in():
    served = groups(cascade(0.0, verdict_s=0.25), 1.0, 2.0)

    class Closed:
        def admits(self, request: Any, replica: Any) -> bool:
            return False

    last = served.groups[1]
    shut = replace(last, policies=lambda: replace(last.policies(), admission=Closed()))
    result = told(Lists.of([0.0], 16, 3), replace(served, groups=(served.groups[0], shut)))
    assert result.request_columns["status"] == FINISHED
    assert result.request_columns["finish_s"] == result.request_columns["first_token_s"] == 3.25
    assert result.request_columns["replica"] == 0
    assert result.log.groups[1].requests == 0


def test_what_both_groups_had_cached_adds_up():
    """The third request finds 16 of its 17 tokens in the caches of both groups."""
    requests = Lists.of([0.0, 20.0], 17, 2, units=[(1, 2), (1, 3)], unit_tokens=16)
    result = told(requests, groups(NEVER, 1.0, 2.0, prefix_caching=True))
    assert result.request_columns["cached_prompt_tokens"].tolist() == [0, 32]
    assert result.summary["kv"]["cached_prompt_share"] == 32 / (4 * 17)


def test_the_answers_of_a_prefill_group_are_held_back_on_its_decode_group():
    served = groups(cascade(1.0), 1.0, 1.0, 2.0)
    first, decode, last = served.groups
    pair = (replace(first, role="prefill", decode_group=1), replace(decode, role="decode"))
    result = told(Lists.of([0.0], 16, 3), replace(served, groups=(*pair, last)))
    assert result.request_columns["first_token_s"] == result.request_columns["finish_s"] == 3
    assert result.summary["itl_s"]["max"] == 0


def test_a_decode_group_treats_all_answers_alike():
    served = groups(cascade(1.0), 1.0, 1.0, 2.0)
    first, last, decode = served.groups
    both = [replace(group, role="prefill", decode_group=2) for group in (first, last)]
    with pytest.raises(SimslmError, match="a decode group of its own"):
        simulate(Lists.of([0.0], 16, 3), replace(served, groups=(*both, replace(decode, role="decode"))))


def test_a_run_that_is_stopped_says_of_requests_under_way_what_clients_saw():
    """Stopped while the second request is on its second group: no token of it has gone out."""
    stop: list[Any] = []
    served = groups(NEVER, 1.0, 2.0)

    class Stopping(GroupRouting):
        escalates = True

        def __init__(self) -> None:
            self.policy = NEVER.make()

        def begin(self, groups: Any) -> Any:
            return self.policy.begin(groups)

        def choose(self, request: Any, groups: Any) -> int:
            if request.request_id == 2:
                stop[0]()
            return 0

        def escalate(self, request: Any, answer: Any, groups: Any) -> int | None:
            return self.policy.escalate(request, answer, groups)

    requests = Lists.of([0.0, 3.5, 8.0], 16, 2)
    given = replace(served, group_router=Stopping)
    log = observe(requests, given, priced(given), slo={}, on_start=stop.append).log
    assert log.interrupted
    assert log.requests.finish_s[0] == 6
    assert list(log.requests.first_scheduled_s)[:2] == [0, 3.5]
    assert np.isnan(list(log.requests.first_token_s)[1:]).all()


def test_a_policy_that_names_another_group_than_it_was_offered_is_found_out():
    class Astray(GroupRouting):
        def choose(self, request: Any, groups: Any) -> int:
            return 7

    with pytest.raises(SimslmError, match="named group 7, which is not among those it was offered: 0, 1"):
        simulate(Lists.of([0.0], 16, 3), groups(Astray, 1.0, 2.0))


# ---- choice --------------------------------------------------------------------------------------------------


def test_a_request_goes_to_groups_that_can_serve_it():
    """The second group takes longer requests than the first, and none takes the longest."""
    served = groups(cascade(1.0), 1.0, 2.0)
    short, long = (replace(g, max_model_len=most) for g, most in zip(served.groups, (20, 40), strict=True))
    result = told(Lists.of([0.0] * 3, [16, 30, 50], 3), replace(served, groups=(short, long)))
    assert result.request_columns["replica"].tolist() == [0, 1, -1]
    assert result.request_columns["status"].tolist() == [FINISHED, FINISHED, REJECTED]


def test_an_answer_is_not_judged_where_no_other_group_could_serve_the_request():
    served = groups(NEVER, 1.0, 2.0)
    large, small = (replace(g, max_model_len=most) for g, most in zip(served.groups, (40, 20), strict=True))
    result = told(Lists.of([0.0], 30, 3), replace(served, groups=(large, small)))
    assert result.request_columns["finish_s"] == 3
    assert result.request_columns["escalations"] == 0


def shared(*shares: float, **options: Any) -> Deployment:
    served = groups(Choice("group-routing", "shares"), *[2.0**-8] * len(shares), **options)
    return replace(
        served,
        groups=tuple(replace(g, share=share) for g, share in zip(served.groups, shares, strict=True)),
        group_router=lambda: Choice("group-routing", "shares").make(seed=5),
    )


def test_shares_are_drawn_by_number_as_all_at_once():
    requests = Lists.of(np.arange(3000.0), 4, 1)
    draws = np.random.default_rng(5).random(3000)
    ends = np.cumsum(np.array([2.0, 1.0, 3.0]) / 6.0)[:-1]
    replicas = told(requests, shared(2, 1, 3)).request_columns["replica"]
    assert replicas.tolist() == np.searchsorted(ends, draws, side="right").tolist()


@settings(max_examples=examples(20), deadline=None)
@given(program_workloads())
def test_a_program_goes_to_one_group_whenever_its_requests_arrive(requests):
    result = simulate(requests, shared(2, 1))
    draws = np.random.default_rng(5).random(requests.programs.program_of.max() + 1)
    drawn = np.searchsorted([2 / 3], draws, side="right")[requests.programs.program_of]
    columns = result.request_columns
    served = columns["replica"] >= 0
    assert np.array_equal(columns["replica"][served], drawn[columns["request_id"]][served])


def test_a_request_that_its_drawn_group_cannot_serve_goes_to_one_that_can():
    served = shared(1, 1)
    small = replace(served.groups[0], max_model_len=10)
    requests = Lists.of(np.arange(200.0), [4, 20] * 100, 1)
    result = told(requests, replace(served, groups=(small, served.groups[1])))
    drawn = np.searchsorted([0.5], np.random.default_rng(5).random(200), side="right")
    assert (
        result.request_columns["replica"].tolist() == np.where(requests.prompt_tokens > 10, 1, drawn).tolist()
    )


def test_numbered_draws_are_those_of_the_stream_in_any_order():
    numbered, straight = Numbered(np.random.default_rng(3)), np.random.default_rng(3)
    drawn = straight.random(BLOCK * (KEPT_BLOCKS + 3))
    for number in (5, 0, BLOCK * (KEPT_BLOCKS + 2) + 7, 5, *range(0, len(drawn), BLOCK), BLOCK - 1):
        assert numbered[number] == drawn[number]


def test_the_least_loaded_group_has_the_fewest_requests_per_replica():
    """Two replicas against one: 2, 1, 2, 2, 1, 2 of six requests that all stay."""
    served = groups(Choice("group-routing", "least-loaded"), 1.0, 1.0)
    pair = replace(served.groups[0], devices=(0, 1))
    requests = Lists.of(np.arange(6) * 2.0**-4, 16, 100)
    replicas = told(requests, replace(served, groups=(pair, served.groups[1]))).request_columns["replica"]
    assert (replicas == 2).tolist() == [False, True, False, False, True, False]


def test_the_soonest_group_is_where_the_first_token_is_expected_first():
    """A group twice as fast gets the first two: the second waits there for an iteration of 1 s, else 2 s; the third is
    expected after as long on both, and the next token decides."""
    served = groups(Choice("group-routing", "soonest"), 2.0, 1.0, max_num_batched_tokens=16)
    requests = Lists.of([0.0, 0.0, 0.0, 0.0], 16, 3)
    replicas = told(requests, served).request_columns["replica"].tolist()
    assert replicas == [1, 1, 0, 1]


# ---- what policies see -----------------------------------------------------------------------------------------


class Looking(GroupRouting):
    """Notes what it sees of the first group, and sends all requests there."""

    seen: list[Any]

    def choose(self, request: Any, groups: Any) -> int:
        replica = groups[0].replicas[0]
        self.seen.append(
            (
                replica.pending_prefill_tokens,
                replica.free_blocks,
                replica.ttft_estimate_s(request),
                replica.tpot_estimate_s(request),
            )
        )
        return 0


def looked(requests: Lists, *, jump: bool = True, **options: Any) -> list[Any]:
    """What a policy saw at each arrival at one replica with a cost of all terms."""
    router = type("Watching", (Looking,), {"seen": []})
    served = deployment(**options)
    cost = LinearCost(1.0, 0.5, 0.001, 0.01, 0.0)
    both = tuple(replace(served.groups[0], devices=(i,), cost=cost) for i in range(2))
    simulate(requests, replace(served, groups=both, group_router=router), jump=jump)
    return router.seen  # type: ignore[attr-defined]


def test_pending_tokens_and_estimates_follow_from_what_runs_and_waits():
    """One iteration takes 1 s, 0.5 s for each sequence that decodes, 0.001 s for each of its tokens in the cache and
    0.01 s for each token of a prompt; at most 32 tokens. At 2.5 s request 0 (16 prompt tokens) has its first token
    since 1.16 s, so that its first decode iteration (1 + 0.5 + 0.016 s) runs until 2.676 s."""
    requests = Lists.of([0.0, 0.5, 2.5, 2.5], [16, 20, 40, 8], 50)
    first, second, third, fourth = looked(
        requests, max_num_batched_tokens=32, max_num_seqs=32, num_gpu_blocks=100
    )
    assert first == (0, 100, pytest.approx(1.16), pytest.approx(1.5 + 0.016))
    assert second == (16, 99, pytest.approx((1 + 0.32) + (1 + 0.04)), pytest.approx(1 + 2 * 0.5 + 0.036))
    assert third[0] == 20
    fourth_pending = 20 + 40
    rest = fourth_pending + 8 - 2 * 31
    expected = 2 * (1.5 + 0.016 + 0.31) + (1.5 + 0.016 + 0.01 * rest)
    assert fourth == (fourth_pending, 97, pytest.approx(expected), pytest.approx(1 + 4 * 0.5 + 0.001 * 84))


@settings(max_examples=examples(60), deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([4, 64]), st.sampled_from([None, 20]))
def test_estimates_are_the_same_in_the_middle_of_a_jump(seed, slots, kept):
    rng = np.random.default_rng(seed)
    prompts, outputs = rng.integers(1, 60, (2, 20))
    requests = Lists.of(np.cumsum(rng.exponential(20, 20)), prompts, outputs)
    options: dict[str, Any] = {"max_num_seqs": slots, "num_gpu_blocks": 40, "kept_tokens": kept}
    assert looked(requests, **options) == looked(requests, jump=False, **options)


def test_nothing_is_expected_of_prompts_on_a_replica_that_only_decodes():
    served = groups(NEVER, 1.0, 1.0)
    demand: Any = FixedDemand()
    seen = []

    class Router:
        looks_at_replicas = True

        def choose(self, request: Any, replicas: Any) -> int:
            seen.append(replicas[0].ttft_estimate_s(request))
            return 0

    first, decode = (replace(g, demand=demand) for g in served.groups)
    pair = (
        replace(first, role="prefill", decode_group=1),
        replace(decode, role="decode", devices=(1, 2), router=Router),
    )
    simulate(Lists.of([0.0], 16, 3), replace(served, groups=pair, group_router=None))
    assert seen == [0.0]

"""What every registered policy keeps to; a new one is held to it by being registered, without being named here."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from inspect import isfunction
from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from support.invariants import same_logs, simulate
from support.scenarios import DRAWN, Choice, examples, policies, scenarios
from support.views import (
    SeenGroup,
    SeenLoad,
    SeenRequest,
    Windowed,
    WindowedGateway,
    WindowedGroupRouter,
    WindowedRouter,
    arriving,
    loads,
    members,
    prompts,
    replica_views,
)

from simslm.policies.fleet import STATES, GroupView, MemberView, RequestView
from simslm.policies.gateway import Answer
from simslm.policies.group_routing import GroupAnswer, GroupLoad
from simslm.policies.partition import PhaseWindow, Split
from simslm.policies.plan import Plan, Prompt, ReplicaView
from simslm.policies.power import PowerView
from simslm.policies.registry import PolicyOptions, Registered, registered
from simslm.policies.route import ReplicaOutlook, RoutedRequest
from simslm.policies.speculation import SpeculationView

EVERY = pytest.mark.parametrize("entry", registered(), ids=lambda entry: f"{entry.kind}-{entry.name}")

UNTIMED = settings(deadline=None)


def each(kind: str) -> Any:
    """Runs a test for every policy of a kind."""
    return pytest.mark.parametrize("name", [entry.name for entry in registered(kind)])


# ---- all kinds ---------------------------------------------------------------------------------------------


@EVERY
def test_says_what_it_does_and_where_that_is_from(entry):
    assert re.search(r"\([^()]+\)\.$", entry.summary), "the first line ends with its source in parentheses"
    assert len(entry.summary) <= 120


@EVERY
def test_is_a_file_of_its_own(entry):
    package, module = entry.cls.__module__.rsplit(".", 2)[-2:]
    assert (package, module) == (entry.kind.replace("-", "_"), entry.name.replace("-", "_"))
    assert Counter(other.cls.__module__ for other in registered())[entry.cls.__module__] == 1


@EVERY
def test_every_option_has_a_default_and_a_description(entry):
    assert issubclass(entry.options, PolicyOptions)
    for name, option in entry.options.model_fields.items():
        assert option.description, name
        assert not option.is_required(), name


@EVERY
@settings(max_examples=examples(8), deadline=None)
@given(data=st.data())
def test_serves_any_workload_whole_alike_in_jumps_and_seeing_only_what_is_shown(entry, data):
    """Every invariant holds, jumps and single iterations give the same bits, and so do policies whose views end
    at their protocols: none reads the true output length, or sets anything."""
    requests, deployment = data.draw(scenarios(**{entry.kind: entry.name}))
    jumped = simulate(requests, deployment)
    same_logs(jumped.log, simulate(requests, deployment, jump=False).log)
    groups = tuple(
        replace(
            group,
            policies=lambda group=group: Windowed(group.policies()).as_policies(),
            router=lambda group=group: WindowedRouter(group.router()),
        )
        for group in deployment.groups
    )
    gateway, router = deployment.gateway, deployment.group_router
    windowed = replace(
        deployment,
        groups=groups,
        gateway=None if gateway is None else lambda: WindowedGateway(gateway()),
        group_router=None if router is None else lambda: WindowedGroupRouter(router()),
    )
    same_logs(jumped.log, simulate(requests, windowed).log)


class SabotageError(Exception):
    """What a sabotaged policy raises."""


def never_asked(entry: Registered) -> bool:
    """A policy that says it is never asked: a split that stays, priorities that do not change."""
    policy = Choice(entry.kind, entry.name).make()
    return 0 in (getattr(policy, "window", None), getattr(policy, "every", None))


@pytest.mark.slow
@EVERY
def test_a_policy_that_raises_is_found_out(entry, monkeypatch):
    """Each method by itself: the random scenarios ask every policy of every kind all that it may be asked."""
    methods = [name for name, value in vars(entry.cls).items() if name[0] != "_" and isfunction(value)]
    assert methods
    if never_asked(entry):
        return
    for name in methods:
        if name == "yields" and not entry.cls.displaces:
            continue

        def sabotage(*_given: Any) -> Any:
            raise SabotageError(entry.name)

        @settings(max_examples=300, deadline=None, database=None, derandomize=True, phases=[Phase.generate])
        @given(scenarios(**{entry.kind: entry.name}))
        def serve(scenario: Any) -> None:
            simulate(*scenario)

        with monkeypatch.context() as patch:
            patch.setattr(entry.cls, name, sabotage)
            with pytest.raises(SabotageError):
                serve()


def test_a_kind_that_no_scenario_draws_is_found_out():
    """A new kind of policy fails the suite until random scenarios draw it."""
    assert {entry.kind for entry in registered()} <= DRAWN

    @settings(max_examples=1, database=None)
    @given(scenarios(weather="rain"))
    def serve(_scenario: Any) -> None:
        pass

    with pytest.raises(LookupError, match="teach tests/support"):
        serve()


@pytest.mark.parametrize(
    "protocol", [Prompt, ReplicaView, RoutedRequest, ReplicaOutlook, GroupLoad, SpeculationView]
)
def test_nothing_shown_tells_the_true_output_length(protocol):
    assert not {name for name in members(protocol) if "output" in name or "generated" in name}


# ---- batching ----------------------------------------------------------------------------------------------


def planned(data: st.DataObject, name: str) -> tuple[Choice, Any, Plan]:
    """A policy with some options, a view, and its plan."""
    choice = data.draw(policies("batching", name))
    view = data.draw(replica_views(whole_prompts=choice.make().whole_prompts))
    return choice, view, choice.make().plan(view)


@pytest.mark.slow
@each("batching")
@UNTIMED
@given(data=st.data())
def test_a_plan_depends_on_the_view_alone(name, data):
    choice, view, plan = planned(data, name)
    other = data.draw(replica_views(whole_prompts=choice.make().whole_prompts))
    policy = choice.make()
    for seen in (view, other, view):
        again = policy.plan(seen)
    assert (again.decode, again.chunks, again.tokens, again.admitted, again.padded_to) == (
        plan.decode,
        plan.chunks,
        plan.tokens,
        plan.admitted,
        plan.padded_to,
    )


@pytest.mark.slow
@each("batching")
@UNTIMED
@given(data=st.data())
def test_a_plan_keeps_to_sequences_and_tokens(name, data):
    _, view, plan = planned(data, name)
    assert view.decoding + len(view.partial) + plan.admitted <= view.max_num_seqs
    assert plan.tokens == sum(tokens for _, tokens in plan.chunks) + plan.decode * view.decoding
    alone = len(plan.chunks) == 1 and not (plan.decode and view.decoding)
    assert alone or max(plan.tokens, plan.padded_to * len(plan.chunks)) <= view.max_num_batched_tokens


@pytest.mark.slow
@each("batching")
@UNTIMED
@given(data=st.data())
def test_a_plan_keeps_to_blocks_and_watermark(name, data):
    _, view, plan = planned(data, name)
    running = view.decoding + len(view.partial)
    free = view.free_blocks - (view.decode_blocks if plan.decode else 0)
    for prompt, _ in plan.chunks:
        if prompt not in view.partial:
            free -= prompt.blocks
            assert free >= (view.watermark_blocks if running else 0)
            running += 1


@pytest.mark.slow
@each("batching")
@UNTIMED
@given(data=st.data())
def test_prompts_advance_once_in_order_and_by_what_they_have_left(name, data):
    choice, view, plan = planned(data, name)
    chosen = [prompt for prompt, _ in plan.chunks]
    old = [prompt for prompt in chosen if prompt in view.partial]
    new = [prompt for prompt in chosen if prompt not in view.partial]
    assert old == list(view.partial[: len(old)])
    assert new == list(view.waiting[: len(new)])
    assert plan.admitted == len(new)
    for prompt, tokens in plan.chunks:
        least = prompt.remaining if choice.make().whole_prompts else 1
        assert least <= tokens <= prompt.remaining
        assert not plan.padded_to or tokens <= plan.padded_to


@pytest.mark.slow
@each("batching")
@UNTIMED
@given(data=st.data())
def test_no_iteration_is_empty_while_something_can_run(name, data):
    _, view, plan = planned(data, name)
    if view.decoding or view.partial or (view.waiting and view.waiting[0].blocks <= view.free_blocks):
        assert not plan.empty
        assert plan.chunks or plan.decode
    else:
        assert plan.empty


@each("batching")
def test_who_holds_a_batch_reserves_its_blocks(name):
    policy = Choice("batching", name).make()
    assert policy.reserves_output or not policy.holds_batch


# ---- queue orders ------------------------------------------------------------------------------------------


@pytest.mark.slow
@each("queueing")
@UNTIMED
@given(data=st.data())
def test_an_order_that_has_the_urgent_first_does(name, data):
    order = Choice("queueing", name).make()
    one, other = (data.draw(prompts(i, 100)) for i in range(2))
    if order.urgent_first and one.priority < other.priority:
        assert order.key(one) < order.key(other)


@pytest.mark.slow
@each("queueing")
@UNTIMED
@given(data=st.data())
def test_keys_order_all_prompts_and_do_not_change_while_they_wait(name, data):
    """What is left to prefill, and the blocks for it, may change as prefixes come and go."""
    order = data.draw(policies("queueing", name)).make()
    seen = [data.draw(prompts(i, 50)) for i in range(data.draw(st.integers(1, 8)))]
    keys = [order.key(prompt) for prompt in seen]
    assert all(a <= b or b <= a for a in keys for b in keys)
    ordered = sorted(keys)
    assert all(a <= b for i, a in enumerate(ordered) for b in ordered[i:])
    assert keys == [order.key(replace(prompt, remaining=1, blocks=0)) for prompt in reversed(seen)][::-1]


# ---- admission ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@each("admission")
@UNTIMED
@given(data=st.data())
def test_admission_depends_on_what_is_seen_alone(name, data):
    choice = data.draw(policies("admission", name))
    seen = data.draw(st.lists(st.tuples(arriving(), loads), min_size=1, max_size=8))
    policy = choice.make()
    answers = [policy.admits(*pair) for pair in seen]
    assert all(answer in (True, False) for answer in answers)
    assert [policy.admits(*pair) for pair in reversed(seen)] == answers[::-1]
    assert [choice.make().admits(*pair) for pair in seen] == answers


# ---- routing -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@each("routing")
@UNTIMED
@given(data=st.data())
def test_a_router_names_a_replica_and_the_same_one_again_with_the_same_stream(name, data):
    choice = data.draw(policies("routing", name))
    count = data.draw(st.integers(1, 6))
    steps = st.tuples(arriving(), st.lists(loads, min_size=count, max_size=count).map(numbered))
    seen = data.draw(st.lists(steps, min_size=1, max_size=12))
    routers = [choice.make(seed=7) for _ in range(2)]
    for request, replicas in seen:
        chosen, same = (router.choose(request, replicas) for router in routers)
        assert isinstance(chosen, int)
        assert 0 <= chosen < count
        assert chosen == same


def numbered(loads: Sequence[SeenLoad]) -> tuple[SeenLoad, ...]:
    """The same, each with a number of its own."""
    return tuple(replace(load, index=index) for index, load in enumerate(loads))


@pytest.mark.slow
@each("routing")
@UNTIMED
@given(data=st.data())
def test_a_router_chooses_among_the_replicas_that_serve_however_many_those_are(name, data):
    """Replicas come and go between two requests."""
    router = data.draw(policies("routing", name)).make(seed=3)
    for _ in range(data.draw(st.integers(1, 12))):
        serving = data.draw(st.sets(st.integers(0, 5), min_size=1))
        seen = [replace(data.draw(loads), index=index) for index in sorted(serving)]
        chosen = router.choose(data.draw(arriving()), seen) if len(seen) > 1 else 0
        assert 0 <= chosen < len(seen)


class LookedError(Exception):
    """A policy looked at a replica."""


class Unseen:
    """A replica that may not be looked at."""

    def __getattr__(self, name: str) -> Any:
        raise LookedError(name)


@each("routing")
def test_a_router_looks_at_replicas_just_if_it_says_so(name):
    router = Choice("routing", name).make()
    hidden: list[Any] = [Unseen()] * 3
    requests = [SeenRequest(i, float(i), 10, 10, 0, i % 4, (i % 4,)) for i in range(40)]
    if router.looks_at_replicas:
        with pytest.raises(LookedError):
            router.choose(requests[0], hidden)
    else:
        assert {router.choose(request, hidden) for request in requests} == {0, 1, 2}


@each("routing")
def test_no_router_forgets_a_replica(name):
    """Equal replicas and unrelated requests: every replica gets some requests of a balanced router over time."""
    router, count = Choice("routing", name).make(), 4
    outstanding = np.zeros(count, dtype=int)
    for i in range(400):
        request = SeenRequest(i, float(i), 10, 10, 0, i, (i,))
        loads_now = numbered([SeenLoad(int(held), int(held), 0.0) for held in outstanding])
        outstanding[router.choose(request, loads_now)] += 1
    assert outstanding.min() >= 50


# ---- gateway and groups ------------------------------------------------------------------------------------


@each("gateway")
@UNTIMED
@given(data=st.data())
def test_a_gateway_answers_or_does_not_and_alike_with_the_same_stream(name, data):
    choice = data.draw(policies("gateway", name))
    seen = data.draw(st.lists(st.tuples(arriving(), st.booleans()), min_size=1, max_size=12))
    gateways = [choice.make(seed=7) for _ in range(2)]
    assert isinstance(gateways[0].needs_units, bool)
    for place, (request, served) in enumerate(seen):
        request = replace(request, request_id=place, arrival_s=float(place))
        answers = [gateway.answer(request) for gateway in gateways]
        assert answers[0] == answers[1]
        assert answers[0] is None or (isinstance(answers[0], Answer) and answers[0].latency_s >= 0)
        for gateway in gateways if served else ():
            gateway.finished(request, place + 0.5)


@pytest.mark.slow
@each("group-routing")
@UNTIMED
@given(data=st.data())
def test_a_group_router_names_groups_it_is_offered_and_the_same_again_with_the_same_stream(name, data):
    choice = data.draw(policies("group-routing", name))
    count = data.draw(st.integers(2, 5))
    busy = st.lists(loads, min_size=1, max_size=3).map(tuple)
    groups = [SeenGroup(i, f"group {i}", 1.0 + i, data.draw(busy)) for i in range(count)]
    routers = [choice.make(seed=7) for _ in range(2)]
    judged = [frozenset(router.begin(groups)) for router in routers]
    assert judged[0] == judged[1]
    assert judged[0] <= {group.number for group in groups}
    assert routers[0].escalates or not judged[0]
    for _ in range(data.draw(st.integers(1, 8))):
        request = data.draw(arriving())
        able = data.draw(st.lists(st.sampled_from(groups), min_size=2, unique_by=lambda group: group.number))
        able.sort(key=lambda group: group.number)
        chosen, same = (router.choose(request, able) for router in routers)
        assert chosen == same
        assert chosen in {group.number for group in able}
        rest = [group for group in able if group.number != chosen]
        if chosen in judged[0]:
            answer = GroupAnswer(chosen, 5, 1.0)
            target, again = (router.escalate(request, answer, rest) for router in routers)
            assert target == again
            assert target is None or target in {group.number for group in rest}


@each("group-routing")
def test_a_group_router_looks_at_replicas_just_if_it_says_so(name):
    router = Choice("group-routing", name).make()
    hidden = [SeenGroup(i, f"group {i}", 1.0, (Unseen(),)) for i in range(3)]
    router.begin(hidden)
    request = SeenRequest(0, 0.0, 10, 10, 0, 0, (0,))
    if router.looks_at_groups:
        with pytest.raises(LookedError):
            router.choose(request, hidden)
    else:
        assert router.choose(request, hidden) in range(3)


# ---- preemption --------------------------------------------------------------------------------------------


@pytest.mark.slow
@each("preemption")
@UNTIMED
@given(data=st.data())
def test_a_preemption_policy_names_one_that_runs_and_nobody_is_displaced_by_whom_he_displaces(name, data):
    policy = data.draw(policies("preemption", name)).make()
    running = [data.draw(prompts(i, 50)) for i in range(data.draw(st.integers(1, 8)))]
    victim = policy.victim(running)
    assert victim in range(len(running))
    assert policy.victim(running) == victim
    pairs = [(a, b) for a in running for b in running if policy.yields(a, b)]
    assert not {(b, a) for a, b in pairs} & set(pairs)


@pytest.mark.slow
@each("priorities")
@UNTIMED
@given(data=st.data())
def test_a_pattern_gives_everybody_a_priority_and_the_same_ones_again_with_the_same_stream(name, data):
    choice = data.draw(policies("priorities", name))
    seen = data.draw(st.lists(st.lists(st.integers(-3, 200), max_size=9), min_size=1, max_size=5))
    patterns = [choice.make(seed=3) for _ in range(2)]
    assert patterns[0].every >= 0
    for priorities in seen:
        drawn, again = (pattern.redraw(priorities) for pattern in patterns)
        assert drawn == again
        assert len(drawn) == len(priorities)
        assert all(isinstance(priority, int) for priority in drawn)


# ---- partition ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@each("partition")
@UNTIMED
@given(data=st.data())
def test_a_split_leaves_each_phase_a_part_and_depends_on_what_is_seen_alone(name, data):
    policy = data.draw(policies("partition", name)).make()
    part, seconds = st.floats(0.01, 1.0), st.lists(st.floats(0, 10), max_size=12)
    bound, waiting = st.none() | st.floats(0.1, 5), data.draw(seconds)
    seen = PhaseWindow(
        Split(data.draw(part), data.draw(part)),
        tuple(waiting),
        tuple(reversed(waiting)),
        tuple(data.draw(seconds)),
        data.draw(bound),
        data.draw(bound),
    )
    moved = policy.split(seen)
    assert moved == policy.split(seen)
    assert all(0 < each <= 1 for each in moved)


# ---- the control plane -------------------------------------------------------------------------------------


@st.composite
def groups_seen(draw: st.DrawFn, now_s: float = 0.0) -> GroupView:
    """Up to six replicas in any state, with requests that can be moved."""
    members = []
    for replica in range(draw(st.integers(1, 6))):
        state, blocks = draw(st.sampled_from(STATES)), draw(st.integers(1, 50))
        requests = tuple(
            RequestView(10 * replica + i, draw(st.integers(1, 99)), i, draw(st.integers(-1, 2)), i > 0)
            for i in range(draw(st.integers(0, 4)))
        )
        busy = len(requests) if state in ("serving", "draining") else 0
        members.append(
            MemberView(
                replica,
                state,
                busy,
                busy // 2,
                busy,
                draw(st.integers(0, blocks)),
                blocks,
                16,
                0,
                requests[:busy],
            )
        )
    return GroupView(now_s, tuple(members), draw(st.integers(0, 9)))


@pytest.mark.slow
@each("scaling")
@UNTIMED
@given(data=st.data())
def test_a_scaling_policy_says_the_same_of_the_same_and_more_of_more_requests(name, data):
    choice = data.draw(policies("scaling", name))
    times = sorted(data.draw(st.lists(st.floats(0, 100), min_size=1, max_size=6)))
    seen = [data.draw(groups_seen(now_s)) for now_s in times]
    answers = [[policy.wanted(view) for view in seen] for policy in (choice.make(), choice.make())]
    assert answers[0] == answers[1]
    assert all(isinstance(answer, int) and answer >= 0 for answer in answers[0])
    many = [
        replace(member, outstanding=900, queued=900, running=900, free_blocks=0) for member in seen[0].members
    ]
    crowded = replace(seen[0], members=tuple(many), held=900)
    assert choice.make().wanted(crowded) >= answers[0][0]


@each("migration")
@UNTIMED
@given(data=st.data())
def test_a_migration_policy_moves_what_is_shown_to_replicas_that_serve(name, data):
    choice = data.draw(policies("migration", name))
    seen = data.draw(groups_seen())
    orders = choice.make().moves(seen)
    assert list(orders) == list(choice.make().moves(seen))
    shown = {(each.request_id, member.replica) for member in seen.members for each in member.requests}
    serving = {member.replica for member in seen.of("serving")}
    for order in orders:
        assert (order.request_id, order.source) in shown
        assert order.target in serving - {order.source}


@each("faults")
@UNTIMED
@given(data=st.data())
def test_faults_come_in_order_to_replicas_that_there_are(name, data):
    choice, count = data.draw(policies("faults", name)), data.draw(st.integers(1, 5))
    found, again = (list(islice(choice.make(seed=4).faults(count), 50)) for _ in range(2))
    assert found == again
    assert [fault.at_s for fault in found] == sorted(fault.at_s for fault in found)
    assert all(fault.at_s >= 0 < fault.down_s and fault.replica in range(count) for fault in found)


@each("power")
@UNTIMED
@given(data=st.data())
def test_a_power_policy_chooses_one_of_the_clocks(name, data):
    choice = data.draw(policies("power", name))
    count = data.draw(st.integers(1, 5))
    watts = sorted(data.draw(st.lists(st.floats(10, 3000), min_size=count, max_size=count)), reverse=True)
    clocks = tuple(1000.0 - 100 * i for i in range(count))
    views = [
        PowerView(float(i), data.draw(st.integers(0, count - 1)), clocks, tuple(watts)) for i in range(3)
    ]
    levels = [[policy.level(view) for view in views] for policy in (choice.make(), choice.make())]
    assert levels[0] == levels[1]
    assert all(level in range(count) for level in levels[0])

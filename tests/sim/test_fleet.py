"""Replicas that come and go: cases computed by hand, and what a control plane without orders leaves as it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sim.test_streams import Kept, Pieces, observed
from support.control import CONTROL, controlled
from support.invariants import same_logs, simulate
from support.scenarios import deployments, examples, workloads
from support.synthetic import LinearCost, Lists, Loop, deployment

from simslm.errors import SimslmError
from simslm.policies.faults import Fault
from simslm.policies.fleet import GroupView
from simslm.policies.migration import Transfer
from simslm.policies.power import PowerView
from simslm.sim.control.spec import Faults, Migration, Power, Scaling
from simslm.sim.deployment import Deployment
from simslm.sim.log import FAILED, FINISHED, REJECTED

TICK = 2.0**-8
"""Seconds of every iteration, whatever runs in it; times are exact."""

FLAT = LinearCost(TICK, 0.0, 0.0, 0.0, 0.0)


@dataclass
class Says:
    """Policies of all four kinds that give stated answers at stated times."""

    replicas: dict[float, int] = field(default_factory=dict)
    transfers: dict[float, Transfer] = field(default_factory=dict)
    outages: Sequence[Fault] = ()
    levels: dict[float, int] = field(default_factory=dict)

    def wanted(self, seen: GroupView) -> int:
        return [count for at_s, count in self.replicas.items() if at_s <= seen.now_s][-1]

    def moves(self, seen: GroupView) -> list[Transfer]:
        return [order for at_s, order in self.transfers.items() if at_s == seen.now_s]

    def faults(self, replicas: int) -> Iterator[Fault]:
        return iter(self.outages)

    def level(self, seen: PowerView) -> int:
        return [level for at_s, level in {0.0: 0, **self.levels}.items() if at_s <= seen.now_s][-1]


def scaled(served: Deployment, answers: dict[float, int], **more: Any) -> Deployment:
    asked = {
        "every_s": 0.25,
        "min_replicas": 1,
        "max_replicas": len(served.groups[0].devices),
        "initial_replicas": 1,
        "start_s": 0.5,
    }
    scaling = Scaling(policy=lambda: Says(replicas=answers), **{**asked, **more})
    return with_group(served, scaling=scaling)


def failing(served: Deployment, *outages: Fault, recompute: bool = True) -> Deployment:
    return with_group(served, faults=Faults(policy=lambda: Says(outages=outages), recompute=recompute))


def with_group(served: Deployment, **more: Any) -> Deployment:
    return replace(served, groups=(replace(served.groups[0], **more),))


def lives(result: Any, replica: int) -> list[tuple[str, float, float]]:
    return [(life.state, life.from_s, life.to_s) for life in result.log.lives if life.replica == replica]


INF = float("inf")


# ---- scaling ---------------------------------------------------------------------------------------------


def test_a_replica_that_is_started_serves_after_its_start_up_time():
    """Ordered at 0.25 s, ready at 0.75 s, after what arrives then; from there on they take turns."""
    served = scaled(deployment(replicas=2, cost=FLAT, router="round-robin"), {0.0: 1, 0.25: 2})
    requests = Lists.of([0.0, 0.74, 0.75, 0.76, 0.77], 10, 128)
    result = simulate(requests, served)
    assert result.request_columns["replica"].tolist() == [0, 0, 0, 0, 1]
    assert lives(result, 0) == [("serving", 0.0, INF)]
    assert lives(result, 1) == [("gone", 0.0, 0.25), ("starting", 0.25, 0.75), ("serving", 0.75, INF)]


def test_figures_are_over_the_lifetimes_of_replicas():
    """Two replicas on a device each; the second starts at 0.25 s, serves from 0.75 s on and runs 32 ticks."""
    served = scaled(deployment(replicas=2, cost=FLAT), {0.0: 1, 0.25: 2})
    requests = Lists.of([0.0, 196 * TICK, 196 * TICK, 0.875], 10, [256, 1, 32, 32])
    result = simulate(requests, served)
    end_s = 1.0
    assert result.summary["makespan_s"] == end_s
    assert result.request_columns["replica"].tolist() == [0, 0, 1, 0]
    up_s = end_s + (end_s - 0.75)
    busy_s = end_s + 32 * TICK
    assert result.summary["utilization"]["busy"] == busy_s / up_s
    held_s = end_s + (end_s - 0.25)
    energy = result.summary["energy"]
    assert energy["idle_j"] == pytest.approx(60.0 * (held_s - busy_s))
    assert energy["total_j"] == pytest.approx(300.0 * busy_s + 60.0 * (held_s - busy_s))
    fleet = result.summary["fleet"]
    assert fleet["mean_replicas"] == up_s / end_s
    assert fleet["mean_devices"] == held_s / end_s
    assert (fleet["most_replicas"], fleet["starts"], fleet["drains"], fleet["failures"]) == (2, 1, 0, 0)


def test_a_replica_that_drains_serves_what_it_has_and_gets_no_more():
    """Both have a request at 0.5 s; the one with fewer of equals, the last, drains, and is gone with its last token."""
    served = scaled(deployment(replicas=2, cost=FLAT), {0.0: 2, 0.5: 1}, initial_replicas=2)
    requests = Lists.of([0.0, 0.0, 0.51, 0.52], 10, [200, 192, 10, 10])
    result = simulate(requests, served)
    assert result.request_columns["replica"].tolist() == [0, 1, 0, 0]
    assert lives(result, 1) == [
        ("serving", 0.0, 0.5),
        ("draining", 0.5, 192 * TICK),
        ("gone", 192 * TICK, INF),
    ]


def test_a_replica_that_drains_is_taken_back_before_another_is_started():
    served = scaled(deployment(replicas=3, cost=FLAT), {0.0: 2, 0.5: 1, 0.75: 2}, initial_replicas=2)
    result = simulate(Lists.of([0.0, 0.0], 10, 300), served)
    assert lives(result, 1) == [("serving", 0.0, 0.5), ("draining", 0.5, 0.75), ("serving", 0.75, INF)]
    assert lives(result, 2) == [("gone", 0.0, INF)]


def test_a_sleeping_replica_wakes_sooner_than_one_starts_and_holds_its_device():
    answers = {0.0: 2, 0.5: 1, 1.0: 2}
    more = {"initial_replicas": 2, "wake_s": 0.0625}
    served = scaled(deployment(replicas=2, cost=FLAT), answers, sleeps=True, **more)
    result = simulate(Lists.of([0.0], 10, 512), served)
    assert lives(result, 1) == [
        ("serving", 0.0, 0.5),
        ("draining", 0.5, 0.5),
        ("asleep", 0.5, 1.0),
        ("starting", 1.0, 1.0625),
        ("serving", 1.0625, INF),
    ]
    assert result.summary["fleet"]["mean_devices"] == 2.0


def test_a_start_that_is_no_longer_wanted_is_given_up():
    served = scaled(deployment(replicas=2, cost=FLAT), {0.0: 1, 0.25: 2, 0.5: 1})
    result = simulate(Lists.of([0.0], 10, 512), served)
    assert lives(result, 1) == [("gone", 0.0, 0.25), ("starting", 0.25, 0.5), ("gone", 0.5, INF)]


@pytest.mark.parametrize("keep_cache", [False, True])
def test_what_a_sleeping_replica_keeps_of_its_prefix_cache(keep_cache):
    """The same prompt again, after the replica has slept: it is cached only if it was kept."""
    answers = {0.0: 2, 0.5: 1, 1.0: 2}
    served = deployment(replicas=2, cost=FLAT, prefix_caching=True)
    served = scaled(served, answers, initial_replicas=2, sleeps=True, wake_s=0.0, keep_cache=keep_cache)
    document = (tuple(range(4)), tuple(range(10, 14)))
    requests = Lists.of([0.0, 0.0, 1.5, 1.5], 64, [400, 10, 2, 2])
    requests.unit_tokens, requests.units = 16, [*document, *document]
    result = simulate(requests, served)
    assert result.request_columns["replica"].tolist() == [0, 1, 0, 1]
    assert result.request_columns["cached_prompt_tokens"].tolist() == [0, 0, 48, 48 * keep_cache]


# ---- faults ----------------------------------------------------------------------------------------------


def test_a_request_whose_replica_fails_is_computed_again_from_its_text():
    """At 1 s 256 tokens are out, 265 are cached and lost; from 1.5 s on one prefill and 143 decodes do the rest."""
    served = failing(deployment(cost=FLAT), Fault(1.0, 0, 0.5))
    result = simulate(Lists.of([0.0], 10, 400), served)
    columns = result.request_columns
    assert columns["finish_s"].tolist() == [1.5 + 144 * TICK]
    assert columns["first_token_s"].tolist() == [TICK]
    assert (columns["preemptions"][0], columns["recomputed_tokens"][0]) == (1, 265)
    assert lives(result, 0) == [("serving", 0.0, 1.0), ("failed", 1.0, 1.5), ("serving", 1.5, INF)]
    assert [(move.source, move.target, move.at_s, move.kind) for move in result.log.moves] == [
        (0, -1, 1.0, "failure"),
        (-1, 0, 1.5, "held"),
    ]
    assert result.summary["itl_s"]["max"] == 0.5 + TICK
    assert result.summary["utilization"]["busy"] == 1.0


def test_a_fault_takes_effect_when_the_iteration_is_over():
    result = simulate(Lists.of([0.0], 10, 400), failing(deployment(cost=FLAT), Fault(1.0 + TICK / 2, 0, 0.5)))
    assert lives(result, 0)[1] == ("failed", 1.0 + TICK, 1.5 + TICK)


def test_requests_of_a_failed_replica_go_on_at_another():
    """The second replica takes all; what waits at the first has lost nothing."""
    served = failing(deployment(replicas=2, cost=FLAT, max_num_seqs=1), Fault(0.5, 0, 10.0))
    requests = Lists.of([0.0, 0.0, 0.0], 10, [256, 128, 64])
    result = simulate(requests, served)
    columns = result.request_columns
    assert columns["replica"].tolist() == [1, 1, 1]
    assert columns["preemptions"].tolist() == [1, 0, 0]
    assert columns["finish_s"].tolist() == [0.5 + 128 * TICK, 128 * TICK, 0.5 + 192 * TICK]


def test_requests_of_a_failed_replica_fail_where_the_policy_says_so():
    served = failing(deployment(replicas=2, cost=FLAT), Fault(0.5, 0, 10.0), recompute=False)
    result = simulate(Lists.of([0.0, 0.0, 0.6], 10, 256), served)
    assert result.request_columns["status"].tolist() == [FAILED, FINISHED, FINISHED]
    assert result.summary["fleet"]["failures"] == 1


def test_a_replica_that_fails_while_it_drains_does_not_come_back():
    served = scaled(deployment(replicas=2, cost=FLAT), {0.0: 2, 0.5: 1}, initial_replicas=2)
    served = failing(served, Fault(0.625, 1, 0.25))
    result = simulate(Lists.of([0.0, 0.0], 10, 400), served)
    assert [state for state, _, _ in lives(result, 1)] == ["serving", "draining", "failed", "gone"]
    assert result.request_columns["replica"].tolist() == [0, 0]


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("loop", [None, Loop(2)])
def test_while_no_replica_serves_requests_wait_or_are_rejected(waits, loop):
    served = with_group(failing(deployment(cost=FLAT), Fault(0.5, 0, 0.5)), waits=waits)
    requests = Lists.of([0.0, 0.6, 0.7], 10, [64, 8, 8], loop)
    result = simulate(requests, served)
    columns = result.request_columns
    if loop is not None:
        assert (columns["status"] == FINISHED).all()
    elif waits:
        assert columns["first_scheduled_s"].tolist() == [0.0, 1.0, 1.0]
        assert result.summary["fleet"]["held"] == 2
    else:
        assert columns["status"].tolist() == [FINISHED, REJECTED, REJECTED]


def test_a_client_that_leaves_while_its_request_waits_for_a_replica():
    served = failing(deployment(cost=FLAT), Fault(0.5, 0, 0.5))
    requests = Lists.of([0.0, 0.25, 0.6], 10, [256, 256, 8], patience_s=np.array([0.7, INF, 0.2]))
    result = simulate(requests, served)
    assert result.request_columns["status"].tolist() == [FAILED, FINISHED, FAILED]
    assert result.request_columns["replica"].tolist() == [-1, 0, -1]


def test_a_batch_that_is_held_to_its_end_gives_out_what_it_has_when_its_replica_fails():
    """The short answer is computed, and kept as text; the long one goes on elsewhere."""
    served = failing(deployment(batching="static", replicas=2, cost=FLAT), Fault(0.5, 0, 10.0))
    result = simulate(Lists.of([0.0, 0.0, 0.0], 10, [64, 1, 256]), served)
    assert result.request_columns["finish_s"].tolist() == [0.5, TICK, 0.5 + 128 * TICK]


# ---- migration -------------------------------------------------------------------------------------------


def moving(served: Deployment, order: Transfer, at_s: float = 0.25) -> Deployment:
    return with_group(served, migration=Migration(policy=lambda: Says(transfers={at_s: order}), every_s=at_s))


def test_a_request_migrates_live_and_stands_still_for_its_last_block():
    """A block crosses in half a tick. At 64 ticks 94 tokens are 6 blocks, copied by 67 ticks, while 4 more are decoded.

    They began a seventh block, which is copied from 67 to 67.5 ticks, when the request stands still. 133 tokens follow.
    """
    served = deployment(replicas=2, cost=FLAT, transfer_s_per_block=TICK / 2)
    result = simulate(Lists.of([0.0], 32, 200), moving(served, Transfer(0, 0, 1)))
    assert [(move.source, move.target, move.at_s, move.kind) for move in result.log.moves] == [
        (0, 1, 67 * TICK, "migration")
    ]
    columns = result.request_columns
    assert columns["finish_s"].tolist() == [200.5 * TICK]
    assert (columns["replica"][0], columns["preemptions"][0], columns["recomputed_tokens"][0]) == (1, 0, 0)
    assert result.tables[1].columns["start_s"][0] == 67.5 * TICK
    assert result.summary["itl_s"]["max"] == 1.5 * TICK


def test_a_request_that_waits_is_sent_elsewhere_at_once():
    served = deployment(replicas=2, cost=FLAT, max_num_seqs=1, transfer_s_per_block=1.0)
    requests = Lists.of([0.0, 0.0, 0.0], 10, [200, 8, 8])
    result = simulate(requests, moving(served, Transfer(2, 0, 1)))
    assert result.request_columns["first_scheduled_s"].tolist() == [0.0, 0.0, 0.25]


@pytest.mark.parametrize(
    ("order", "options"),
    [
        (Transfer(7, 0, 1), {}),
        (Transfer(0, 0, 0), {}),
        (Transfer(0, 1, 0), {}),
        (Transfer(0, 0, 9), {}),
        (Transfer(0, 0, 1), {"transfer_s_per_block": 32 * TICK}),
    ],
    ids=[
        "no such request",
        "to itself",
        "not there",
        "to none",
        "blocks are filled faster than they are copied",
    ],
)
def test_an_order_that_cannot_be_carried_out_changes_nothing(order, options):
    served = deployment(replicas=2, cost=FLAT, block_size=4, num_gpu_blocks=400, **options)
    requests = Lists.of([0.0], 32, 800)
    same_logs(simulate(requests, moving(served, order)).log, simulate(requests, served).log)


def test_no_request_moves_where_there_is_no_room_for_it():
    served = deployment(replicas=2, cost=FLAT, num_gpu_blocks=20)
    requests = Lists.of([0.0, 0.0], [150, 200], [100, 100])
    result = simulate(requests, moving(served, Transfer(0, 0, 1)))
    assert not result.log.moves


# ---- clocks ----------------------------------------------------------------------------------------------


def clocked(served: Deployment, levels: dict[float, int]) -> Deployment:
    slower = replace(FLAT, fixed=2 * TICK, watts=150.0)
    power = Power(policy=lambda: Says(levels=levels), every_s=0.25, clocks_mhz=(1980.0, 990.0))
    return replace(with_group(served, levels=(FLAT, slower)), power=power)


def test_a_lower_clock_holds_from_the_next_iteration_on():
    """64 ticks to 0.25 s, then two ticks an iteration up to 0.5 s, then one again."""
    result = simulate(Lists.of([0.0], 10, 128), clocked(deployment(cost=FLAT), {0.25: 1, 0.5: 0}))
    assert result.log.clocks == ((0.0, 1980.0), (0.25, 990.0), (0.5, 1980.0))
    ticks = result.tables[0].columns["duration_s"] / TICK
    assert ticks.tolist() == [1.0] * 64 + [2.0] * 32 + [1.0] * 32
    assert result.summary["makespan_s"] == 160 * TICK
    fleet = result.summary["fleet"]
    assert fleet["clock_changes"] == 2
    assert fleet["mean_clock_mhz"] == pytest.approx((96 * 1980 + 64 * 990) / 160)


def test_each_iteration_is_priced_at_its_clock():
    result = simulate(Lists.of([0.0], 10, 128), clocked(deployment(cost=FLAT), {0.25: 1, 0.5: 0}))
    table = result.tables[0]
    watts = table.columns["power_w"]
    assert watts[:64] == pytest.approx(300.0)
    assert watts[64:96] == pytest.approx(150.0)
    assert watts[96:] == pytest.approx(300.0)


# ---- as if it were not there -----------------------------------------------------------------------------


@dataclass
class Quiet(Says):
    """Gives no order."""

    def wanted(self, seen: GroupView) -> int:
        return len(seen.members)

    def level(self, seen: PowerView) -> int:
        return seen.level


@settings(max_examples=examples(60), deadline=None)
@given(st.data())
def test_without_orders_everything_is_as_it_is_without_a_control_plane(data):
    requests = data.draw(workloads())
    served = data.draw(deployments(requests, batching="chunked-prefill"))
    quiet = data.draw(controlled(served, CONTROL, **dict.fromkeys(CONTROL, Quiet)))
    groups = tuple(
        replace(
            group,
            engine=before.engine,
            scaling=replace(
                group.scaling, initial_replicas=len(group.devices), max_replicas=len(group.devices)
            ),
        )
        for before, group in zip(served.groups, quiet.groups, strict=True)
    )
    plain, watched = simulate(requests, served), simulate(requests, replace(quiet, groups=groups))
    same_logs(watched.log, plain.log)
    assert {life.state for life in watched.log.lives} == {"serving"}
    for name, section in plain.summary.items():
        assert watched.summary[name] == section or name == "utilization", name


@settings(max_examples=examples(60), deadline=None)
@given(st.data())
def test_a_stream_under_a_control_plane_is_the_whole(data):
    requests = data.draw(workloads())
    served = data.draw(controlled(data.draw(deployments(requests, batching="chunked-prefill"))))
    whole, kept = observed(requests, served), Kept()
    streamed = observed(Pieces(requests, data.draw(st.integers(1, 20))), served, kept)
    for name, column in kept.all(streamed).items():
        same = np.allclose if name == "energy_j" else np.array_equal
        assert same(column, whole.request_columns[name], equal_nan=True), name
    assert streamed.log.lives == whole.log.lives
    assert streamed.summary["fleet"] == pytest.approx(whole.summary["fleet"])


def test_requests_that_no_replica_will_ever_serve_are_an_error(monkeypatch):
    """A policy that is asked for nothing while requests wait, and no repair is under way."""
    monkeypatch.setattr("simslm.sim.control.scaler.MOST_LOOKS", 50)
    served = scaled(deployment(cost=FLAT), {0.0: 0}, min_replicas=0, initial_replicas=0)
    with pytest.raises(SimslmError, match="no replica serves"):
        simulate(Lists.of([0.0], 10, 10), served)


def test_a_group_without_replicas_starts_one_for_the_first_request():
    """From nothing: asked at 0.25 s, ready half a second later."""

    @dataclass
    class OnDemand(Says):
        def wanted(self, seen: GroupView) -> int:
            return 1 if seen.held or seen.coming else 0

    served = scaled(deployment(cost=FLAT), {}, min_replicas=0, initial_replicas=0)
    scaling = replace(served.groups[0].scaling, policy=OnDemand)
    result = simulate(Lists.of([0.125], 10, 10), with_group(served, scaling=scaling))
    assert result.request_columns["first_scheduled_s"].tolist() == [0.75]


def test_what_was_found_cached_where_a_request_waited_is_not_taken_for_cached_elsewhere():
    """A turn waits where its prefix is cached, and is moved to where it is on the host only: the long prompt there has
    driven it from the device. It comes back from the host, and holds nothing that the first replica found for it."""
    served = deployment(
        replicas=2,
        cost=FLAT,
        router="round-robin",
        max_num_seqs=1,
        num_gpu_blocks=20,
        prefix_caching=True,
        swap_blocks=100,
        swap_turns=True,
    )
    document = tuple(range(4))
    requests = Lists.of([0.0, 0.1, 0.15, 0.2, 0.2], [64, 64, 8, 300, 64], [2, 2, 100, 20, 2])
    requests.session_id = np.array([5, 5, -1, -1, 5])
    requests.unit_tokens, requests.units = 16, [document, document, (20,), (21,), document]
    requests.context_units = [document, document, (20,), (21,), document]
    result = simulate(requests, moving(served, Transfer(4, 0, 1)))
    assert [(move.request_id, move.target, move.at_s) for move in result.log.moves] == [(4, 1, 0.25)]
    assert result.request_columns["cached_prompt_tokens"][4] == 48

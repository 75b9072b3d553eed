"""Context switches: who makes place for whom, what moves, and who waits for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.invariants import same_logs, simulate
from support.scenarios import Choice, examples, scenarios
from support.switching import TICK, host_watched, switching
from support.synthetic import Lists

from simslm.sim.parts.swap import HostPool


def crowd(seed: int, count: int = 40, rate: float = 300.0) -> Lists:
    rng = np.random.default_rng(seed)
    prompts, outputs = rng.integers(1, 81, (2, count))
    requests = Lists.of(np.cumsum(rng.exponential(1 / rate, count)), prompts, outputs)
    requests.priority = rng.integers(0, 4, count)
    return requests


# ---- anything that may happen ------------------------------------------------------------------------------


@st.composite
def switching_scenarios(draw: st.DrawFn) -> Any:
    batching = draw(st.sampled_from(["chunked-prefill", "prefill-first", "split-fuse"]))
    preemption = draw(st.sampled_from(["youngest", "lowest-priority", "lowest-priority"]))
    queueing = draw(st.sampled_from(["fcfs", "priority", "priority"]))
    return draw(scenarios(batching=batching, preemption=preemption, queueing=queueing))


@settings(max_examples=examples(150), deadline=None)
@given(switching_scenarios())
def test_jumping_is_stepping_and_every_invariant_holds(scenario):
    """In groups, overlapped, reusing copies, with a full host, with clients that leave: no block is lost."""
    requests, served = scenario
    same_logs(simulate(requests, served).log, simulate(requests, served, jump=False).log)


# ---- who makes place ---------------------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_the_most_urgent_is_never_displaced(seed):
    """Neither by others nor for want of blocks, as long as it fits by itself."""
    requests = crowd(seed)
    assert requests.priority is not None
    urgent = seed % len(requests.priority)
    requests.priority[urgent] = -1
    columns = simulate(requests, switching(pool=14)).request_columns
    assert columns["preemptions"][urgent] == 0
    assert columns["preemptions"].sum() > 0


def test_with_equal_priorities_only_a_lack_of_blocks_displaces_and_the_youngest_goes():
    requests = crowd(1)
    requests.priority = None
    same_logs(
        simulate(requests, switching(pool=24)).log,
        simulate(requests, switching(pool=24, preemption="youngest")).log,
    )


def test_an_urgent_request_takes_the_place_of_the_least_urgent_one_that_runs():
    """4 blocks: the second of two is less urgent; the third needs 2 blocks, and takes them from it."""
    requests = Lists.of([0.0, 0.0, 10.5 * TICK], [20, 17, 20], [10 + 30, 40, 5])
    requests.priority = np.array([1, 2, 0])
    columns = simulate(requests, switching(pool=7)).request_columns
    assert columns["preemptions"].tolist() == [0, 1, 0]
    assert columns["first_token_s"][2] == 12 * TICK
    assert columns["finish_s"][0] < columns["finish_s"][1]


# ---- what moves --------------------------------------------------------------------------------------------


@given(st.integers(0, 5000), st.integers(1, 200))
def test_groups_move_the_same_blocks_in_fewer_calls(blocks, group):
    """Bytes are the same; calls are as many as groups; the largest group needs one."""
    each = HostPool(0, 2.0**-10, 2.0**-6, 1).copy_s(blocks)
    grouped = HostPool(0, 2.0**-10, 2.0**-6, group).copy_s(blocks)
    assert each == blocks * (2.0**-10 + 2.0**-6)
    assert grouped == blocks * 2.0**-10 + -(-blocks // group) * 2.0**-6
    assert grouped <= each


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 50))
def test_where_calls_are_free_groups_change_nothing(seed, group):
    options = {"pool": 24, "swap_s_per_block": 1e-3}
    one, other = (
        simulate(crowd(seed), switching(**options, swap_group_blocks=size)).log for size in (1, group)
    )
    same_logs(one, other)


def displaced(**options: Any) -> Any:
    """Two run, of 3 blocks each from the start; a third, most urgent, needs the 3 of the less urgent one at tick 4.

    A block takes half a tick, so that the 3 blocks take 1.5.
    """
    requests = Lists.of([0.0, 0.0, 3.5 * TICK], [33, 33, 33], [12, 12, 4])
    requests.priority = np.array([1, 2, 0])
    return simulate(requests, switching(pool=7, swap_s_per_block=TICK / 2, **options))


def test_without_overlap_everybody_waits_for_the_transfer_out_and_for_the_one_back():
    columns = displaced().request_columns
    assert columns["preemptions"].tolist() == [0, 1, 0]
    assert columns["first_token_s"][2] == (4 + 1.5 + 1) * TICK
    assert columns["finish_s"][0] == (12 + 1.5 + 1.5) * TICK


def test_with_overlap_only_those_wait_whose_blocks_are_under_way():
    """The first goes on, one token a tick; the third starts when the blocks are free, the second when its are back."""
    result = displaced(swap_overlap=True)
    columns = result.request_columns
    assert columns["preemptions"].tolist() == [0, 1, 0]
    assert columns["finish_s"][0] == 12 * TICK
    assert columns["first_token_s"][2] == 7 * TICK
    assert columns["first_scheduled_s"][2] == 6 * TICK


def test_a_copy_on_the_host_is_not_copied_again():
    """The second is displaced twice, with 3 blocks and then with 3 of which 2 were full the first time: 2 move less."""
    requests = Lists.of([0.0, 0.0, 3.5 * TICK, 16.5 * TICK], [33, 33, 33, 33], [30, 30, 4, 4])
    requests.priority = np.array([1, 2, 0, 0])
    makespans = []
    for reuse in (False, True):
        served = switching(pool=9, swap_s_per_block=TICK / 2, swap_reuse=reuse)
        result = simulate(requests, served)
        assert result.request_columns["preemptions"].tolist() == [0, 2, 0, 0]
        makespans.append(result.summary["makespan_s"])
    assert makespans[0] - makespans[1] == pytest.approx(2 * TICK / 2)


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("caching", [False, True])
@pytest.mark.parametrize("room", [6, 20, 1000])
def test_no_block_on_the_host_is_lost(overlap, caching, room):
    """Sequences displaced again and again, with copies kept as far as the host has room for them."""
    pattern = Choice("priorities", "random", {"every": 5})
    served = switching(
        pool=12, priorities=pattern, swap_blocks=room, swap_reuse=True, swap_overlap=overlap, swap_s_per_block=TICK / 8,
        prefix_caching=caching
    )  # fmt: skip
    with host_watched(served) as seen:
        preemptions = simulate(crowd(3), served).request_columns["preemptions"]
    assert preemptions.max() > 1
    assert [swap.host.free for swap in seen] == [room]


def test_who_finds_no_room_for_all_of_it_comes_back_to_the_copy_and_computes_the_rest():
    """The second leaves with 36 tokens, comes back, and leaves with 60, of 4 blocks; the host has room for 3."""
    requests = Lists.of([0.0, 0.0, 3.5 * TICK, 30.5 * TICK], [33, 33, 33, 33], [60, 60, 4, 4])
    requests.priority = np.array([1, 2, 0, 0])
    result = simulate(requests, switching(pool=9, swap_blocks=3, swap_reuse=True))
    assert result.request_columns["preemptions"].tolist() == [0, 2, 0, 0]
    chunks = result.windows[0][1].chunks
    assert chunks["tokens"][chunks["request_id"] == 1].tolist() == [33, 60 - 36]


# ---- priorities that change --------------------------------------------------------------------------------


def test_priorities_change_every_so_many_iterations_and_displace():
    """Equal requests, one slot: with the order drawn afresh every 4 iterations no request runs to its end in one go."""
    requests = Lists.of(np.zeros(6), 10, 40)
    columns = {}
    for every in (4, 10**6):
        pattern = Choice("priorities", "random", {"every": every})
        columns[every] = simulate(
            requests, switching(pool=100, max_num_seqs=1, priorities=pattern)
        ).request_columns
    assert columns[4]["preemptions"].sum() > 6
    assert columns[10**6]["preemptions"].sum() == 0


def test_a_chain_that_stays_keeps_its_priorities_and_one_that_does_not_draws_all_of_them():
    seen = list(range(50))
    assert Choice("priorities", "markov", {"stay": 1.0}).make().redraw(seen) == seen
    drawn = Choice("priorities", "markov", {"stay": 0.0, "levels": 4}).make().redraw([9] * 400)
    counts = np.bincount(drawn, minlength=4)
    assert len(counts) == 4
    assert counts.min() > 60


def test_a_lone_request_jumps_from_one_change_to_the_next():
    pattern = Choice("priorities", "markov", {"every": 50})
    result = simulate(Lists.of([0.0], 10, 500), switching(pool=100, priorities=pattern))
    assert len(result.tables[0]) == 500
    assert result.log.events < 25

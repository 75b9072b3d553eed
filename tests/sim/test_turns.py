"""Finished turns on the host: what is there is never computed again, its blocks are bounded, and none is lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.invariants import same_logs, simulate
from support.programs import program_workloads, programs
from support.scenarios import Choice, deployments, examples
from support.scenarios import switching as switched
from support.switching import TICK, host_watched, switching

from simslm.sim.log import FINISHED
from simslm.workload.calls import Call, Text

UNIT = 16


def conversation(turns: list[tuple[int, int]], pause_s: float = 0.25) -> list[Call]:
    """A conversation of (new part, answer), each turn a pause after the last."""
    return [
        Call(own, output, extends=i - 1 if i else None, delay_s=pause_s if i else 0.0)
        for i, (own, output) in enumerate(turns)
    ]


def there(requests: Any) -> np.ndarray:
    """What the turn before has left of every prompt, in full units; the last token of an answer is never computed."""
    before = requests.prompt_tokens + requests.output_tokens - 1
    goes_on = np.diff(requests.programs.parent_ends, prepend=0) > 0
    left = np.concatenate([[0], before[:-1] // UNIT * UNIT])
    return np.where(goes_on, left, 0)


def keeping(**options: Any) -> Any:
    return switching(**{"swap_turns": True, "pool": 1000} | options)


# ---- anything that may happen ------------------------------------------------------------------------------


@st.composite
def conversing(draw: st.DrawFn) -> Any:
    """Random programs on replicas that keep turns, short of blocks on the device and on the host."""
    requests = draw(program_workloads())
    batching = draw(st.sampled_from(["chunked-prefill", "prefill-first", "layered-prefill"]))
    return requests, draw(switched(draw(deployments(requests, batching=batching)), turns=True))


@settings(max_examples=examples(150), deadline=None)
@given(conversing())
def test_jumping_is_stepping_and_no_block_on_the_host_is_lost(scenario):
    requests, served = scenario
    with host_watched(served) as seen:
        stepped = simulate(requests, served, jump=False).log
    same_logs(simulate(requests, served).log, stepped)
    for swap in seen:
        assert not swap.copies | swap.on_host
        assert not swap.replica.landed


@settings(max_examples=examples(60), deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(1, 90), st.integers(1, 60)), min_size=1, max_size=5),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from([40, 1000]),
    st.booleans(),
    st.booleans(),
)
def test_what_is_on_the_host_is_never_computed_again(spoken, pool, overlap, reuse):
    """With room for all of it, every turn finds all full units of the one before but its own last block, however
    short the device is of blocks; where no request is preempted, the rest is all that is computed."""
    requests = programs([conversation(turns) for turns in spoken], np.arange(len(spoken)) * TICK)
    served = keeping(
        pool=max(pool, 60),
        swap_blocks=10**5,
        swap_overlap=overlap,
        swap_reuse=reuse,
        swap_s_per_block=TICK / 8,
    )
    result = simulate(requests, served)
    columns = result.request_columns
    found = np.minimum(there(requests), (requests.prompt_tokens - 1) // UNIT * UNIT)
    assert columns["cached_prompt_tokens"].tolist() == found.tolist()
    computed = sum(window.chunks["tokens"].sum() for _, window, _ in result.windows)
    if not columns["preemptions"].any():
        assert computed == (requests.prompt_tokens - found).sum()


# ---- what moves and when -----------------------------------------------------------------------------------


def test_a_turn_waits_for_its_blocks_and_computes_the_rest():
    """48 + 17 - 1 tokens are 4 full blocks; they come in 4 · TICK / 2, and the next turn's first token a tick later."""
    requests = programs([conversation([(48, 17), (10, 3)])], 0.0)
    result = simulate(requests, keeping(swap_blocks=100, swap_overlap=True, swap_s_per_block=TICK / 2))
    columns = result.request_columns
    assert columns["cached_prompt_tokens"].tolist() == [0, 64]
    assert columns["first_token_s"][1] - columns["arrival_s"][1] == (2 + 1) * TICK
    chunks = result.windows[0][1].chunks
    assert chunks["tokens"].tolist() == [48, 75 - 64]


def test_without_turns_the_whole_prompt_is_computed_again():
    requests = programs([conversation([(48, 17), (10, 3)])], 0.0)
    result = simulate(requests, keeping(swap_blocks=100, swap_overlap=True, swap_turns=False))
    assert result.request_columns["cached_prompt_tokens"].tolist() == [0, 0]
    assert result.windows[0][1].chunks["tokens"].tolist() == [48, 75]


def test_others_run_while_a_turn_comes_and_wait_for_it_only_without_overlap():
    """A request of 60 tokens runs all the while; without overlap it waits for 4 blocks out, 4 in and 5 out, half a
    tick each."""
    spoken = [conversation([(48, 17), (10, 3)], 4 * TICK), [Call(16, 60)]]
    finish_s = [
        simulate(
            programs(spoken, 0.0),
            keeping(swap_blocks=100, swap_overlap=overlap, swap_s_per_block=TICK / 2),
        ).request_columns["finish_s"][2]
        for overlap in (True, False)
    ]
    assert finish_s[0] == 60 * TICK
    assert finish_s[1] == (60 + 2 + 2 + 2.5) * TICK


def test_only_what_is_new_of_a_turn_moves_when_the_copy_is_reused():
    """The second turn ends with 8 blocks, 4 of them there: 4 move with reuse, else 8; another waits for them."""
    spoken = [conversation([(48, 17), (40, 23)], 4 * TICK), [Call(16, 60)]]
    finish_s = [
        simulate(
            programs(spoken, 0.0), keeping(swap_blocks=100, swap_reuse=reuse, swap_s_per_block=TICK / 2)
        ).request_columns["finish_s"][2]
        for reuse in (False, True)
    ]
    assert finish_s[0] == (60 + 2 + 2 + 4) * TICK
    assert finish_s[1] == (60 + 2 + 2 + 2) * TICK


def test_a_turn_comes_back_after_it_has_gone():
    """The next turn is there at once: 4 blocks take 2 ticks out and then 2 in, before its first token a tick later."""
    requests = programs([conversation([(48, 17), (10, 3)], 0.0)], 0.0)
    served = keeping(swap_blocks=100, swap_overlap=True, swap_s_per_block=TICK / 2)
    columns = simulate(requests, served).request_columns
    assert columns["first_token_s"][1] - columns["arrival_s"][1] == (2 + 2 + 1) * TICK


def test_blocks_are_free_when_their_copies_have_arrived():
    """Of 5 blocks a turn has 4 to its end at tick 17; a request that needs 3 begins 2 ticks later, after the copy."""
    requests = programs([conversation([(48, 17)]), [Call(33, 3)]], [0.0, 8 * TICK])
    for turns, wait in ((False, 0), (True, 2)):
        served = keeping(
            pool=5, swap_blocks=100, swap_overlap=True, swap_turns=turns, swap_s_per_block=TICK / 2
        )
        columns = simulate(requests, served).request_columns
        assert columns["first_scheduled_s"][1] == (17 + wait) * TICK


def test_of_a_prompt_that_is_there_as_a_whole_the_last_block_is_computed_again():
    asked = Text("question", 64)
    again = [Call(0, 5, text=asked), Call(0, 5, text=asked, after=[0], delay_s=0.25)]
    columns = simulate(programs([again], 0.0), keeping(swap_blocks=100)).request_columns
    assert columns["cached_prompt_tokens"].tolist() == [0, 48]


def test_the_oldest_turn_makes_room():
    """Turns of 4 blocks and room for 10: of three conversations the one that ended first is not found any more."""
    spoken = [conversation([(48, 17), (10, 3)], pause_s) for pause_s in (1.0, 0.6, 0.25)]
    requests = programs(spoken, [0.0, 0.25, 0.5])
    columns = simulate(requests, keeping(swap_blocks=10)).request_columns
    assert columns["cached_prompt_tokens"].tolist() == [0, 0, 0, 64, 0, 64]


def test_a_turn_that_the_host_has_no_room_for_is_not_kept():
    requests = programs([conversation([(48, 17), (10, 3)])], 0.0)
    columns = simulate(requests, keeping(swap_blocks=3)).request_columns
    assert columns["cached_prompt_tokens"].tolist() == [0, 0]
    assert (columns["status"] == FINISHED).all()


def test_reasoning_that_a_later_prompt_leaves_out_is_not_found():
    """48 tokens of prompt, 20 of reasoning that later prompts omit: of the first turn, only its prompt is found."""
    talk = [Call(48, 17, reasoning=20), Call(10, 3, extends=0, delay_s=0.25)]
    columns = simulate(programs([talk], 0.0), keeping(swap_blocks=100)).request_columns
    assert columns["cached_prompt_tokens"].tolist() == [0, 48]


@pytest.mark.parametrize("batching", ["chunked-prefill", "prefill-first", "split-fuse", "layered-prefill"])
def test_every_policy_that_takes_blocks_as_needed_goes_on_with_a_turn(batching):
    requests = programs([conversation([(48, 17), (100, 3), (1, 1)])] * 4, 0.0)
    served = keeping(
        batching=batching, swap_blocks=1000, swap_overlap=True, max_num_batched_tokens=1024, pool=40
    )
    columns = simulate(requests, served).request_columns
    assert columns["cached_prompt_tokens"].tolist() == there(requests).tolist()


def test_urgent_prompts_come_before_turns_that_wait_and_not_before_those_that_are_here():
    """One slot: the turn whose blocks are under way is served when they are here, though a more urgent one came."""
    talk = conversation([(48, 17), (10, 3)], 4 * TICK)
    requests = programs([talk, [Call(16, 5)]], [0.0, 22 * TICK])
    requests.priority = np.array([1, 1, 0])
    served = keeping(
        swap_blocks=100, swap_overlap=True, swap_s_per_block=TICK, max_num_seqs=1,
        priorities=Choice("priorities", "fixed"),
    )  # fmt: skip
    columns = simulate(requests, served).request_columns
    assert columns["cached_prompt_tokens"].tolist() == [0, 64, 0]
    assert columns["arrival_s"][1] == 21 * TICK
    assert columns["first_token_s"][1] > columns["first_token_s"][2]

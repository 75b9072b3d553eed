"""What Sarathi-Serve and Dynamic SplitFuse promise: decodes wait for one bounded iteration, passes are of one size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.invariants import simulate
from support.scenarios import Choice
from support.synthetic import LinearCost, Lists, deployment
from support.views import SeenPrompt, SeenReplica

STALL_FREE = ("chunked-prefill", "split-fuse")


def crowd(seed: int, longest: int, count: int = 40) -> Lists:
    """Random requests, many at once."""
    rng = np.random.default_rng(seed)
    prompts, outputs = rng.integers(1, longest + 1, count), rng.integers(2, 40, count)
    return Lists.of(np.cumsum(rng.exponential(1 / 300, count)), prompts, outputs)


def longest_gap_s(result: Any) -> float:
    """The longest time between two tokens of one request."""
    return float(result.summary["itl_s"]["max"])


@pytest.mark.slow
@pytest.mark.parametrize("name", STALL_FREE)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), budget=st.sampled_from([16, 40, 200]))
def test_no_decode_waits_for_more_than_one_chunk(name, seed, budget):
    """Between two of its tokens lies exactly one iteration, and that holds at most a budget of tokens: even beside
    prompts many times as long, a gap is no longer than the longest iteration that only the budget allows."""
    requests = crowd(seed, longest=1500)
    cost = LinearCost()
    result = simulate(
        requests, deployment(batching=name, max_num_seqs=16, max_num_batched_tokens=budget, cost=cost)
    )
    columns = result.tables[0].columns
    assert (columns["decode_seqs"] + columns["prefill_tokens"] <= budget).all()
    context = int((requests.prompt_tokens + requests.output_tokens).max())
    alone = cost.fixed + 16 * (cost.per_seq + cost.per_context * context)
    chunk = budget * (cost.per_token + cost.per_pair * context)
    assert longest_gap_s(result) <= alone + chunk


def test_without_chunks_a_decode_waits_for_whole_prompts():
    requests = crowd(3, longest=1500)
    chunked, whole = (
        longest_gap_s(
            simulate(requests, deployment(batching=name, max_num_seqs=16, max_num_batched_tokens=budget))
        )
        for name, budget in (("chunked-prefill", 40), ("prefill-first", 1500))
    )
    assert whole > 5 * chunked


# ---- Dynamic SplitFuse -------------------------------------------------------------------------------------


def split_fuse(view: SeenReplica) -> Any:
    return Choice("batching", "split-fuse").make().plan(view)


def view(
    waiting: list[int], decoding: int = 0, partial: tuple[int, ...] = (), budget: int = 100
) -> SeenReplica:
    """A replica with room for all prompts, which have these lengths."""
    prompts = [SeenPrompt(i, 0.0, tokens, 10, 0, tokens, 1) for i, tokens in enumerate([*partial, *waiting])]
    started = len(partial)
    return SeenReplica(tuple(prompts[started:]), tuple(prompts[:started]), decoding, 10**6, 0, 0, 64, budget)


@settings(deadline=None)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=12), st.integers(0, 40), st.integers(41, 400))
def test_a_pass_is_within_the_budget_and_under_load_exactly_at_it(waiting, decoding, budget):
    plan = split_fuse(view(waiting, decoding, budget=budget))
    room, pool = budget - decoding, sum(waiting)
    assert plan.tokens <= budget
    if pool >= 2 * room:
        assert plan.tokens == budget
    elif pool > room:
        assert plan.tokens == decoding + -(-pool // 2), "the last two passes are even"
    else:
        assert plan.tokens == decoding + pool


def test_long_prompts_are_split_and_short_ones_fused():
    assert [tokens for _, tokens in split_fuse(view([30, 30, 30, 500])).chunks] == [30, 30, 30, 10]
    assert [tokens for _, tokens in split_fuse(view([500], decoding=20)).chunks] == [80]
    assert [tokens for _, tokens in split_fuse(view([70, 60], partial=(20,))).chunks] == [20, 55]
    assert [tokens for _, tokens in split_fuse(view([70, 20])).chunks] == [70, 20]


def test_under_load_all_passes_of_a_run_are_of_one_size():
    """All prompts wait from the start: until the last two budgets of prompt tokens, no pass is smaller."""
    requests = Lists.of(np.zeros(60), 130, 4)
    result = simulate(
        requests, deployment(batching="split-fuse", max_num_seqs=60, max_num_batched_tokens=200)
    )
    columns = result.tables[0].columns
    left = 60 * 130 - np.concatenate([[0], np.cumsum(columns["prefill_tokens"])[:-1]])
    size = columns["decode_seqs"] + columns["prefill_tokens"]
    loaded = left >= 2 * (200 - columns["decode_seqs"])
    assert loaded.sum() > 20
    assert (size[loaded] == 200).all()
    ending = size[~loaded & (left > 0)]
    assert len(ending) <= 2
    assert ending.max() - ending.min() <= 61, "even, but for the decodes that joined in between"

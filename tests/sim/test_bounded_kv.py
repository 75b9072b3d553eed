"""Sequences that keep a window of their tokens: what is counted is what each of them keeps, to the token."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.invariants import same_logs, simulate
from support.scenarios import deployments, examples, windowed, workloads
from support.synthetic import LinearCost, Lists, deployment

from simslm.api import load_scenario, prepare
from simslm.api import simulate as simulate_scenario
from simslm.cli.expectation import expectations
from simslm.errors import ScenarioError
from simslm.preparation.operators import device_roofline
from simslm.sim.deployment import Deployment


def keeping(served: Deployment, kept: int) -> Deployment:
    groups = (replace(group, engine=replace(group.engine, kept_tokens=kept)) for group in served.groups)
    return replace(served, groups=tuple(groups))


@settings(max_examples=examples(100), deadline=None)
@given(st.data())
def test_jumping_is_stepping(data):
    """Over every batching policy, preemption, swapping, late outputs and shared devices."""
    requests = data.draw(workloads())
    engine = data.draw(windowed(data.draw(deployments(requests))))
    jumped, stepped = simulate(requests, engine), simulate(requests, engine, jump=False)
    same_logs(jumped.log, stepped.log)
    assert jumped.summary == stepped.summary


lengths = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=12)


@pytest.mark.slow
@settings(deadline=None)
@given(lengths, st.integers(1, 80), st.sampled_from([1, 4, 16]))
def test_context_and_blocks_are_the_sums_of_what_each_sequence_keeps(lengths, kept, block_size):
    """Sequence by sequence, from when each decoded: the bound is on every one, not on their mean."""
    prompts, outputs = zip(*lengths, strict=True)
    requests = Lists.of(np.zeros(len(lengths)), prompts, outputs)
    result = simulate(requests, keeping(deployment(block_size=block_size), kept))
    (_, window, table), columns = result.windows[0], result.tables[0].columns
    assert table is result.tables[0]
    decoding = columns["decoding"] > 0
    context, blocks = np.zeros(decoding.sum()), np.zeros(decoding.sum())
    for request, first, last in zip(
        *(window.stays[name].astype(int) for name in ("request_id", "decode_from", "decode_to")), strict=True
    ):
        tokens = prompts[request] + np.arange(last - first)
        context[first:last] += np.minimum(tokens, kept)
        blocks[first:last] += -(-np.minimum(tokens + 1, kept) // block_size)
    assert columns["decode_ctx_tokens"][decoding].tolist() == context.tolist()
    alone = columns["prefill_seqs"][decoding] == 0
    assert columns["kv_blocks_used"][decoding][alone].tolist() == blocks[alone].tolist()


def test_decoding_costs_the_same_beyond_the_window_and_takes_no_more_blocks():
    requests = Lists.of(np.zeros(4), [40, 100, 10, 300], 500)
    result = simulate(requests, keeping(deployment(block_size=16), 64))
    columns = result.tables[0].columns
    late = columns["decoding"] == 4
    late[: np.flatnonzero(late)[60]] = False
    assert set(columns["decode_ctx_tokens"][late]) == {4 * 64}
    assert columns["kv_blocks_used"].max() == 4 * 4
    assert np.ptp(columns["duration_s"][late]) < 1e-12


def test_a_long_run_takes_few_spans():
    """Beyond the window a jump goes on to the next finish: the bound costs one event for each sequence."""
    requests = Lists.of(np.zeros(3), [10, 20, 30], 2000)
    result = simulate(requests, keeping(deployment(), 100))
    assert len(result.windows[0][1].spans["iterations"]) <= 8


@pytest.mark.parametrize(("new", "before", "kept"), [(5, 0, 100), (5, 0, 3), (7, 98, 100), (7, 200, 100)])
def test_a_prompt_attends_within_the_window(new, before, kept):
    """By the pairs of every token, chunk by chunk."""
    limits = deployment(max_num_batched_tokens=before or new)
    result = simulate(Lists.of([0.0], before + new, 1), keeping(limits, kept))
    pairs = [min(i, kept) for i in range(1, before + new + 1)]
    assert result.tables[0].columns["prefill_pairs"].sum() == sum(pairs)
    assert result.tables[0].columns["prefill_ctx_tokens"][-1] == min(before, kept)


def test_a_window_longer_than_any_sequence_changes_no_bit():
    requests = Lists.of(np.arange(9) * 0.01, [5, 90, 30] * 3, [40, 3, 60] * 3)
    plain, wide = deployment(cost=LinearCost()), keeping(deployment(cost=LinearCost()), 1000)
    assert simulate(requests, plain).summary == simulate(requests, wide).summary


def infinite(small: dict, **options) -> dict:
    small["cost"] = {"roofline": {}, "transforms": [{"lm_infinite": options}]}
    return small


def test_in_a_scenario(small):
    """Requests that keep little fit where they would not: the KV cache has room for two windows."""
    infinite(small, global_tokens=4, local_tokens=60)
    small["deployment"] = {"engine": {"num_gpu_blocks": 8}}
    summary = simulate_scenario(load_scenario(small)).summary
    assert summary["requests"]["finished"] == 50
    assert summary["kv"]["peak_utilization"] == 1.0
    small["cost"]["transforms"] = []
    assert simulate_scenario(load_scenario(small)).summary["requests"]["rejected"] > 25


def test_what_is_expected_before_running_keeps_to_the_window(small):
    """A batch of long sequences is as large as its windows let it be, and `check` says what it takes."""
    infinite(small, global_tokens=4, local_tokens=60)
    small["deployment"] = {"engine": {"num_gpu_blocks": 16}}
    prepared = prepare(load_scenario(small))
    group = prepared.groups[0]
    assert group.batch(1000, 99) == 4
    assert group.prompt_pairs(100) == sum(min(i, 64) for i in range(1, 101))
    (one,) = expectations(prepared)
    assert one.decode_s == group.cost.decode(one.batch).latency_s(64 * one.batch)
    decode = device_roofline(prepared, group).phases[-1]
    assert (decode.seqs, decode.tokens) == (4, 64)


def test_rotary_models_serve_more_than_their_positions(small):
    small = infinite(small) | {"max_model_len": 100_000, "model": "llama-2-7b"}
    assert prepare(load_scenario(small)).groups[0].max_model_len == 100_000
    with pytest.raises(ScenarioError, match="2048 positions"):
        prepare(load_scenario(small | {"model": "opt-1.3b"}))


def test_what_counts_on_all_tokens_is_refused(small):
    infinite(small)["deployment"] = {"engine": {"prefix_caching": True}}
    with pytest.raises(ScenarioError, match="drops tokens of its prompt"):
        prepare(load_scenario(small))

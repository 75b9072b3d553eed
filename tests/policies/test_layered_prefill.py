"""Layered prefill passes every layer once, whole prompts at a time, and lets no decoding sequence wait."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.invariants import simulate
from support.scenarios import Choice
from support.synthetic import Lists, deployment
from support.views import SeenPrompt, SeenReplica

from simslm.catalog.devices import load_device
from simslm.catalog.models import load_model
from simslm.catalog.work import IterationShape, WorkModel
from simslm.cost.roofline import Roofline

MIXTURE = load_model("olmoe-1b-7b")
PER_GROUP = 512


def served(requests: Lists, **engine: Any) -> Any:
    """A run of layered prefill, all invariants checked."""
    setting = deployment(
        batching="layered-prefill", max_num_batched_tokens=8192, max_model_len=10_000, **engine
    )
    return simulate(requests, setting)


def passes(result: Any) -> dict[int, list[tuple[int, float]]]:
    """By request: the iterations in which it prefilled, and which share of the layers it passed in each."""
    layers = result.tables[0].columns["prefill_layers"]
    found: dict[int, list[tuple[int, float]]] = {}
    for _, window, _ in result.windows:
        for iteration, request in zip(window.chunks["iteration"], window.chunks["request_id"], strict=True):
            found.setdefault(int(request), []).append((int(iteration), float(layers[int(iteration)])))
    return found


def crowd(seed: int, longest: int = 3000, count: int = 30) -> Lists:
    rng = np.random.default_rng(seed)
    prompts, outputs = rng.integers(1, longest + 1, count), rng.integers(1, 40, count)
    return Lists.of(np.cumsum(rng.exponential(0.05, count)), prompts, outputs)


@pytest.mark.parametrize(("tokens", "groups"), [(1, 1), (512, 1), (513, 2), (2048, 4), (7000, 14)])
def test_a_prompt_of_l_tokens_passes_the_layers_in_l_over_512_groups(tokens, groups):
    result = served(Lists.of([0.0], tokens, 3))
    shares = [share for _, share in passes(result)[0]]
    assert len(shares) == groups
    assert shares == pytest.approx([1 / groups] * groups, rel=groups / tokens)
    assert result.tables[0].columns["prefill_tokens"].sum() == tokens


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_no_layer_is_passed_twice_for_one_prompt(seed):
    """Over the iterations of a prompt, the shares of the layers add up to one: nothing is read again for it."""
    for parts in passes(served(crowd(seed))).values():
        assert sum(share for _, share in parts) == pytest.approx(1.0, rel=1e-9)
        assert [i for i, _ in parts] == list(range(parts[0][0], parts[0][0] + len(parts)))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_a_preempted_prompt_passes_all_layers_again_and_is_served(seed):
    requests = crowd(seed, longest=200)
    engine = {"num_gpu_blocks": 30, "block_size": 8, "watermark": 0.0}
    result = served(requests, **engine)
    assert (result.request_columns["status"] == 0).any()
    for request, parts in passes(result).items():
        often = result.request_columns["preemptions"][request] + 1
        assert sum(share for _, share in parts) <= often + 1e-9


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_no_decode_waits_and_no_iteration_has_more_than_a_group_of_tokens(seed):
    result = served(crowd(seed))
    columns, requests = result.tables[0].columns, result.request_columns
    assert (columns["prefill_tokens"] <= PER_GROUP + columns["prefill_seqs"]).all()
    ends = result.tables[0].end_s
    during = np.searchsorted(ends, requests["finish_s"]) - np.searchsorted(ends, requests["first_token_s"])
    assert (during == requests["output_tokens"] - 1).all()


def test_prompts_that_wait_pass_together_and_later_ones_after_them():
    result = served(Lists.of([0.0, 0.0, 0.0, 0.001], [600, 600, 600, 100], 2))
    together = passes(result)
    assert [i for i, _ in together[0]] == [i for i, _ in together[2]] == [0, 1, 2, 3]
    assert [i for i, _ in together[3]] == [4]


def view(waiting: list[int], budget: int = 8192, decoding: int = 0) -> SeenReplica:
    prompts = tuple(SeenPrompt(i, 0.0, tokens, 10, 0, tokens, 1) for i, tokens in enumerate(waiting))
    return SeenReplica(prompts, (), decoding, 10**6, 0, 0, 64, budget)


def chunks(seen: SeenReplica, **options: Any) -> list[int]:
    plan = Choice("batching", "layered-prefill", options).make().plan(seen)
    return [tokens for _, tokens in plan.chunks]


def test_prompts_join_as_far_as_the_room_goes_and_each_has_a_token_for_every_group():
    assert chunks(view([5000, 5000])) == [500]
    assert chunks(view([20000])) == [500]
    assert chunks(view([4000, 4000])) == [250, 250]
    assert chunks(view([4000, 100], budget=4050)) == [500]
    assert chunks(view([4000, 5, 4000])) == [500], "8 groups: no prompt of 5 tokens passes with them"
    assert chunks(view([4000]), max_groups=2) == [2000]
    assert chunks(view([4000]), tokens_per_group=1000) == [1000]
    assert chunks(view([600], budget=100, decoding=100)) == []


# ---- what it is for: experts are read once -----------------------------------------------------------------


def experts_read(result: Any) -> float:
    """Expert weights read in a run, in bytes."""
    columns = result.tables[0].columns
    shapes = IterationShape(*(columns[name] for name in IterationShape._fields))
    model = WorkModel(MIXTURE, "bf16")
    read = model(shapes).linear_bytes - (shapes.decode_seqs + shapes.prefill_tokens > 0) * model.linear_bytes
    return float(read.sum())


def test_the_experts_of_a_prompt_are_read_once_and_in_chunks_once_for_each():
    requests = Lists.of([0.0], 4096, 1)
    whole = 2.0 * 16 * 64 * MIXTURE.expert_parameters()
    assert experts_read(served(requests)) == pytest.approx(whole, rel=1e-6)
    chunked = simulate(
        requests, deployment(batching="chunked-prefill", max_num_batched_tokens=512, max_model_len=9999)
    )
    assert experts_read(chunked) == pytest.approx(8 * whole, rel=1e-6)


def test_decodes_beside_a_group_read_their_experts_in_the_other_layers():
    model = WorkModel(MIXTURE, "bf16")
    beside = model(IterationShape(2, 100, 1, 512, 0, 0.0, prefill_layers=0.25)).linear_bytes
    few, many = (model(IterationShape(seqs, 100)).linear_bytes for seqs in (2, 2 + 2048))
    assert beside == pytest.approx(0.25 * many + 0.75 * few, rel=1e-12)


def test_one_group_costs_what_a_whole_prompt_does():
    cost = Roofline(MIXTURE, load_device("h100-80gb"), "bf16")
    layered, chunked = (
        simulate(
            Lists.of([0.0, 0.4], 300, 20), deployment(batching=name, cost=cost, max_num_batched_tokens=8192)
        )
        for name in ("layered-prefill", "chunked-prefill")
    )
    assert layered.request_columns["finish_s"].tolist() == chunked.request_columns["finish_s"].tolist()


def test_all_tokens_pairs_and_context_of_a_prompt_are_counted_once():
    """With what a prefix cache holds: attention over all groups is that of the prompt in one piece."""
    requests = Lists.of([0.0, 1.0], [1600, 1600], 2)
    requests.unit_tokens, requests.units = 16, [tuple(range(100)), (*range(40), *range(1000, 1060))]
    columns = served(requests, prefix_caching=True).tables[0].columns
    second = columns["start_s"] >= 1.0
    new, cached = 1600 - 640, 640
    assert columns["prefill_tokens"][second].sum() == new
    assert columns["prefill_pairs"][second].sum() == pytest.approx(new * (cached + (new + 1) / 2))
    assert columns["prefill_ctx_tokens"][second].sum() == pytest.approx(cached, abs=2)

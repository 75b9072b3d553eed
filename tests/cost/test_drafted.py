"""What proposing and verifying take, on every kind of cost model."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simslm.catalog.devices import load_device
from simslm.catalog.models import load_model
from simslm.catalog.work import IterationShape
from simslm.cost.drafted import Drafted
from simslm.cost.roofline import Roofline

TARGET = Roofline(load_model("llama-2-7b"), load_device("a100-80gb"), "fp16")
DRAFT = Roofline(load_model("tinyllama-1.1b"), load_device("a100-80gb"), "fp16")

batches = st.tuples(st.integers(1, 99), st.integers(1, 2000), st.integers(0, 6))


def verifying(seqs: int, context: int, drafts: int) -> IterationShape:
    return IterationShape(seqs, seqs * context, 0, 0, 0, 0.0, 0, seqs * drafts)


def columns(shapes: list[IterationShape]) -> IterationShape:
    return IterationShape(*(np.array(values) for values in zip(*shapes, strict=True)))


@pytest.fixture(params=["roofline", "measured", "drafted"])
def cost(request):
    chosen = {"roofline": lambda: TARGET, "drafted": lambda: Drafted(TARGET, DRAFT)}
    return chosen.get(request.param, lambda: request.getfixturevalue("noisy"))()


@pytest.mark.slow
def test_numbers_and_columns_are_bitwise_equal(cost):
    @given(st.lists(batches, min_size=1))
    def check(rows):
        shapes = [verifying(*row) for row in rows]
        shapes += [IterationShape(*shape[:2], 1, 300, 0, 45150.0) for shape in shapes]
        assert [cost.latency_s(shape) for shape in shapes] == cost.evaluate(
            columns(shapes)
        ).latency_s.tolist()

    check()


def test_verifying_more_never_takes_less(cost):
    @given(batches)
    def check(row):
        seqs, context, drafts = row
        assert cost.latency_s(verifying(seqs, context, drafts + 1)) >= cost.latency_s(verifying(*row))

    check()


def test_verifying_nothing_is_decoding(cost):
    shape = verifying(8, 500, 0)
    assert cost.latency_s(shape) == cost.decode(8).latency_s(4000)


def test_a_verification_in_memory_bounds_costs_little_and_a_large_one_what_its_tokens_cost():
    one, six = (TARGET.latency_s(verifying(1, 500, drafts)) for drafts in (0, 5))
    assert six < 1.02 * one
    one, six = (TARGET.latency_s(verifying(256, 500, drafts)) for drafts in (0, 5))
    assert six > 2 * one


def test_the_draft_decodes_once_for_every_token_it_proposes():
    both = Drafted(TARGET, DRAFT)
    shape = verifying(4, 100, 3)
    rounds = [DRAFT.decode(4).latency_s(400 + 4 * i) for i in range(3)]
    assert both.latency_s(shape) == pytest.approx(TARGET.latency_s(shape) + sum(rounds))
    costs, alone = both.evaluate(columns([shape])), TARGET.evaluate(columns([shape]))
    assert costs.energy_j is not None
    assert alone.energy_j is not None
    assert costs.energy_j[0] > alone.energy_j[0]
    assert costs.host_s[0] == pytest.approx(both.host_s(shape))
    assert both.host_s(shape) == pytest.approx(TARGET.host_s(shape) + 3 * DRAFT.host_s(IterationShape(4, 0)))


def test_both_prefill_a_prompt():
    prompt = IterationShape(0, 0, 1, 300, 0, 45150.0)
    assert Drafted(TARGET, DRAFT).latency_s(prompt) == TARGET.latency_s(prompt) + DRAFT.latency_s(prompt)

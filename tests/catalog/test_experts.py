"""Which experts an iteration reads: the expectation, its limits, and numbers and arrays to the same bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simslm.catalog.architecture import element_bytes
from simslm.catalog.experts import Routing
from simslm.catalog.models import load_model
from simslm.catalog.work import IterationShape, WorkModel, work

QWEN = load_model("qwen3-30b-a3b")


def test_the_share_is_what_uniform_choices_pass_on_average():
    """Within four standard errors of 2,000 draws of ``T`` tokens, each to 8 of 64 experts."""
    rng = np.random.default_rng(1)
    for tokens in (1, 3, 10):
        scores = rng.random((2000, tokens, 64))
        chosen = np.argpartition(scores, 8, axis=2)[:, :, :8]
        passed = np.array([len(np.unique(draw)) for draw in chosen]) / 64
        error = 4 * passed.std() / np.sqrt(len(passed)) + 1e-12
        assert Routing(64, 8).share(tokens) == pytest.approx(passed.mean(), abs=error)


def test_from_none_to_all():
    routing = Routing(128, 8)
    assert [routing.share(tokens) for tokens in (0, 1, 10**9)] == [0.0, 8 / 128, 1.0]
    assert Routing(1, 1).share(5) == Routing(64, 64).share(1) == 1.0
    assert Routing(10**9, 1).share(10**9) == pytest.approx(1 - np.exp(-(2**20) / 10**9), rel=1e-3)


@given(
    st.integers(1, 600).flatmap(lambda e: st.tuples(st.just(e), st.integers(1, e))),
    st.lists(st.one_of(st.integers(0, 10**6), st.floats(0, 1e6)), min_size=1, max_size=9),
)
def test_it_rises_and_is_the_same_for_numbers_and_arrays(routed, tokens):
    routing = Routing(*routed)
    tokens = sorted(tokens)
    shares = [routing.share(each) for each in tokens]
    assert shares == sorted(shares)
    assert routing.share(np.array(tokens, dtype=float)).tolist() == shares
    assert all(0 <= share <= 1 for share in shares)


def test_a_token_reads_and_computes_with_the_active_parameters():
    alone = work(QWEN, "bf16", IterationShape(1, 0))
    layers = QWEN.num_layers * (QWEN.layer_active_parameters() + QWEN.layer_vector_parameters())
    assert alone.linear_bytes == pytest.approx(2 * layers, rel=1e-12)
    assert alone.linear_flops == 2 * QWEN.num_layers * QWEN.layer_active_parameters()


def test_many_tokens_read_all_experts_and_compute_with_their_own():
    many = work(QWEN, "bf16", IterationShape(0, 0, 4, 4096, 0, 0.0))
    layers = QWEN.num_layers * (QWEN.layer_matrix_parameters() + QWEN.layer_vector_parameters())
    assert many.linear_bytes == pytest.approx(element_bytes("bf16") * layers, rel=1e-12)
    assert many.linear_flops == 4096 * 2 * QWEN.num_layers * QWEN.layer_active_parameters()


def test_nothing_is_read_for_no_token():
    assert work(QWEN, "bf16", IterationShape(0, 0)).bytes == 0


def test_a_dense_model_reads_all_its_layers():
    dense = WorkModel(load_model("qwen3-8b"), "bf16")
    assert dense.expert_bytes == 0
    assert dense(IterationShape(1, 0)).linear_bytes == dense(IterationShape(500, 0)).linear_bytes

"""Which shapes are measured and held out: every area up to the model's limit, contexts spread around their mean."""

import itertools

import pytest

from profiler.grid import Shape, heldout_shapes, measured_shapes


@pytest.mark.parametrize(("kind", "grid"), list(itertools.product(("cpu", "cuda"), ("quick", "full"))))
def test_grids_cover_every_area_up_to_the_models_limit(make_tiny, kind, grid):
    model = make_tiny("opt", max_position_embeddings=2048)
    shapes = measured_shapes(model, kind, grid, 10**9, 16)
    assert len(shapes) == len(set(shapes))
    assert max(s.decode_ctx for s in shapes) == 2047
    assert all(s.prefill_ctx + s.prefill_new <= 2048 for s in shapes)
    assert any(s.prefill_ctx for s in shapes)
    assert any(s.prefill_seqs > 1 for s in shapes)
    batches = {s.decode_seqs for s in shapes}
    assert {s.decode_seqs for s in shapes if s.prefill_seqs} == batches
    assert not set(shapes) & set(heldout_shapes(model, 10**9, 16))
    small = measured_shapes(model, kind, grid, 100, 16)
    assert small
    assert all(s.blocks(16, 2048) <= 100 for s in small)


def test_enough_heldout_shapes_in_every_area(make_tiny):
    shapes = heldout_shapes(make_tiny("opt", max_position_embeddings=2048), 10**9, 16)
    decode = [s for s in shapes if not s.prefill_seqs]
    prefill = [s for s in shapes if not s.decode_seqs]
    mixed = [s for s in shapes if s.prefill_seqs and s.decode_seqs]
    assert min(len(decode), len(prefill), len(mixed)) >= 6
    assert len(shapes) >= 20


def test_a_shape_sums_tokens_over_its_sequences():
    shape = Shape(3, 100, 2, 50, 7)
    assert tuple(shape.columns().values()) == (3, 300, 2, 100, 14)
    assert shape.contexts(2048) == [50, 100, 150]
    assert shape.blocks(16, 2048) == 4 + 7 + 10 + 2 * 4


@pytest.mark.parametrize(
    "shape", [Shape(1, 520), Shape(2, 3), Shape(4, 8), Shape(32, 1032), Shape(1024, 8), Shape(7, 1500)]
)
def test_contexts_are_spread_around_their_mean_as_far_as_the_model_goes(shape):
    contexts = shape.contexts(2048)
    assert len(contexts) == shape.decode_seqs
    assert sum(contexts) == shape.columns()["decode_ctx_tokens"]
    assert min(contexts) >= shape.decode_ctx / 4
    assert max(contexts) <= min(2047, 1.75 * shape.decode_ctx)
    steps = {b - a for a, b in itertools.pairwise(contexts)}
    assert max(steps, default=0) - min(steps, default=0) <= 1
    assert Shape(shape.decode_seqs, 2047).contexts(2048) == [2047] * shape.decode_seqs

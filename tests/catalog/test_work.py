"""FLOPs and bytes of one iteration, against a count that walks the layers matrix by matrix."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simslm.catalog.models import load_model, model_names
from simslm.catalog.work import IterationShape, Work, equal_prompts, work, work_model

MODELS = {name: load_model(name) for name in ("opt-1.3b", "opt-350m", "qwen2.5-0.5b", "phi-2", "gemma-2-2b")}


def matrices(model):
    """The (rows, columns) of every matrix a token goes through, but for the head."""
    query, kv = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    layer = [(model.hidden_size, query), (model.hidden_size, kv), (model.hidden_size, kv)]
    layer += [(query, model.hidden_size)]
    layer += [(model.hidden_size, model.intermediate_size)] * (2 if model.gated_mlp else 1)
    layer += [(model.intermediate_size, model.hidden_size)]
    narrow = model.embedding_size != model.hidden_size
    return layer * model.num_layers + [(model.embedding_size, model.hidden_size)] * narrow


def dense_count(model, decode_ctx, prompts):
    """FLOPs of sequences decoding at contexts ``decode_ctx`` and of ``prompts`` as (cached, new)."""
    window_of = [
        model.sliding_window if layer < model.sliding_window_layers else 10**9
        for layer in range(model.num_layers)
    ]
    width = model.num_heads * model.head_dim
    tokens = len(decode_ctx) + sum(new for _, new in prompts)
    linear = sum(2 * rows * columns * tokens for rows, columns in matrices(model))
    decode = sum(4 * width * min(ctx + 1, window) for window in window_of for ctx in decode_ctx)
    prefill = 0
    for cached, new in prompts:
        pairs = sum(cached + i + 1 for i in range(new))
        prefill += sum(4 * width * min(pairs, new * window) for window in window_of)
    rows = len(decode_ctx) + len(prompts)
    table = model.vocab_size * model.embedding_size
    narrow = model.embedding_size * model.hidden_size * (model.embedding_size != model.hidden_size)
    return linear, decode, prefill, 2 * rows * (table + narrow)


@pytest.mark.parametrize("name", MODELS)
def test_flops_match_an_independent_count(name):
    model = MODELS[name]
    for ctx in (300, 6000):
        contexts = [ctx] * 3
        shape = equal_prompts(3, sum(contexts), 2, 2 * 64, 2 * 32)
        done = work(model, "bf16", shape)
        linear, decode, prefill, head = dense_count(model, contexts, [(32, 64)] * 2)
        assert done.linear_flops == linear
        assert done.decode_flops == decode
        assert done.prefill_flops == prefill
        assert done.head_flops == head
        assert done.flops == linear + decode + prefill + head


@pytest.mark.parametrize("name", model_names())
def test_weights_read_are_the_model_s_weights(name):
    """Layers, head and untied table make up all that a token passes, but for positions and the last norm."""
    model = load_model(name)
    done = work(model, "bf16", IterationShape(1, 0))
    norm = model.hidden_size * (2 if model.norm == "layernorm" else 1) * model.final_norm
    positions = (model.max_position_embeddings + model.position_offset) * model.hidden_size
    positions *= model.positions == "learned"
    table = model.vocab_size * model.embedding_size * (not model.tied_embeddings)
    read = (done.linear_bytes + done.head_bytes) / 2
    assert read + norm + positions + table == model.active_parameters()
    assert done.embedding_bytes == 2 * (
        model.embedding_size + model.hidden_size * (model.positions == "learned")
    )


def test_cache_traffic_is_context_read_and_new_tokens_written():
    model = load_model("llama-3.2-1b")
    per_token = model.kv_bytes_per_token("bf16")
    done = work(model, "bf16", IterationShape(4, 1000, 1, 128, 256, 0.0))
    assert done.decode_bytes == per_token * (1000 + 4 + 4)
    assert done.prefill_bytes == per_token * (256 + 128 + 128)


def test_a_window_bounds_what_a_layer_reads():
    model = load_model("gemma-2-2b")
    near, far = (work(model, "bf16", IterationShape(2, 2 * ctx)) for ctx in (4095, 8191))
    layer = 2 * model.kv_size * 2
    assert far.decode_bytes - near.decode_bytes == layer * 13 * 2 * 4096
    assert near.decode_bytes == model.kv_bytes_per_token("bf16") * 2 * (4096 + 1)


def test_drafted_tokens_are_computed_like_a_chunk_of_a_prompt():
    """Verifying k tokens of one sequence is a chunk of k + 1 tokens behind its context, each of them sampled."""
    model, k, context = MODELS["opt-1.3b"], 4, 700
    verified = work(model, "bf16", IterationShape(1, context, draft_tokens=k))
    chunk = work(model, "bf16", equal_prompts(0, 0, 1, k + 1, context))
    assert verified.linear_flops == chunk.linear_flops
    assert verified.decode_flops == chunk.prefill_flops
    assert verified.decode_bytes == chunk.prefill_bytes
    assert verified.head_flops == (k + 1) * chunk.head_flops
    assert verified.linear_bytes == chunk.linear_bytes


@given(st.integers(1, 64), st.integers(0, 4096), st.integers(1, 8))
def test_drafted_tokens_of_a_batch_are_those_of_its_sequences(seqs, context, k):
    model = MODELS["opt-1.3b"]
    batch = work(model, "bf16", IterationShape(seqs, seqs * context, draft_tokens=seqs * k))
    one = work(model, "bf16", IterationShape(1, context, draft_tokens=k))
    assert batch.decode_flops == pytest.approx(seqs * one.decode_flops)
    assert batch.decode_bytes == seqs * one.decode_bytes
    assert batch.linear_flops == seqs * one.linear_flops
    assert batch.linear_bytes == one.linear_bytes


def test_nothing_to_run_is_no_work():
    assert work(MODELS["opt-1.3b"], "bf16", IterationShape(0, 0)) == Work(*[0] * 9)


def test_bytes_scale_with_the_data_type_and_flops_do_not():
    shape = IterationShape(4, 1000, 1, 128, 256, 40000.0)
    half, full = (work(MODELS["opt-1.3b"], dtype, shape) for dtype in ("bf16", "fp32"))
    assert full.bytes == 2 * half.bytes
    assert full.flops == half.flops


counts = st.integers(0, 1024)
tokens = st.integers(0, 2**20)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(sorted(MODELS)),
    st.lists(
        st.tuples(counts, tokens, counts, tokens, tokens, st.floats(0, 1e12), counts, tokens),
        min_size=1,
        max_size=5,
    ),
)
def test_scalars_and_arrays_agree_bitwise(name, shapes):
    model = work_model(MODELS[name], "bf16")
    columns = model(IterationShape(*(np.array(column) for column in zip(*shapes, strict=True))))
    for i, shape in enumerate(shapes):
        single = model(IterationShape(*shape))
        assert [float(column[i]) for column in columns] == [float(value) for value in single]


@given(counts, tokens, st.integers(1, 64), st.integers(1, 2048), st.integers(0, 4096))
def test_equal_prompts_visit_the_pairs_of_each(decode_seqs, context, prompts, new, cached):
    shape = equal_prompts(decode_seqs, context, prompts, prompts * new, prompts * cached)
    assert shape.prefill_pairs == pytest.approx(prompts * (new * cached + new * (new + 1) / 2))

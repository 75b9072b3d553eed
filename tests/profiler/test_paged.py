"""Attention in place, by Triton's interpreter, against softmax in float64; and how its tiles cover a batch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.engine.batch import Chunk, lay_out_ragged
from profiler.engine.cache import PagedCache
from profiler.engine.staging import staged
from profiler.engine.tables import BlockTables

paged = pytest.importorskip("profiler.engine.paged", reason="Triton is not installed", exc_type=ImportError)

CPU = torch.device("cpu")
BLOCKS = 400
MIXED = [(1, 0), (1, 200), (70, 33), (3, 90), (1, 64), (40, 0)]
DECODES = [(1, 5), (1, 333), (1, 128), (1, 0)]


def chunks(sizes, block_size):
    free, batch = np.random.default_rng(2).permutation(BLOCKS), []
    for new, cached in sizes:
        pages = -(-(new + cached) // block_size)
        batch.append(Chunk(np.zeros(new, dtype=np.int64), cached, free[:pages]))
        free = free[pages:]
    return batch


def attended(architecture, cache, batch, processors, strided=False):
    """Queries, and what attention makes of them."""
    attention = paged.PagedAttention(architecture, cache, processors)
    layout = attention.lay_out(batch)
    _, positions, _, _, *tables = staged(layout.fields(), CPU)
    plan = attention.plan(layout, positions, tables)
    generator = torch.Generator().manual_seed(4)
    width = architecture.query_size
    queries = torch.randn(len(positions), 2 * width, generator=generator).to(cache.keys[0].dtype)
    queries = queries[:, :width] if strided else queries[:, :width].contiguous()
    return queries, attention.attend(0, queries, plan), plan


def expected(architecture, cache, batch, queries):
    """Softmax attention of the first layer in float64, one head of one sequence at a time."""
    a, rows = architecture, []
    group = a.num_heads // a.num_kv_heads
    by_head = queries.double().view(len(queries), a.num_heads, a.head_dim)
    start = 0
    for chunk in batch:
        new, length = len(chunk.tokens), chunk.cached + len(chunk.tokens)
        pages = torch.from_numpy(chunk.blocks)
        keys, values = (x[0][pages].flatten(0, 1)[:length].double() for x in (cache.keys, cache.values))
        back = (chunk.cached + torch.arange(new))[:, None] - torch.arange(length)
        unseen = (back < 0) | (back >= (a.sliding_window or length))
        heads = []
        for head in range(a.num_heads):
            scores = by_head[start : start + new, head] @ keys[:, head // group].T * a.head_dim**-0.5
            if a.attention_softcap:
                scores = a.attention_softcap * torch.tanh(scores / a.attention_softcap)
            weights = torch.softmax(scores.masked_fill(unseen, float("-inf")), -1)
            heads.append(weights @ values[:, head // group])
        rows.append(torch.stack(heads, 1).flatten(1))
        start += new
    return torch.cat(rows)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "width"), [(4, 2, 8), (14, 2, 64), (3, 1, 80), (2, 2, 16), (20, 1, 32)]
)
@pytest.mark.parametrize(("sizes", "processors"), [(MIXED, 1), (MIXED, 60), (DECODES, 500)])
def test_equals_softmax_in_float64(make_tiny, heads, kv_heads, width, sizes, processors):
    shape = {"num_heads": heads, "num_kv_heads": kv_heads, "head_dim": width, "max_position_embeddings": 800}
    architecture = make_tiny("llama", **shape)
    cache = PagedCache(architecture, BLOCKS, block_size=16, dtype=torch.float32, device=CPU)
    batch = chunks(sizes, 16)
    queries, found, plan = attended(architecture, cache, batch, processors)
    assert torch.allclose(found.double(), expected(architecture, cache, batch, queries), atol=2e-6)
    assert (plan.launches[0].splits > 1) == (processors > 1)
    assert len(plan.launches) == 1 + (sizes is MIXED)


@pytest.mark.parametrize(
    ("window", "cap"), [(1, None), (5, None), (32, None), (33, 0.7), (150, None), (None, 0.7), (None, 50.0)]
)
@pytest.mark.parametrize(("sizes", "processors"), [(MIXED, 1), (MIXED, 60), (DECODES, 500)])
def test_windows_and_caps_equal_softmax_in_float64(make_tiny, window, cap, sizes, processors):
    """32 keys are read at a time, so windows begin and end within, before and after what one program reads."""
    shape = {"num_heads": 6, "num_kv_heads": 2, "head_dim": 8, "max_position_embeddings": 800}
    windows = {"sliding_window": window, "sliding_window_layers": 2 if window else 0}
    architecture = make_tiny("llama", **shape, **windows, attention_softcap=cap)
    cache = PagedCache(architecture, BLOCKS, block_size=16, dtype=torch.float32, device=CPU)
    batch = chunks(sizes, 16)
    queries, found, _ = attended(architecture, cache, batch, processors)
    assert torch.allclose(found.double(), expected(architecture, cache, batch, queries), atol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
def test_half_precision(llama, dtype, tolerance):
    cache = PagedCache(llama, BLOCKS, block_size=4, dtype=dtype, device=CPU)
    batch = chunks([(1, 90), (30, 20), (1, 3)], 4)
    queries, found, _ = attended(llama, cache, batch, 16)
    assert found.dtype == dtype
    assert torch.allclose(found.double(), expected(llama, cache, batch, queries), atol=tolerance)


def test_queries_need_not_be_dense(llama):
    """They are a part of the fused projection's output."""
    cache = PagedCache(llama, BLOCKS, block_size=4, dtype=torch.float32, device=CPU)
    batch = chunks([(1, 50), (20, 0)], 4)
    queries, found, _ = attended(llama, cache, batch, 16, strided=True)
    assert not queries.is_contiguous()
    assert torch.allclose(found.double(), expected(llama, cache, batch, queries), atol=2e-6)


def test_splits_fill_the_device_whatever_the_lengths(make_tiny):
    long = make_tiny("llama", num_heads=8, num_kv_heads=8, max_position_embeddings=8192)
    cache = PagedCache(long, BLOCKS, block_size=16, dtype=torch.bfloat16, device=CPU)

    def splits(seqs, cached):
        attention = paged.PagedAttention(long, cache, 132)
        layout = attention.lay_out([Chunk([0], cached, np.arange(BLOCKS))] * seqs)
        _, positions, _, _, *tables = staged(layout.fields(), CPU)
        return attention.plan(layout, positions, tables).launches[0].splits

    assert [splits(seqs, 3000) for seqs in (1, 2, 8, 16, 32, 256)] == [32, 16, 4, 2, 1, 1]
    assert splits(2, 0) == splits(2, 6000)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(0, 90)), min_size=1, max_size=12),
    st.integers(1, 8),
    st.integers(1, 20),
)
def test_tiles_cover_every_query_once(sizes, small, large):
    batch = chunks(sizes, 4)[: BLOCKS // 40]
    kept = BlockTables(40, CPU, rows=4)
    layout = lay_out_ragged(batch, 4, kept, small, large)
    flat = np.concatenate([chunk.tokens for chunk in batch])
    assert len(layout.tokens) == len(flat)
    kept.update(*(torch.from_numpy(lacking) for lacking in layout.tables[2:]))
    pages, seen = kept.pages.numpy(), np.zeros(len(flat), dtype=int)
    for most, tiles in zip((small, large), layout.tables, strict=False):
        for row, count, keys, page in tiles.tolist():
            assert 0 < count <= most
            seen[row : row + count] += 1
            for query in range(count):
                position = layout.positions[row + query]
                assert position + 1 == keys + query
                slot = pages[page + position // 4] * 4 + position % 4
                assert layout.slots[row + query] == slot
    assert (seen == 1).all()
    assert (np.diff(layout.tables[1][:, 2]) <= 0).all()
    for chunk, last in zip(batch, layout.last_rows, strict=True):
        assert layout.positions[last] == chunk.cached + len(chunk.tokens) - 1

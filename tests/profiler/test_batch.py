"""Laying out a batch: every token has its place, and spans neither overflow, pad much nor leave a scrap."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.engine.batch import Chunk, lay_out

BLOCK = 4
LENGTHS = st.tuples(st.integers(1, 9), st.integers(0, 60))


def batch_of(lengths):
    free, batch = np.random.default_rng(0).permutation(2000), []
    for new, cached in lengths:
        pages = -(-(new + cached) // BLOCK)
        batch.append(Chunk(list(range(100, 100 + new)), cached, free[:pages]))
        free = free[pages:]
    return batch


@settings(max_examples=100, deadline=None)
@given(st.lists(LENGTHS, min_size=1, max_size=30), st.integers(1, 64))
def test_every_token_has_one_row_at_its_slot(lengths, span_pages):
    batch = batch_of(lengths)
    layout = lay_out(batch, BLOCK, span_pages)
    assert len(layout.tokens) == sum(new for new, _ in lengths)
    assert len(set(layout.slots.tolist())) == len(layout.slots)
    for chunk, last in zip(batch, layout.last_rows, strict=True):
        first = last - len(chunk.tokens) + 1
        positions = np.arange(chunk.cached, chunk.cached + len(chunk.tokens))
        assert layout.tokens[first : last + 1].tolist() == list(chunk.tokens)
        assert layout.positions[first : last + 1].tolist() == positions.tolist()
        slots = chunk.blocks[positions // BLOCK] * BLOCK + positions % BLOCK
        assert layout.slots[first : last + 1].tolist() == slots.tolist()


@settings(max_examples=100, deadline=None)
@given(st.lists(LENGTHS, min_size=1, max_size=30), st.integers(1, 64))
def test_spans_cover_the_rows_within_their_bounds(lengths, span_pages):
    layout = lay_out(batch_of(lengths), BLOCK, span_pages)
    rows = [row for span in layout.spans for row in range(*span.rows.indices(10**6))]
    assert rows == list(range(len(layout.tokens)))
    for span in layout.spans:
        needed = -(-(span.cached + span.new) // BLOCK)
        assert span.seqs == 1 or span.blocks.size <= span_pages
        assert span.seqs == 1 or span.blocks.size - needed.sum() <= span_pages // 8


@settings(max_examples=100, deadline=None)
@given(st.lists(LENGTHS, min_size=1, max_size=30), st.integers(4, 64), st.integers(1, 70))
def test_windowed_spans_hold_what_windows_reach_and_no_page_more(lengths, span_pages, window):
    layout = lay_out(batch_of(lengths), BLOCK, span_pages, window)
    if max(new + cached for new, cached in lengths) <= window:
        assert layout.windowed is layout.spans
        return
    rows = [row for span in layout.windowed for row in range(*span.rows.indices(10**6))]
    assert rows == list(range(len(layout.tokens)))
    assert len(layout.tables) == len(layout.spans) + len(layout.windowed)
    for span in layout.windowed:
        assert span.seqs == 1 or span.blocks.size <= span_pages
        for seq, cached in enumerate(span.cached.tolist()):
            first = span.start + seq * span.new
            behind = int(layout.positions[first])
            assert min(behind, window - 1) <= cached < window - 1 + BLOCK
            for i in range(span.new):
                page, place = divmod(cached + i, BLOCK)
                assert span.blocks[seq, page] * BLOCK + place == layout.slots[first + i]


@pytest.mark.parametrize(("seqs", "sizes"), [(4, [4]), (8, [4, 4]), (6, [3, 3]), (16, [4, 4, 4, 4])])
def test_equal_sequences_are_divided_evenly(seqs, sizes):
    layout = lay_out(batch_of([(1, 40)] * seqs), BLOCK, 11 * 5)
    assert [span.seqs for span in layout.spans] == sizes


def test_sequences_of_different_lengths_share_a_span_while_little_is_padded():
    """Decodes of 1 to 8 pages: 36 pages, 64 with padding, which costs less than a second span would."""
    lengths = [(1, BLOCK * pages - 1) for pages in range(1, 9)]
    assert [span.seqs for span in lay_out(batch_of(lengths), BLOCK, 28 * 8).spans] == [8]
    assert len(lay_out(batch_of(lengths), BLOCK, 63).spans) > 1

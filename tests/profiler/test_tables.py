"""Block tables on the device: what goes there, when, and what becomes of rows that are needed for others."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.engine.tables import BlockTables

CPU = torch.device("cpu")


def brought(tables, arrays):
    """The rows of arrays after an iteration, and how many integers it sent."""
    rows, lacking = tables.find(arrays)
    tables.update(*map(torch.from_numpy, lacking))
    for row, array in zip(rows, arrays, strict=True):
        there = tables.pages.view(-1, tables.width)[row, : len(array)]
        assert there.tolist() == array[: tables.width].tolist()
        assert tables.blocks(np.array([row]), np.array([0]))[0] == array[0]
    return rows.tolist(), lacking.shape[1]


def test_a_table_is_sent_when_its_array_is_new():
    tables, first, second = BlockTables(5, CPU, rows=4), np.array([7, 3]), np.array([4])
    rows, sent = brought(tables, [first, second])
    assert (len(set(rows)), sent) == (2, 3)
    assert brought(tables, [second, first, second]) == ([rows[1], rows[0], rows[1]], 0)
    grown = np.append(first, 9)
    assert brought(tables, [grown, second])[1] == 3


def test_rows_are_given_up_for_others_and_more_are_made_where_a_batch_has_more():
    tables = BlockTables(3, CPU, rows=2)
    before = tables.pages
    for number in range(5):
        brought(tables, [np.array([number]), np.array([10 + number])])
    assert tables.pages is before
    assert tables.generation == 0
    brought(tables, [np.array([number]) for number in range(3)])
    assert tables.generation == 1
    assert tables.pages is not before


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=7), min_size=1, max_size=12))
def test_every_batch_finds_its_own_tables(batches):
    arrays = [np.arange(1 + i % 4) + 10 * i for i in range(10)]
    tables = BlockTables(4, CPU, rows=3)
    for batch in batches:
        brought(tables, [arrays[i] for i in batch])

"""The projection onto monotone tables."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from simslm.cost.grid import Grid
from simslm.cost.isotonic import monotone, running_maximum

tables = arrays(
    float, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6), elements=st.floats(0, 10)
)


@given(tables)
def test_result_is_monotone_exactly(table):
    result = monotone(table, np.ones_like(table))
    assert (np.diff(result, axis=0) >= 0).all()
    assert (np.diff(result, axis=1) >= 0).all()


@given(tables)
def test_monotone_tables_stay(table):
    rising = running_maximum(table)
    np.testing.assert_allclose(monotone(rising, np.ones_like(table)), rising, rtol=0, atol=1e-7)


def test_projection_is_the_nearest_monotone_table():
    """Against brute force: no monotone table on a fine lattice is closer."""
    table = np.array([[3.0, 1.0], [2.0, 2.0]])
    best = monotone(table, np.ones_like(table))
    lattice = np.linspace(1, 3, 21)
    distance = min(
        (a - 3) ** 2 + (b - 1) ** 2 + (c - 2) ** 2 + (d - 2) ** 2
        for a in lattice
        for b in lattice[lattice >= a]
        for c in lattice[lattice >= a]
        for d in lattice[lattice >= max(b, c)]
    )
    assert ((best - table) ** 2).sum() <= distance + 1e-6
    np.testing.assert_allclose(best, 2.0, atol=1e-6)


@pytest.mark.slow
@given(st.integers(0, 2**32 - 1))
def test_projection_meets_the_conditions_of_a_nearest_point(seed):
    """For a convex cone: what is left over is orthogonal to the projection, and blunt to every monotone table."""
    rng = np.random.default_rng(seed)
    table, weights = rng.uniform(0, 10, (4, 5)), rng.uniform(0.5, 2, (4, 5))
    best = monotone(table, weights)
    left = weights * (table - best)
    assert abs((left * best).sum()) < 1e-4
    for _ in range(20):
        assert (left * running_maximum(rng.uniform(-10, 10, (4, 5)))).sum() < 1e-4


def test_weights_decide_who_moves():
    result = monotone(np.array([[2.0, 1.0]]), np.array([[1000.0, 1.0]]))
    np.testing.assert_allclose(result, [[2.0, 2.0]], atol=2e-3)


@given(
    arrays(float, (4, 5), elements=st.floats(0, 10)),
    arrays(float, 20, elements=st.floats(0, 40)),
    arrays(float, 20, elements=st.floats(0, 40)),
)
def test_grid_meets_its_nodes_and_is_the_same_for_numbers_and_columns(values, x, y):
    grid = Grid(np.array([0.0, 1.0, 5.0, 20.0]), np.array([0.0, 2.0, 3.0, 10.0, 30.0]), values)
    nodes = np.meshgrid(grid.xs, grid.ys, indexing="ij")
    np.testing.assert_allclose(grid.many(*nodes), values, rtol=0, atol=1e-12 * 1e3)
    assert [grid.at(*point) for point in zip(x.tolist(), y.tolist(), strict=True)] == grid.many(x, y).tolist()


def test_grid_is_bilinear_within_and_beyond():
    xs, ys = np.array([0.0, 1.0, 4.0]), np.array([0.0, 2.0, 3.0])
    grid = Grid(xs, ys, 1 + 2 * xs[:, None] + 3 * ys[None, :] + 5 * np.outer(xs, ys))
    for x, y in ((0.5, 0.5), (3.0, 2.5), (10.0, 1.0), (10.0, 10.0)):
        assert abs(grid.at(x, y) - (1 + 2 * x + 3 * y + 5 * x * y)) < 1e-9

"""How much a parameter matters: shares of the variance, by hand."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from support.pages import valid

from simslm.report.importance import MOST_LEVELS, caution, importance, importance_figure, levels, share, whole

GRID = list(product([1, 2, 4], ["a", "b"]))
COLUMNS = [[point[i] for point in GRID] for i in (0, 1)]


def test_a_parameter_that_decides_alone_has_the_whole_share():
    values = np.array([10.0 * number for number, _ in GRID])
    assert share(levels(COLUMNS[0]), values) == pytest.approx(1)
    assert share(levels(COLUMNS[1]), values) == 0


def test_additive_effects_divide_the_variance_and_leave_nothing():
    """Of x + y with x in 1, 2, 4 and y in 0, 3: variances 14/9 and 9/4."""
    values = np.array([number + 3 * (letter == "b") for number, letter in GRID], dtype=float)
    found = importance("sum", COLUMNS, values)
    total = 14 / 9 + 9 / 4
    assert found.shares == pytest.approx([14 / 9 / total, 9 / 4 / total])
    assert found.together == pytest.approx(0, abs=1e-12)


def test_what_only_the_combination_decides_is_left_together():
    """Of (-1)^x (-1)^y over a whole grid of two by two no parameter explains anything by itself."""
    columns = [[0, 0, 1, 1], [0, 1, 0, 1]]
    found = importance("parity", columns, np.array([1.0, -1.0, -1.0, 1.0]))
    assert found.shares == [0, 0]
    assert found.together == 1


def test_a_figure_that_does_not_vary_has_no_shares():
    assert importance("same", COLUMNS, np.full(6, 2.0)).shares == []
    assert importance("one", [[1], ["a"]], np.array([2.0])).shares == []


def test_many_numbers_are_gathered_into_equally_frequent_ranges():
    found = levels(list(np.random.default_rng(0).uniform(size=800)))
    assert np.bincount(found).tolist() == [100] * MOST_LEVELS
    assert levels([True, False, None]).max() == 2


def test_only_a_whole_grid_is_without_caution():
    assert whole(COLUMNS)
    assert caution(COLUMNS) == ""
    missing = [column[:-1] for column in COLUMNS]
    assert not whole(missing)
    assert "by chance alone" in caution(missing)
    assert importance("sum", missing, np.arange(5.0)).together is None
    many = [column * 10 for column in missing]
    assert "by chance" not in caution(many)


def test_the_most_important_parameter_is_on_top():
    values = np.array([number + 30 * (letter == "b") for number, letter in GRID], dtype=float)
    figure = valid(importance_figure(["number", "<letter>"], [importance("sum", COLUMNS, values)]))
    assert list(figure.data[0].y) == ["together", "number", "&lt;letter>"]

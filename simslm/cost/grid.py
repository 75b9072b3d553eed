"""A table of two variables, bilinear between its nodes: the same bits for a number and for a column."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np


class Grid:
    """Values on a rectangle of nodes; the outermost cells carry on beyond it.

    Every cell is kept as the four coefficients of ``(a + b x) + (c + d x) y``, so that a look-up is two
    bisections and seven roundings, in the same order for a number (:meth:`at`) and an array (:meth:`many`).

    Args:
        xs: increasing, shape ``(n,)``, n >= 2.
        ys: increasing, shape ``(m,)``, m >= 2.
        values: shape ``(n, m)``.
    """

    __slots__ = ("_cells", "_coefficients", "_inner_x", "_inner_y", "values", "xs", "ys")

    def __init__(self, xs: np.ndarray, ys: np.ndarray, values: np.ndarray) -> None:
        self.xs, self.ys, self.values = xs, ys, values
        self._inner_x = tuple(xs[1:-1].tolist())
        self._inner_y = tuple(ys[1:-1].tolist())
        self._coefficients = _bilinear(xs, ys, values)
        cells = np.stack(self._coefficients, axis=-1).tolist()
        self._cells = tuple(tuple(tuple(cell) for cell in row) for row in cells)

    def at(self, x: float, y: float) -> float:
        """The value at one point."""
        a, b, c, d = self._cells[bisect_right(self._inner_x, x)][bisect_right(self._inner_y, y)]
        return (a + b * x) + (c + d * x) * y

    def many(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The values at many points, bitwise equal to :meth:`at`; shape ``(k,)``."""
        i = np.searchsorted(self._inner_x, x, side="right")
        j = np.searchsorted(self._inner_y, y, side="right")
        a, b, c, d = (table[i, j] for table in self._coefficients)
        return (a + b * x) + (c + d * x) * y


def _bilinear(xs: np.ndarray, ys: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, ...]:
    """Coefficients of every cell, each of shape ``(n - 1, m - 1)``."""
    x, y = xs[:-1, None], ys[None, :-1]
    width, height = np.diff(xs)[:, None], np.diff(ys)[None, :]
    corner = values[:-1, :-1]
    along_x = (values[1:, :-1] - corner) / width
    along_y = (values[:-1, 1:] - corner) / height
    twist = (values[1:, 1:] - values[1:, :-1] - values[:-1, 1:] + corner) / (width * height)
    b = along_x - twist * y
    c = along_y - twist * x
    a = corner - along_x * x - along_y * y + twist * x * y
    return a, b, c, twist

"""Tables that never fall: the nearest table, in least squares, that is monotone along both axes."""

from __future__ import annotations

import numpy as np

_ROUNDS = 200
_TOLERANCE = 1e-9


def monotone(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted least-squares projection of a table onto tables that rise (or stay) along both axes.

    Rows and columns are projected in turn with Dykstra's corrections, which converge to the projection onto
    the intersection (Dykstra & Robertson 1982, "An algorithm for isotonic regression for two or more
    independent variables"); running maxima then remove what is left, so the result is monotone exactly.

    Args:
        values: shape ``(n, m)``; any unit.
        weights: shape ``(n, m)``, positive.

    Returns:
        Shape ``(n, m)``; equal to ``values`` where they are monotone already.
    """
    table = np.array(values, dtype=float)
    scale = np.abs(table).max() or 1.0
    row_excess = np.zeros_like(table)
    column_excess = np.zeros_like(table)
    for _ in range(_ROUNDS):
        before = table
        rows = _project_rows(table + row_excess, weights)
        row_excess = table + row_excess - rows
        table = _project_rows((rows + column_excess).T, weights.T).T
        column_excess = rows + column_excess - table
        if np.abs(table - before).max() <= _TOLERANCE * scale:
            break
    return running_maximum(table)


def running_maximum(values: np.ndarray) -> np.ndarray:
    """The smallest table at or above ``values`` that is monotone along both axes."""
    return np.maximum.accumulate(np.maximum.accumulate(values, axis=0), axis=1)


def rising(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted least-squares projection of a sequence onto those that rise (or stay); shape ``(n,)``."""
    from scipy.optimize import isotonic_regression

    return isotonic_regression(values, weights=weights).x


def _project_rows(table: np.ndarray, weights: np.ndarray) -> np.ndarray:
    pairs = zip(table, weights, strict=True)
    return np.array([rising(row, weight) for row, weight in pairs])

"""How much each parameter of a search matters to a figure: its share of the variance, from the trials alone.

The share of a parameter is that of its main effect, ``Σ_l n_l (m_l − m)² / Σ_i (y_i − m)²`` over its values ``l``, with
``m_l`` the mean of the ``n_l`` points that have the value and ``m`` that of all: the correlation ratio η² (Fisher,
Statistical Methods for Research Workers, chapter VIII). Over a whole grid, where every combination is there once, the
shares are parts of one whole and what is missing to 1 are interactions; elsewhere they may overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from simslm.report.figures import Figure, frame, titled_axis
from simslm.report.palette import SERIES
from simslm.report.parity import plain

MOST_LEVELS = 8
"""Values of a numeric parameter beyond which they are gathered into as many equally frequent ranges."""

FEW_PER_LEVEL = 3
"""Points for each value of a parameter below which its share is mostly chance, unless the grid is whole."""


@dataclass(frozen=True, slots=True)
class Importance:
    """The parameters of a search and what they matter to one figure.

    Attributes:
        name: of the figure.
        shares: of the variance, one for each parameter; empty where the figure does not vary.
        together: the share that no single parameter explains, where the grid is whole; else None.
    """

    name: str
    shares: list[float]
    together: float | None


def levels(values: Sequence[Any]) -> np.ndarray:
    """The number of the level of each value, from 0; many different numbers are gathered into ranges."""
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if not numeric:
        return np.unique([str(value) for value in values], return_inverse=True)[1]
    distinct, index = np.unique(np.array(values, dtype=float), return_inverse=True)
    if len(distinct) <= MOST_LEVELS:
        return index
    edges = np.quantile(np.array(values, dtype=float), np.linspace(0, 1, MOST_LEVELS + 1)[1:-1])
    return np.searchsorted(edges, np.array(values, dtype=float), side="right")


def share(level: np.ndarray, values: np.ndarray) -> float:
    """The share of the variance of some values that their levels explain, 0 to 1; 0 without any variance."""
    mean = values.mean()
    total = float(np.sum((values - mean) ** 2))
    if total <= 0:
        return 0.0
    counts = np.bincount(level)
    sums = np.bincount(level, weights=values)
    there = counts > 0
    between = float(np.sum(counts[there] * (sums[there] / counts[there] - mean) ** 2))
    return min(between / total, 1.0)


def importance(name: str, columns: Sequence[Sequence[Any]], values: np.ndarray) -> Importance:
    """What each parameter matters to a figure, over the points at which it is finite.

    Args:
        name: of the figure.
        columns: for each parameter, its value at each point.
        values: of the figure at each point, all known, perhaps infinite.
    """
    there = np.isfinite(values)
    values = values[there]
    columns = [[each for each, known in zip(column, there, strict=True) if known] for column in columns]
    if len(values) < 2 or np.ptp(values) == 0:
        return Importance(name, [], None)
    found = [share(levels(column), values) for column in columns]
    left = max(1.0 - sum(found), 0.0) if whole(columns) else None
    return Importance(name, found, left)


def whole(columns: Sequence[Sequence[Any]]) -> bool:
    """Whether every combination of the parameters' values is there, once."""
    points = {tuple(str(value) for value in point) for point in zip(*columns, strict=True)}
    count = prod(len({str(value) for value in column}) for column in columns)
    return len(points) == count == len(columns[0])


def caution(columns: Sequence[Sequence[Any]]) -> str:
    """What limits the shares of a search that is no whole grid; empty where nothing does."""
    if whole(columns):
        return ""
    count = len(columns[0])
    most = max(len(np.unique(levels(column))) for column in columns)
    few = (
        f" With {count} points for up to {most} values of a parameter, much of it may be chance: by chance alone a "
        f"share is about {100 * min((most - 1) / max(count - 1, 1), 1.0):.0f} %."
    )
    return "The points are no whole grid, so that shares may overlap and do not add up." + (
        few if count < FEW_PER_LEVEL * most else ""
    )


def importance_figure(parameters: Sequence[str], found: Sequence[Importance]) -> Figure:
    """Bars: a row for each parameter, a colour for each figure, the most important parameter on top."""
    shown = [each for each in found if each.shares]
    weight = [max(each.shares[i] for each in shown) for i in range(len(parameters))]
    order = sorted(range(len(parameters)), key=lambda i: weight[i])
    names = [plain(parameters[i]) for i in order]
    together = any(each.together is not None for each in shown)
    if together and len(parameters) > 1:
        names = ["together", *names]
    data = []
    for each, colour in reversed(list(zip(shown, SERIES, strict=False))):
        shares = [each.shares[i] for i in order]
        if together and len(parameters) > 1:
            shares = [each.together or 0.0, *shares]
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": plain(each.name),
                "x": [round(100 * value, 2) for value in shares],
                "y": names,
                "marker": {"color": colour},
                "hovertemplate": f"{plain(each.name)}: %{{x:.3~g}} % by %{{y}}<extra></extra>",
            }
        )
    height = 70 + len(names) * max(20 + 11 * len(shown), 34)
    left = min(34 + round(6.2 * max(len(name) for name in names)), 190)
    layout = {
        **frame(height=height, left=left, top=8, bottom=46),
        "barmode": "group",
        "bargap": 0.3,
        "xaxis": {**titled_axis("share, %"), "range": [0, 102], "dtick": 25},
        "yaxis": {**titled_axis("parameter"), "type": "category", "showgrid": False},
    }
    return {"data": data, "layout": layout}

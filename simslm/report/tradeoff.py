"""How the figures of a search are shown, and the drawing of what the search had gained after each trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isinf

import numpy as np

from simslm.metrics.figure_paths import metric_of
from simslm.metrics.figure_paths import title as name_of
from simslm.report.figures import Figure, frame, rounded, titled_axis
from simslm.report.wording import TimeUnit, time_unit
from simslm.units import number

SHARE = TimeUnit("%", 100.0)


@dataclass(frozen=True, slots=True)
class Scale:
    """How one figure of a summary is shown.

    Attributes:
        path: of the figure.
        name: without its unit.
        unit: its name, and how many of it the file's unit holds.
        better: 1 where more is better, -1 where less is, 0 where neither.
    """

    path: str
    name: str
    unit: TimeUnit
    better: int = 0

    @property
    def title(self) -> str:
        return f"{self.name}, {self.unit.name}" if self.unit.name else self.name

    def show(self, value: float | None) -> str:
        """A figure without its unit; ``none`` where it is infinite, because requests are missed."""
        return "none" if value is None or isinf(value) else number(value * self.unit.per_s)


SHARES = {
    "requests.finished_share": ("Finished requests", 1),
    "requests.rejected_share": ("Rejected requests", -1),
    "requests.failed_share": ("Failed requests", -1),
    "requests.unfinished_share": ("Unfinished requests", -1),
}
"""Figures of a search that no summary has: their names, and what is better."""


def scale(path: str, values: Sequence[float | None], capacity_of: str = "") -> Scale:
    """The scale of a figure, for some of its values.

    Args:
        path: of the figure.
        values: to be shown; None where one is infinite.
        capacity_of: the key whose highest value is the capacity of a point.
    """
    metric = metric_of(path)
    if metric is None and path.endswith("_share"):
        whose, _, own = path.rpartition("requests.")
        name, better = SHARES[f"requests.{own}"]
        return Scale(path, f"{name} of {whose.split('.')[1]}" if whose else name, SHARE, better)
    if metric is None:  # the capacity of a search
        unit = "requests/s" if capacity_of.endswith("rate_rps") else capacity_of.rpartition(".")[2]
        return Scale(path, "Capacity", TimeUnit(unit, 1.0), 1)
    units = {"s": time_unit(values), "1": SHARE}
    unit = units.get(metric.unit, TimeUnit(metric.unit, 1.0))
    return Scale(path, name_of(path), unit, {"more": 1, "less": -1}.get(metric.better, 0))


def growth_figure(trials: np.ndarray, volumes: np.ndarray) -> Figure:
    """The hypervolume after each trial, as a share of the last one."""
    last = float(volumes[-1]) or 1.0
    line = {
        "type": "scatter",
        "mode": "lines",
        "x": rounded(trials),
        "y": rounded(100 * volumes / last),
        "line": {"color": "@accent", "width": 2, "shape": "hv"},
        "hovertemplate": "after trial %{x}: %{y:.4~g} %<extra></extra>",
    }
    layout = {
        **frame(height=240, left=52, top=14, bottom=46),
        "xaxis": {**titled_axis("trial"), "nticks": 8},
        "yaxis": {**titled_axis("hypervolume, % of the last"), "range": [0, 104], "dtick": 25},
    }
    return {"data": [line], "layout": layout}

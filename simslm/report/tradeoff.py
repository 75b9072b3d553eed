"""Drawings of a search: every point over two objectives with the frontier on top, and what the search had gained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simslm.metrics.definitions import BY_KEY
from simslm.report.figures import WIDE_RANGE, Figure, decades, frame, rounded, titled_axis
from simslm.report.parity import plain
from simslm.report.wording import TimeUnit, time_unit
from simslm.units import number

NAMES = {
    "throughput.requests_per_s": "requests/s",
    "throughput.output_tokens_per_s": "output tokens/s",
    "throughput.total_tokens_per_s": "total tokens/s",
    "slo.attainment": "SLO attainment",
    "slo.goodput_rps": "goodput, requests/s",
    "slo.goodput_output_tokens_per_s": "goodput, output tokens/s",
    "energy.j_per_output_token": "J per output token",
    "energy.j_per_total_token": "J per total token",
    "energy.mean_power_w": "mean power, W",
    "economics.usd_per_million_output_tokens": "$ per million output tokens",
    "economics.usd_per_million_total_tokens": "$ per million total tokens",
    "economics.g_co2_per_million_output_tokens": "g CO2 per million output tokens",
    "capacity.value": "capacity",
}


@dataclass(frozen=True, slots=True)
class Scale:
    """How one figure of a summary is shown.

    Attributes:
        path: of the figure.
        name: without its unit.
        unit: its name, and how many of it the file's unit holds.
    """

    path: str
    name: str
    unit: TimeUnit

    @property
    def title(self) -> str:
        return f"{self.name}, {self.unit.name}" if self.unit.name else self.name

    def show(self, value: float) -> str:
        return number(value * self.unit.per_s)


def scale(path: str, values: Sequence[float]) -> Scale:
    """The scale of a figure of a summary, for some of its values."""
    head, _, tail = path.partition(".")
    if head in BY_KEY or path == "makespan_s":
        name = f"{BY_KEY[head].name} {tail}" if head in BY_KEY else "makespan"
        return Scale(path, name, time_unit(values))
    return Scale(path, NAMES.get(path, path), TimeUnit("", 1.0))


@dataclass(frozen=True, slots=True)
class Cloud:
    """The points of a search over its objectives, all under the scenario's own seed.

    Attributes:
        labels: what each point is.
        values: by objective, of each point.
        kept: which of the points keep all constraints.
        chosen: which of them are on the frontier.
    """

    labels: Sequence[str]
    values: Mapping[str, np.ndarray]
    kept: np.ndarray
    chosen: np.ndarray


LAYERS = (
    ("breaks a constraint", {"color": "@muted", "symbol": "circle-open", "size": 5, "opacity": 0.45}),
    ("dominated", {"color": "@muted", "size": 5, "opacity": 0.35}),
    ("frontier", {"color": "@accent", "size": 8}),
)
"""What is drawn, from the back to the front, and its markers."""


def tradeoff_figure(first: Scale, second: Scale, cloud: Cloud) -> Figure:
    """All points, dimmed, hollow where they break a constraint; those of the frontier in colour."""
    layer = np.where(cloud.chosen, 2, np.where(cloud.kept, 1, 0))
    data = []
    for depth, (name, marker) in enumerate(LAYERS):
        mine = np.flatnonzero(layer == depth).tolist()
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": rounded(cloud.values[first.path][mine] * first.unit.per_s),
                "y": rounded(cloud.values[second.path][mine] * second.unit.per_s),
                "text": [plain(cloud.labels[i]) for i in mine],
                "marker": marker,
                "hovertemplate": "%{text}<br>%{x:.4~g}, %{y:.4~g}<extra></extra>",
            }
        )
    layout = {
        **frame(height=330, left=62, top=14, bottom=46),
        "xaxis": {**titled_axis(first.title), **_axis(first, cloud)},
        "yaxis": {**titled_axis(second.title), **_axis(second, cloud)},
    }
    return {"data": data, "layout": layout}


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


def _axis(scale: Scale, cloud: Cloud) -> dict[str, Any]:
    """Logarithmic where the figures span it."""
    values = cloud.values[scale.path] * scale.unit.per_s
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    if low <= 0 or high / low <= WIDE_RANGE:
        return {"nticks": 6}
    ticks = decades(low, high)
    bounds = [math.log10(low) - 0.06, math.log10(high) + 0.06]
    return {
        "type": "log",
        "range": rounded(bounds),
        "tickvals": ticks,
        "ticktext": [number(tick) for tick in ticks],
    }

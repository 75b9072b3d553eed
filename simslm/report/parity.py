"""Drawings of simulation beside measurement: every run a point, by model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simslm.report.figures import WIDE_RANGE, Figure, decades, frame, rounded, titled_axis
from simslm.report.page import Key
from simslm.report.palette import SERIES, SYMBOLS
from simslm.report.wording import TimeUnit, time_unit
from simslm.units import number

DIAGONAL = {"color": "@muted", "width": 1}


@dataclass(frozen=True, slots=True)
class Point:
    """One figure of one run.

    Attributes:
        run, model: what it is of.
        batch: the run's ``max_num_seqs``.
        measured, simulated: in the units of files.
        error: signed, as a fraction; None where it has no size.
    """

    run: str
    model: str
    batch: int
    measured: float
    simulated: float
    error: float | None


def legend(points: Sequence[Point]) -> list[Key]:
    """Each model with its colour and symbol."""
    return [Key(model, colour, symbol) for model, colour, symbol in _models(points)]


def parity_figure(column: str, points: Sequence[Point]) -> Figure:
    """Simulated against measured, with the line on which they are equal.

    Args:
        column: of ``RUNS.csv``, which says the unit.
        points: at least one.
    """
    both = np.array([[point.measured, point.simulated] for point in points])
    unit = _unit(column, both)
    both = both * unit.per_s
    shape, ends = _both_axes(both)
    line = {
        "type": "scatter",
        "mode": "lines",
        "x": rounded(ends),
        "y": rounded(ends),
        "line": DIAGONAL,
        "hoverinfo": "skip",
    }
    data = [line]
    for model, colour, symbol in _models(points):
        mine = [i for i, point in enumerate(points) if point.model == model]
        data.append(
            _markers(both[mine, 0], both[mine, 1], [points[i] for i in mine], colour, symbol)
            | {"hovertemplate": "%{text}<br>measured %{x:.4~g}, simulated %{y:.4~g}<extra></extra>"}
        )
    suffix = f", {unit.name}" if unit.name else ""
    layout = {
        **frame(height=300, left=62, top=12, bottom=46),
        "xaxis": {**titled_axis(f"measured{suffix}"), **shape},
        "yaxis": {**titled_axis(f"simulated{suffix}"), **shape},
    }
    return {"data": data, "layout": layout}


def error_figure(points: Sequence[Point]) -> Figure:
    """Signed error against the batch limit; runs whose error has no size are left out."""
    sized = [point for point in points if point.error is not None]
    batches = sorted({point.batch for point in sized})
    data = []
    for model, colour, symbol in _models(points):
        mine = [point for point in sized if point.model == model]
        errors = np.array([100 * (point.error or 0.0) for point in mine])
        data.append(
            _markers(np.array([point.batch for point in mine]), errors, mine, colour, symbol)
            | {"hovertemplate": "%{text}<br>batch %{x}, error %{y:+.2~f} %<extra></extra>"}
        )
    layout = {
        **frame(height=230, left=62, top=12, bottom=46),
        "xaxis": batch_axis(batches),
        "yaxis": {**titled_axis("error, %"), "zeroline": True, "zerolinecolor": "@muted", "nticks": 6},
    }
    return {"data": data, "layout": layout}


def _unit(column: str, values: np.ndarray) -> TimeUnit:
    """The unit of a column's figures on a screen, and how many of it the file's unit holds."""
    if column.endswith("_per_s"):
        return TimeUnit("1/s", 1.0)
    if column.endswith("_s"):
        return time_unit(values.ravel())
    known = {"_w": TimeUnit("W", 1.0), "_j": TimeUnit("J", 1.0), "_pct": TimeUnit("%", 1.0)}
    return next((unit for ending, unit in known.items() if column.endswith(ending)), TimeUnit("", 1.0))


def _both_axes(values: np.ndarray) -> tuple[dict[str, Any], list[float]]:
    """The same scale for both axes, logarithmic where the figures span it, and where the line of equality ends."""
    low, high = float(values.min()), float(values.max())
    if low > 0 and high / low > WIDE_RANGE:
        ticks = decades(low, high)
        bounds = [math.log10(low) - 0.06, math.log10(high) + 0.06]
        shape = {
            "type": "log",
            "range": rounded(bounds),
            "tickvals": ticks,
            "ticktext": [number(tick) for tick in ticks],
        }
        return shape, [10**bound for bound in bounds]
    top = 1.05 * high or 1.0
    return {"type": "linear", "range": rounded([0.0, top]), "nticks": 6}, [0.0, top]


def batch_axis(batches: Sequence[int]) -> dict[str, Any]:
    """A logarithmic axis of batch limits, given in order, each a tick where there is room."""
    ends = [math.log10(batches[0]) - 0.08, math.log10(batches[-1]) + 0.08] if batches else [0.0, 1.0]
    return {
        **titled_axis("max_num_seqs"),
        "type": "log",
        "range": rounded(ends),
        "tickvals": _apart(batches),
        "ticktext": [number(batch) for batch in _apart(batches)],
    }


def _apart(batches: Sequence[int]) -> list[int]:
    """The first of some batches, and each that is about twice the one before: labels that do not overlap."""
    kept: list[int] = []
    for batch in batches:
        if not kept or batch >= 1.9 * kept[-1]:
            kept.append(batch)
    return kept


def _models(points: Sequence[Point]) -> list[tuple[str, str, str]]:
    """Each model with its colour and symbol."""
    models = sorted({point.model for point in points})
    return [
        (model, SERIES[i % len(SERIES)], SYMBOLS[(i + i // len(SERIES)) % len(SYMBOLS)])
        for i, model in enumerate(models)
    ]


def _markers(
    x: np.ndarray, y: np.ndarray, points: Sequence[Point], colour: str, symbol: str
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": rounded(x),
        "y": rounded(y),
        "text": [plain(point.run) for point in points],
        "marker": {"color": colour, "symbol": symbol, "size": 7, "opacity": 0.75},
    }


def plain(text: str) -> str:
    """Text that plotly does not take for its markup, nor the page for a colour's name."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("@", "&#64;")

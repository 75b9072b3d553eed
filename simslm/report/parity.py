"""Drawings of simulation beside measurement: every run a point, by model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simslm.report.figures import WIDE_RANGE, Figure, decades, frame, rounded, titled_axis
from simslm.report.page import Key
from simslm.report.palette import SERIES, SYMBOLS
from simslm.report.wording import TimeUnit, time_unit
from simslm.units import number

DIAGONAL = {"color": "@muted", "width": 1}
BAND = 0.1
"""Share by which the dotted lines beside the diagonal differ from it."""

LEAST = 0.1
"""Error, in %, below which all are drawn alike on a logarithmic axis."""

SPREAD = (
    ("median_abs_error", "median", "@accent", "circle"),
    ("p95_abs_error", "95th percentile", "@second", "diamond"),
    ("max_abs_error", "largest", "@muted", "x"),
)
"""Figures of a summary of errors, and how each is drawn."""


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
    data = [
        _diagonal(ends, factor, dash)
        for factor, dash in ((1.0, "solid"), (1 - BAND, "dot"), (1 + BAND, "dot"))
    ]
    for model, colour, symbol in _models(points):
        mine = [i for i, point in enumerate(points) if point.model == model]
        data.append(
            _markers(both[mine, 0], both[mine, 1], [points[i] for i in mine], colour, symbol)
            | {"hovertemplate": "%{text}<br>measured %{x:.4~g}, simulated %{y:.4~g}<extra></extra>"}
        )
    suffix = f", {unit.name}" if unit.name else f" {column}"
    layout = {
        **frame(height=320, left=62, top=12, bottom=46),
        "xaxis": {**titled_axis(f"measured{suffix}"), **shape},
        "yaxis": {**titled_axis(f"simulated{suffix}"), **shape},
    }
    return {"data": data, "layout": layout}


def _diagonal(ends: Sequence[float], factor: float, dash: str) -> dict[str, Any]:
    """The line on which the simulation says so many times what was measured."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": rounded(ends),
        "y": rounded(np.array(ends) * factor),
        "line": {**DIAGONAL, "dash": dash},
        "hoverinfo": "skip",
    }


def spread_figure(names: Sequence[str], summary: Sequence[Mapping[str, float]]) -> Figure:
    """The size of the errors of each metric: median, 95th percentile and largest on one line.

    Args:
        names: of the metrics, from the top.
        summary: for each, ``median_abs_error``, ``p95_abs_error`` and ``max_abs_error`` as fractions.
    """
    sizes = 100 * np.array([[each[figure] for figure, *_ in SPREAD] for each in summary])
    shown = np.clip(sizes, LEAST, None)
    rows = [-row - 0.5 for row in range(len(names))]
    gaps: list[float | None] = [None]
    lines = {
        "type": "scatter",
        "mode": "lines",
        "x": [x for low, _, high in shown.tolist() for x in (*rounded([low, high]), *gaps)],
        "y": [y for row in rows for y in (row, row, *gaps)],
        "line": {"color": "@idle", "width": 3},
        "hoverinfo": "skip",
    }
    data = [lines]
    for i, (_, words, colour, symbol) in enumerate(SPREAD):
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": words,
                "x": rounded(shown[:, i]),
                "y": rows,
                "text": [
                    f"{plain(name)}: {words} {number(size)} %"
                    for name, size in zip(names, sizes[:, i], strict=True)
                ],
                "marker": {"color": colour, "symbol": symbol, "size": 9},
                "hovertemplate": "%{text}<extra></extra>",
            }
        )
    low, high = float(shown.min()) / 1.2, max(float(shown.max()) * 1.2, 10 * LEAST)
    ticks = [tick for tick in (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000) if low <= tick <= high]
    layout = {
        **frame(height=62 + 24 * len(names), left=30 + round(6.2 * max(map(len, names))), top=8, bottom=48),
        "hovermode": "closest",
        "xaxis": {
            **titled_axis("size of the error, %"),
            "type": "log",
            "range": rounded([math.log10(low), math.log10(high)]),
            "tickvals": ticks,
            "ticktext": [f"≤ {tick}" if tick == LEAST else number(tick) for tick in ticks],
        },
        "yaxis": {
            **titled_axis("metric"),
            "range": [-len(names), 0],
            "tickvals": rows,
            "ticktext": [plain(name) for name in names],
            "showgrid": False,
        },
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
        **frame(height=250, left=62, top=12, bottom=46),
        "xaxis": batch_axis(batches),
        "yaxis": {**titled_axis("error, %"), "zeroline": True, "zerolinecolor": "@muted", "nticks": 6},
    }
    return {"data": data, "layout": layout}


def _unit(column: str, values: np.ndarray) -> TimeUnit:
    """The unit of a column's figures on a screen, and how many of it the file's unit holds."""
    if column.endswith("_per_s"):
        return TimeUnit("requests/s" if column.startswith("requests") else "tokens/s", 1.0)
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

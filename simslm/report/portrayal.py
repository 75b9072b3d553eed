"""Drawings of a trace beside its cost model: measured medians as hollow markers, the model as lines and surfaces."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simslm.report.figures import Figure, decades, frame, rounded, titled_axis
from simslm.report.page import Key
from simslm.report.palette import DASHES, SCALE, SERIES, SYMBOLS
from simslm.report.wording import TimeUnit, count, time_unit
from simslm.traces.portrait import Decoding, Heldout, Prefilling
from simslm.traces.shapes import Shapes
from simslm.units import number

NARROW = 8.0
"""Ratio of the largest figure to the smallest below which an axis is not logarithmic."""

MOST_LINES = 5
"""Contexts, or cached lengths, that are drawn as lines."""


@dataclass(frozen=True, slots=True)
class Points:
    """Medians of measured iterations of one kind, arrays of shape ``(n,)``; unknown figures are NaN.

    Attributes:
        x: batch size, or new tokens.
        line: cached tokens of each sequence, or of the prompt.
        latency_s, host_s, power_w: of the iteration.
    """

    x: np.ndarray
    line: np.ndarray
    latency_s: np.ndarray
    host_s: np.ndarray
    power_w: np.ndarray

    def __len__(self) -> int:
        return len(self.x)


def decode_points(measured: Shapes) -> Points:
    """The decode-only shapes."""
    columns, mask = measured.columns, measured.decode_only
    context = np.rint(columns["decode_ctx_tokens"][mask] / columns["decode_seqs"][mask])
    return _points(measured, mask, columns["decode_seqs"], context)


def prefill_points(measured: Shapes) -> Points:
    """The shapes of one prompt alone."""
    columns = measured.columns
    mask = measured.prefill_only & (columns["prefill_seqs"] == 1)
    return _points(measured, mask, columns["prefill_tokens"], columns["prefill_ctx_tokens"][mask])


def _points(measured: Shapes, mask: np.ndarray, x: np.ndarray, line: np.ndarray) -> Points:
    medians = (measured.median(name)[mask] for name in ("latency_s", "host_s", "power_w"))
    return Points(x[mask].astype(float), line.astype(float), *medians)


def chosen_lines(values: np.ndarray, points: Points | None) -> list[float]:
    """A few of some values, spread over their range; of measured ones those with the most points."""
    able = np.unique(values)
    if points is not None and len(points):
        lines, counts = np.unique(points.line, return_counts=True)
        often = lines[counts >= max(2, counts.max() / 2)]
        able = often if len(often) else lines
    if len(able) <= MOST_LINES:
        return able.tolist()
    return able[np.rint(np.linspace(0, len(able) - 1, MOST_LINES)).astype(int)].tolist()


def lines_legend(lines: Sequence[float], unit: str, measured: bool) -> list[Key]:
    """Each line's colour and dash, and what a marker is."""
    keys = [
        Key(f"{count(line)} {unit}", SERIES[i % len(SERIES)], DASHES[i % len(DASHES)])
        for i, line in enumerate(lines)
    ]
    return [*keys, *([Key("measured", "@muted", "circle-open")] if measured else [])]


def batch_figure(model: Decoding | None, points: Points | None, lines: Sequence[float], of: str) -> Figure:
    """A figure of decode-only iterations against the batch, a line for each of some contexts.

    Args:
        model: what the cost model says; None without one.
        points: what was measured; None for a calibrated model.
        lines: contexts.
        of: ``latency_s``, ``host_s`` (as a share of the latency) or ``power_w``.
    """
    title, model_values, point_values = _figure_of(of, model, points)
    data: list[dict[str, Any]] = []
    for i, line in enumerate(lines):
        colour, dash = SERIES[i % len(SERIES)], DASHES[i % len(DASHES)]
        said = f"<br>batch %{{x}}, context {count(line)}: %{{y:.4~g}}<extra></extra>"
        if model is not None and model_values is not None:
            at = int(np.argmin(np.abs(model.context - line)))
            data.append(_line(model.seqs, model_values[:, at], colour, dash, f"model{said}"))
        if points is not None and point_values is not None:
            mine = points.line == line
            data.append(_marks(points.x[mine], point_values[mine], colour, i, f"measured{said}"))
    batches = [value for each in data for value in each["x"] if value]
    values = [value for each in data for value in each["y"] if value is not None]
    layout = {
        **frame(height=330, left=66, top=12, bottom=48),
        "hovermode": "closest",
        "xaxis": _spread("decoding sequences", [batches], doubling=True),
        "yaxis": {**titled_axis(title), "range": rounded([0, 1.06 * max(values, default=1.0)]), "nticks": 6},
    }
    return {"data": data, "layout": layout}


def _figure_of(
    of: str, model: Decoding | None, points: Points | None
) -> tuple[str, np.ndarray | None, np.ndarray | None]:
    """The axis' title, and the values of the model and of the points in its unit."""
    if of == "host_s":
        mine = None if model is None else 100 * model.host_s / model.latency_s
        theirs = None if points is None else 100 * points.host_s / points.latency_s
        return "host time, % of the iteration", mine, theirs
    if of == "power_w":
        return (
            "power, W",
            None if model is None else model.power_w,
            None if points is None else points.power_w,
        )
    unit = latency_unit(model, points)
    mine = None if model is None else model.latency_s * unit.per_s
    theirs = None if points is None else points.latency_s * unit.per_s
    return f"iteration, {unit.name}", mine, theirs


def latency_unit(model: Decoding | Prefilling | None, points: Points | None) -> TimeUnit:
    """The unit in which the latencies are read best."""
    both = [each.latency_s.ravel() for each in (model, points) if each is not None]
    return time_unit(np.concatenate(both).tolist() if both else [])


def prompt_figure(model: Prefilling | None, points: Points | None, lines: Sequence[float]) -> Figure:
    """The latency of one prompt against its new tokens, a line for each of some cached lengths."""
    unit = latency_unit(model, points)
    data: list[dict[str, Any]] = []
    for i, line in enumerate(lines):
        colour, dash = SERIES[i % len(SERIES)], DASHES[i % len(DASHES)]
        said = f"<br>%{{x}} tokens, {count(line)} cached: %{{y:.4~g}} {unit.name}<extra></extra>"
        if model is not None:
            at = int(np.argmin(np.abs(model.cached - line)))
            data.append(
                _line(model.tokens, model.latency_s[:, at] * unit.per_s, colour, dash, f"model{said}")
            )
        if points is not None:
            mine = points.line == line
            data.append(
                _marks(points.x[mine], points.latency_s[mine] * unit.per_s, colour, i, f"measured{said}")
            )
    return {
        "data": data,
        "layout": {
            **frame(height=330, left=66, top=12, bottom=48),
            "hovermode": "closest",
            "xaxis": _spread("new tokens", [each["x"] for each in data]),
            "yaxis": _spread(f"iteration, {unit.name}", [each["y"] for each in data]),
        },
    }


def surface_figure(model: Decoding, points: Points | None) -> Figure:
    """Latency over the logarithms of batch and context: the model as a surface, what was measured as points."""
    unit = latency_unit(model, points)
    data: list[dict[str, Any]] = [
        {
            "type": "surface",
            "x": rounded(np.log2(model.seqs)),
            "y": rounded(np.log2(model.context)),
            "z": [rounded(row) for row in (model.latency_s.T * unit.per_s)],
            "text": [
                [f"batch {count(batch)}, context {count(line)}" for batch in model.seqs]
                for line in model.context
            ],
            "colorscale": [list(stop) for stop in SCALE],
            "showscale": False,
            "opacity": 0.9,
            "lighting": {"ambient": 0.95, "diffuse": 0.15, "specular": 0, "fresnel": 0},
            "hovertemplate": f"model<br>%{{text}}: %{{z:.4~g}} {unit.name}<extra></extra>",
        }
    ]
    if points is not None and len(points):
        said = [
            f"batch {count(batch)}, context {count(line)}"
            for batch, line in zip(points.x, points.line, strict=True)
        ]
        data.append(
            {
                "type": "scatter3d",
                "mode": "markers",
                "x": rounded(np.log2(points.x)),
                "y": rounded(np.log2(np.maximum(points.line, 1))),
                "z": rounded(points.latency_s * unit.per_s),
                "text": said,
                "marker": {"size": 3, "color": "@second"},
                "hovertemplate": f"measured<br>%{{text}}: %{{z:.4~g}} {unit.name}<extra></extra>",
            }
        )
    scene = {
        "xaxis": {**_scene_axis("batch"), **_doublings(model.seqs)},
        "yaxis": {**_scene_axis("context, tokens"), **_doublings(model.context)},
        "zaxis": {**_scene_axis(f"iteration, {unit.name}"), "nticks": 5},
        "aspectmode": "manual",
        "aspectratio": {"x": 1.2, "y": 1.2, "z": 0.8},
        "camera": {"eye": {"x": -1.7, "y": -2.0, "z": 0.95}, "center": {"x": 0, "y": 0, "z": -0.15}},
    }
    return {"data": data, "layout": {**frame(height=400, left=0, top=0, bottom=0), "scene": scene}}


def _scene_axis(title: str) -> dict[str, Any]:
    heading = {"text": title, "font": {"size": 12, "color": "@muted"}}
    return {"title": heading, "color": "@muted", "gridcolor": "@idle", "showspikes": False}


def _doublings(values: np.ndarray) -> dict[str, Any]:
    """Ticks at powers of two on an axis of logarithms, at most five."""
    powers = [power for power in range(31) if values[0] <= 2**power <= values[-1]]
    powers = powers[:: math.ceil(len(powers) / 5)] or [round(math.log2(values[0]))]
    return {"tickvals": powers, "ticktext": [number(2**power) for power in powers]}


def heldout_figure(found: Heldout) -> Figure:
    """The signed error of every held-out point against its measured latency."""
    unit = time_unit(found.measured_s.tolist())
    errors = 100 * found.errors
    reach = max(12.0, 1.15 * float(np.abs(errors).max()))
    data = [
        {
            "type": "scatter",
            "mode": "markers",
            "x": rounded(found.measured_s * unit.per_s),
            "y": rounded(errors),
            "text": list(found.labels),
            "marker": {"color": "@accent", "size": 8, "opacity": 0.8},
            "hovertemplate": f"%{{text}}<br>measured %{{x:.4~g}} {unit.name}, model %{{y:+.2~f}} %<extra></extra>",
        }
    ]
    return {
        "data": data,
        "layout": {
            **frame(height=300, left=62, top=12, bottom=48),
            "hovermode": "closest",
            "xaxis": _spread(f"measured, {unit.name}", [data[0]["x"]]),
            "yaxis": {
                **titled_axis("error of the model, %"),
                "range": rounded([-reach, reach]),
                "zeroline": True,
                "zerolinecolor": "@muted",
                "nticks": 7,
            },
        },
    }


def clock_figure(clocks: np.ndarray, speeds: np.ndarray, watts: np.ndarray) -> Figure:
    """Power against relative speed, each point a clock or a cap that was set."""
    data = {
        "type": "scatter",
        "mode": "markers",
        "x": rounded(100 * speeds),
        "y": rounded(watts),
        "text": [f"{number(clock)} MHz" if math.isfinite(clock) else "capped" for clock in clocks],
        "marker": {"color": "@accent", "size": 8},
        "hovertemplate": "%{text}<br>speed %{x:.4~g} %, %{y:.4~g} W<extra></extra>",
    }
    top = float(watts.max()) * 1.08
    layout = {
        **frame(height=330, left=66, top=12, bottom=48),
        "xaxis": {**titled_axis("speed, % of the default clock"), "nticks": 6},
        "yaxis": {**titled_axis("power, W"), "range": rounded([0, top]), "nticks": 6},
    }
    return {"data": [data], "layout": layout}


def _line(x: np.ndarray, y: np.ndarray, colour: str, dash: str, said: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": rounded(x),
        "y": rounded(y),
        "line": {"color": colour, "width": 2, "dash": dash},
        "hovertemplate": said,
    }


def _marks(x: np.ndarray, y: np.ndarray, colour: str, i: int, said: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": rounded(x),
        "y": rounded(y),
        "marker": {"color": colour, "symbol": f"{SYMBOLS[i % len(SYMBOLS)]}-open", "size": 8},
        "hovertemplate": said,
    }


def _spread(
    title: str, columns: Sequence[Sequence[float | None]], *, doubling: bool = False
) -> dict[str, Any]:
    """An axis over some columns of positive numbers: logarithmic where they span it, ticks at decades or doublings."""
    known = [value for column in columns for value in column if value]
    low, high = (min(known), max(known)) if known else (1.0, 10.0)
    if high / low < NARROW:
        margin = 0.06 * (high - low or high)
        return {**titled_axis(title), "range": rounded([low - margin, high + margin]), "nticks": 6}
    ticks = [2.0**power for power in range(31) if low <= 2**power <= high] if doubling else decades(low, high)
    return {
        **titled_axis(title),
        "type": "log",
        "range": rounded([math.log10(low) - 0.06, math.log10(high) + 0.06]),
        "tickvals": ticks,
        "ticktext": [number(tick) for tick in ticks],
    }

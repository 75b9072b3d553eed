"""Drawings of several runs on the same axes: what changed and how surely, distributions, differences, and time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from simslm.comparison import Delta, PairedLatency
from simslm.comparison.wording import change, interval, shown
from simslm.metrics.definitions import BY_KEY
from simslm.report.distribution import Cdf
from simslm.report.figures import WIDE_RANGE, Figure, decades, frame, panel_heading, rounded, titled_axis
from simslm.report.page import Key
from simslm.report.palette import DASHES, SERIES, SYMBOLS
from simslm.report.parity import plain
from simslm.report.timeline import Band, Timeline
from simslm.report.wording import time_unit
from simslm.units import number

FURTHEST = 20.0
"""Times more, or less, than the baseline beyond which a change is drawn at the edge."""

LEAST_REACH = 1.06
"""Ratio to the baseline that the axis of changes shows at least, to either side."""

RATIOS = (
    0.05, 0.1, 0.2, 0.33, 0.5, 0.67, 0.8, 0.9, 0.95, 0.98, 1.0, 1.02, 1.05, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0,
)  # fmt: skip
"""Ticks of the axis of changes, as ratios to the baseline."""

APART = 0.2
"""Least distance between two ticks, as a share of the axis."""

MOST_INTERVALS = 250
"""Intervals of a curve over time: more would hide the other runs behind the noise of one."""


def style(i: int) -> tuple[str, str, str]:
    """Colour, dash and symbol of the ``i``-th configuration, the baseline being the first."""
    return SERIES[i % len(SERIES)], DASHES[i % len(DASHES)], SYMBOLS[i % len(SYMBOLS)]


def legend(labels: Sequence[str], *, marks: bool = False, first: int = 0) -> list[Key]:
    """Each configuration's line, or its symbol."""
    return [Key(label, style(i)[0], style(i)[2 if marks else 1]) for i, label in enumerate(labels, first)]


def changes_figure(titles: Sequence[str], labels: Sequence[str], rows: Sequence[Sequence[Delta]]) -> Figure:
    """Every figure as a row, each configuration's change against the baseline as a point with its interval.

    Args:
        titles: of the figures, from the top.
        labels: of the configurations beside the baseline.
        rows: for each configuration, the delta of each figure.
    """
    data: list[dict[str, Any]] = []
    least, most = 1 / LEAST_REACH, LEAST_REACH
    slots = max(len(labels), 1)
    for i, (label, deltas) in enumerate(zip(labels, rows, strict=True)):
        colour, _, symbol = style(i + 1)
        x, low, high, y, said = [], [], [], [], []
        for row, delta in enumerate(deltas):
            if (ratio := _ratio(delta.relative)) is None:
                continue
            bounds = delta.relative_interval
            ends = sorted(_ratio(bound) or 1.0 for bound in bounds) if bounds else [ratio, ratio]
            least, most = min(least, ratio, ends[0]), max(most, ratio, ends[1])
            x.append(ratio)
            low.append(ratio - ends[0])
            high.append(ends[1] - ratio)
            y.append(-row - 0.5 + (slots / 2 - i - 0.5) * 0.7 / slots)
            said.append(_said(delta))
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": plain(label),
                "x": rounded(x),
                "y": rounded(y),
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": rounded(high),
                    "arrayminus": rounded(low),
                    "color": colour,
                    "thickness": 1.5,
                    "width": 3,
                },
                "text": said,
                "marker": {"color": colour, "symbol": symbol, "size": 8},
                "hovertemplate": f"<b>{plain(label)}</b><br>%{{text}}<extra></extra>",
            }
        )
    height = 60 + len(titles) * max(26, 14 * slots)
    return {"data": data, "layout": _changes_layout(titles, least, most, height)}


def _changes_layout(titles: Sequence[str], low: float, high: float, height: int) -> Figure:
    ends = (math.log10(low), math.log10(high))
    margin = 0.03 * (ends[1] - ends[0])
    ticks = _ticks(*ends)
    one = {"type": "line", "xref": "x", "yref": "paper", "x0": 1, "x1": 1, "y0": 0, "y1": 1}
    left = min(26 + round(5.8 * max(map(len, titles))), 180)
    return {
        **frame(height=height, left=left, top=8, bottom=46),
        "hovermode": "closest",
        "shapes": [{**one, "line": {"color": "@limit", "width": 1}}],
        "xaxis": {
            **titled_axis("change, %"),
            "type": "log",
            "range": rounded([ends[0] - margin, ends[1] + margin]),
            "tickvals": ticks,
            "ticktext": [_percent(ratio) for ratio in ticks],
            "tickangle": 0,
        },
        "yaxis": {
            **titled_axis("figure"),
            "range": [-len(titles), 0],
            "tickvals": [-row - 0.5 for row in range(len(titles))],
            "ticktext": [plain(title) for title in titles],
            "showgrid": False,
        },
    }


def _ticks(low: float, high: float) -> list[float]:
    """Ratios between two logarithms, from no change outwards, as many as have room."""
    kept: list[float] = []
    for ratio in sorted(RATIOS, key=lambda each: abs(math.log10(each))):
        at = math.log10(ratio)
        if low <= at <= high and all(abs(at - math.log10(each)) >= APART * (high - low) for each in kept):
            kept.append(ratio)
    return sorted(kept)


def _percent(ratio: float) -> str:
    return "0" if ratio == 1 else f"{100 * (ratio - 1):+.0f}".replace("-", "−")


def _ratio(relative: float | None) -> float | None:
    """The ratio of a figure to its baseline, as far as it is drawn."""
    if relative is None or not math.isfinite(relative):
        return None
    return min(max(1 + relative, 1 / FURTHEST), FURTHEST)


def _said(delta: Delta) -> str:
    values = f"{shown(delta, delta.baseline)} → {shown(delta, delta.value)}"
    words = f"{delta.title}: {values}, {change(delta)}"
    bounds = interval(delta)
    return f"{words}<br>95 % interval {bounds}" if bounds else f"{words}<br>{delta.note}"


def cdfs_figure(found: Sequence[tuple[int, str, Cdf]]) -> Figure:
    """The distributions of one latency, one for each configuration that has it.

    Args:
        found: the number of each configuration, its label, and its distribution; at least one.
    """
    metric = found[0][2].metric
    name = BY_KEY[metric].name
    everything = np.concatenate([each.values for _, _, each in found])
    unit = time_unit(np.sort(everything).tolist())
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": plain(label),
            "x": rounded(each.values * unit.per_s),
            "y": rounded(each.shares * 100),
            "line": {"color": style(i)[0], "dash": style(i)[1], "width": 2, "shape": "hv"},
            "hovertemplate": f"{plain(label)}<br>%{{y:.1f}} %: {name} ≤ %{{x:.4~g}} {unit.name}<extra></extra>",
        }
        for i, label, each in found
    ]
    low, high = float(everything.min()) * unit.per_s, float(everything.max()) * unit.per_s
    shape: dict[str, Any] = {"range": rounded([0, 1.04 * high or 1.0]), "nticks": 5}
    if low > 0 and high / float(np.median(everything) * unit.per_s) > WIDE_RANGE:
        ticks = decades(low, high)
        shape = {
            "type": "log",
            "range": rounded([math.log10(low) - 0.03, math.log10(high) + 0.05]),
            "tickvals": ticks,
            "ticktext": [number(tick) for tick in ticks],
        }
    layout = {
        **frame(height=270, left=48, top=10, bottom=46),
        "hovermode": "y",
        "xaxis": {**titled_axis(f"{name}, {unit.name}"), **shape},
        "yaxis": {**titled_axis("requests, %"), "range": [0, 102], "dtick": 25},
    }
    return {"data": data, "layout": layout}


def differences_figure(metric: str, found: Sequence[tuple[int, str, PairedLatency]]) -> Figure:
    """How one latency of each request changed: the distribution of the differences, request by request."""
    name = BY_KEY[metric].name
    both = np.concatenate([each.differences_s for _, _, each in found])
    unit = time_unit([float(np.abs(both).max())])
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": plain(label),
            "x": rounded(each.differences_s * unit.per_s),
            "y": rounded(100 * each.levels),
            "line": {"color": style(i)[0], "dash": style(i)[1], "width": 2},
            "hovertemplate": f"{plain(label)}<br>%{{y:.0f}} % of requests: at most %{{x:+.4~g}} {unit.name}"
            "<extra></extra>",
        }
        for i, label, each in found
    ]
    none = {"type": "line", "xref": "x", "yref": "paper", "x0": 0, "x1": 0, "y0": 0, "y1": 1}
    ends = np.array([min(float(both.min()), 0.0), max(float(both.max()), 0.0)]) * unit.per_s
    margin = 0.05 * float(ends[1] - ends[0]) or 1.0
    layout = {
        **frame(height=270, left=48, top=10, bottom=46),
        "hovermode": "y",
        "shapes": [{**none, "line": {"color": "@limit", "width": 1}}],
        "xaxis": {
            **titled_axis(f"change of {name}, {unit.name}"),
            "range": rounded([ends[0] - margin, ends[1] + margin]),
            "nticks": 5,
        },
        "yaxis": {**titled_axis("requests, %"), "range": [0, 102], "dtick": 25},
    }
    return {"data": data, "layout": layout}


def overtime_figure(found: Sequence[tuple[int, str, Timeline]]) -> Figure:
    """What is in the system, the KV cache, the output and the power over time, one row each, a line each run."""
    rows = [row for row in ROWS if any(row[2](each) is not None for _, _, each in found)]
    gap = 0.27 / len(rows)
    height = (1 - gap * (len(rows) - 1)) / len(rows)
    layout: Figure = frame(height=120 * len(rows) + 70, left=58, top=26, bottom=46)
    layout |= {"hovermode": "closest", "annotations": []}
    data: list[dict[str, Any]] = []
    for at, (heading, unit, values_of) in enumerate(rows):
        suffix = "" if at == 0 else str(at + 1)
        top = 1 - at * (height + gap)
        axis = {**titled_axis(unit), "domain": rounded([max(0.0, top - height), top]), "nticks": 4}
        layout[f"yaxis{suffix}"] = {**axis, "rangemode": "tozero"}
        layout["annotations"].append(panel_heading(heading, top))
        for i, label, each in found:
            if (drawn := values_of(each)) is not None:
                data.append(_over(drawn, i, label, f"y{suffix}"))
    end = max(float(each.edges_s[-1] - each.edges_s[0]) for _, _, each in found)
    anchor = f"y{len(rows)}" if len(rows) > 1 else "y"
    layout["xaxis"] = {**titled_axis("simulated time, s"), "anchor": anchor, "range": rounded([0, end])}
    return {"data": data, "layout": layout}


def _over(drawn: tuple[np.ndarray, np.ndarray], i: int, label: str, axis: str) -> dict[str, Any]:
    edges, values = _coarser(*drawn)
    colour, dash, _ = style(i)
    return {
        "type": "scatter",
        "mode": "lines",
        "name": plain(label),
        "x": rounded(edges - edges[0], 5),
        "y": rounded(np.append(values, values[-1]), 4),
        "xaxis": "x",
        "yaxis": axis,
        "line": {"color": colour, "dash": dash, "width": 1.5, "shape": "hv"},
        "hovertemplate": f"{plain(label)}<br>%{{x:.4~g}} s: %{{y:.4~g}}<extra></extra>",
    }


def _coarser(edges: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over as many neighbouring intervals as leave few enough; the intervals are equally long."""
    step = math.ceil(len(values) / MOST_INTERVALS)
    starts = np.arange(0, len(values), step)
    counts = np.diff(np.append(starts, len(values)))
    return np.append(edges[starts], edges[-1]), np.add.reduceat(values, starts) / counts


def _mean(each: Timeline, band: Band | None, factor: float = 1.0) -> tuple[np.ndarray, np.ndarray] | None:
    return None if band is None else (each.edges_s, factor * band.mean)


ROWS: tuple[tuple[str, str, Any], ...] = (
    (
        "Requests in the system",
        "requests",
        lambda each: (each.edges_s, each.running.mean + each.waiting.mean),
    ),
    ("Output", "tokens/s", lambda each: (each.rate_edges_s, each.output_rate)),
    ("KV blocks in use", "%", lambda each: _mean(each, each.kv_share, 100.0)),
    ("Power", "W", lambda each: _mean(each, each.power_w)),
)
"""Heading, unit, and values over time of each row of :func:`overtime_figure`; None where they are unknown."""

"""Drawings of what :mod:`distribution` and :mod:`timeline` found, as plain plotly figure dicts.

Colours are names of :mod:`palette` (``@accent``), which the page's script replaces by those of the light or the dark
theme: a figure holds no colour of its own. Everything else is what
``plotly.graph_objects.Figure`` accepts, and numbers carry six significant digits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simslm.metrics.definitions import BY_KEY
from simslm.report.distribution import Cdf
from simslm.report.timeline import Band, Timeline
from simslm.report.wording import TimeUnit, share, time_unit
from simslm.units import number, seconds

WIDE_RANGE = 30.0
"""Ratio of the largest value to the median from which a distribution is drawn on a logarithmic axis."""

Figure = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Panel:
    """One row of the timeline: unit, heading and curves; a horizontal limit and the axis end where set."""

    unit: str
    heading: str
    traces: Sequence[dict[str, Any]]
    limit: float | None = None
    top: float | None = None


def cdf_figure(distribution: Cdf) -> Figure:
    """The cumulative distribution of one latency, with its SLO bound when there is one."""
    unit = time_unit(distribution.values[-1:])
    values = distribution.values * unit.per_s
    name = BY_KEY[distribution.metric].name
    line = {
        "type": "scatter",
        "mode": "lines",
        "x": rounded(values),
        "y": rounded(distribution.shares * 100),
        "line": {"color": "@accent", "width": 2, "shape": "hv"},
        "hovertemplate": f"%{{y:.1f}} % of requests: {name} ≤ %{{x:.4~g}} {unit.name}<extra></extra>",
    }
    layout = {
        **frame(height=250, left=46, top=30, bottom=44),
        "xaxis": {**titled_axis(f"{name}, {unit.name}"), **_value_axis(distribution, unit)},
        "yaxis": {**titled_axis("requests, %"), "range": [0, 102], "dtick": 25},
        "shapes": [],
        "annotations": [],
    }
    if distribution.limit_s is not None:
        _mark_limit(layout, distribution, unit)
    return {"data": [line], "layout": layout}


def _value_axis(distribution: Cdf, unit: TimeUnit) -> dict[str, Any]:
    """A linear axis from 0, or a logarithmic one where the tail is long."""
    values = distribution.values * unit.per_s
    top = float(values[-1])
    limit = (distribution.limit_s or 0.0) * unit.per_s
    low, middle = float(values[0]), float(values[len(values) // 2])
    if low > 0 and top / middle > WIDE_RANGE:
        low, top = min(low, limit or low), max(top, limit)
        ticks = decades(low, top)
        bounds = [math.log10(low) - 0.03, math.log10(top) + 0.05]
        return {
            "type": "log",
            "range": rounded(bounds),
            "tickvals": ticks,
            "ticktext": [number(t) for t in ticks],
        }
    shown = max(top, limit) if limit <= 3 * top else top
    return {"type": "linear", "range": [0, rounded([shown * 1.05 or 1.0])[0]], "nticks": 6}


def decades(low: float, high: float) -> list[float]:
    """Ticks 1, 10, 100 … inside ``[low, high]``; 1, 3, 10, 30 … where that is under three decades."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1,) if math.log10(high / low) > 3 else (1, 3)
    ticks = [step * 10.0**exponent for exponent in exponents for step in steps]
    return [tick for tick in ticks if low * 0.93 <= tick <= high * 1.12]


def _mark_limit(layout: Figure, distribution: Cdf, unit: TimeUnit) -> None:
    """A dashed line at the bound and, above the plot, the bound and the share that keeps it."""
    limit = distribution.limit_s or 0.0
    met = "" if distribution.met is None else f" · {share(distribution.met)} within"
    off_scale = layout["xaxis"]["type"] == "linear" and limit * unit.per_s > layout["xaxis"]["range"][1]
    layout["annotations"].append(
        _note(f"SLO {seconds(limit)}{met}{' (off scale)' if off_scale else ''}", x=1, y=1.02, anchor="right")
    )
    if not off_scale:
        at = rounded([limit * unit.per_s])[0]
        layout["shapes"].append(
            {
                "type": "line",
                "xref": "x",
                "yref": "paper",
                "x0": at,
                "x1": at,
                "y0": 0,
                "y1": 1,
                "line": LIMIT_LINE,
            }
        )


LIMIT_LINE = {"color": "@limit", "width": 1.5, "dash": "dash"}


def timeline_figure(timeline: Timeline) -> Figure:
    """Requests, batch, KV, throughput and power over simulated time, one above the other on one time axis."""
    panels = timeline_panels(timeline)
    rows = len(panels)
    gap = 0.27 / rows
    height = (1 - gap * (rows - 1)) / rows
    layout = frame(height=128 * rows + 70, left=58, top=26, bottom=46)
    layout |= {"shapes": [], "annotations": [], "hovermode": "x", "data": []}
    traces: list[dict[str, Any]] = layout.pop("data")
    for row, panel in enumerate(panels):
        suffix = "" if row == 0 else str(row + 1)
        top = 1 - row * (height + gap)
        domain = rounded([max(0.0, top - height), top])
        ends = {"range": [0, panel.top]} if panel.top else {"rangemode": "tozero"}
        layout[f"yaxis{suffix}"] = {**titled_axis(panel.unit), "domain": domain, "nticks": 4, **ends}
        layout["annotations"].append(_note(panel.heading, x=0, y=top, anchor="left"))
        traces.extend({**trace, "xaxis": "x", "yaxis": f"y{suffix}"} for trace in panel.traces)
        if panel.limit is not None:
            layout["shapes"].append(_across(panel.limit, f"y{suffix}"))
    span = rounded(timeline.edges_s[[0, -1]])
    anchor = f"y{rows}" if rows > 1 else "y"
    layout["xaxis"] = {
        **titled_axis("simulated time, s"),
        "anchor": anchor,
        "range": span,
        "showspikes": True,
    } | SPIKE
    return {"data": traces, "layout": layout}


SPIKE = {"spikemode": "across", "spikethickness": 1, "spikecolor": "@muted", "spikedash": "dot"}


def timeline_panels(timeline: Timeline) -> list[Panel]:
    """The rows of the timeline, top to bottom; those of unknown quantities are left out."""
    edges = timeline.edges_s
    seqs = timeline.max_num_seqs
    limit = (
        seqs if seqs is not None and seqs <= 2 * max(float(np.max(timeline.decode_seqs.peak)), 1.0) else None
    )
    capped = f" · {key('@limit', f'limit {number(seqs)}')}" if limit is not None else ""
    panels = [
        Panel(
            "requests",
            f"Requests {key('@accent', 'running')} and {key('@second', 'waiting')}",
            [
                *_band(timeline.running, edges, "@accent", "running"),
                *_band(timeline.waiting, edges, "@second", "waiting"),
            ],
        ),
        Panel(
            "sequences",
            f"Batch: {key('@accent', 'sequences decoding')}{capped}",
            _band(timeline.decode_seqs, edges, "@accent", "decoding"),
            limit,
            max(limit, float(np.max(timeline.decode_seqs.peak))) * 1.15 if limit is not None else None,
        ),
    ]
    if timeline.kv_share is not None:
        highest = share(float(np.max(timeline.kv_share.peak)))
        heading = f"KV blocks {key('@third', 'used')}, at most {highest}"
        traces = _band(timeline.kv_share, edges, "@third", "used", 100)
        panels.append(Panel("% of blocks", heading, traces, top=105.0))
    panels.append(_rate_panel(timeline))
    if timeline.power_w is not None:
        panels.append(
            Panel("W", f"{key('@fourth', 'Power')}", _band(timeline.power_w, edges, "@fourth", "power"))
        )
    return panels


def _rate_panel(timeline: Timeline) -> Panel:
    edges = timeline.rate_edges_s
    traces = [_steps(timeline.output_rate, edges, "produced", {"color": "@accent", "width": 2})]
    heading = f"Output tokens {key('@accent', 'produced')}"
    if timeline.offered_rate is not None:
        traces.insert(0, _steps(timeline.offered_rate, edges, "requested", {"color": "@second", "width": 1}))
        heading += f" and {key('@second', 'requested')}"
    return Panel("tokens/s", heading, traces)


def _band(band: Band, edges: np.ndarray, colour: str, name: str, scale: float = 1.0) -> list[dict[str, Any]]:
    """The mean as a line; the maximum of each interval as a thin one behind it where they differ."""
    mean = _steps(band.mean * scale, edges, name, {"color": colour, "width": 2})
    if np.allclose(band.mean, band.peak):
        return [mean]
    peak = _steps(band.peak * scale, edges, f"{name}, highest", {"color": colour, "width": 0.75})
    return [{**peak, "opacity": 0.45}, mean]


def _steps(values: np.ndarray, edges: np.ndarray, name: str, line: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": rounded(edges),
        "y": rounded(np.append(values, values[-1])),
        "line": {**line, "shape": "hv"},
        "hovertemplate": f"{name} %{{y:.4~g}}<extra></extra>",
    }


def key(colour: str, text: str) -> str:
    """A word in the colour of its curve: the legend of a panel."""
    return f'<span style="color:{colour}"><b>{text}</b></span>'


def _across(value: float, axis: str) -> dict[str, Any]:
    ends = {"type": "line", "xref": "paper", "yref": axis, "x0": 0, "x1": 1, "y0": value, "y1": value}
    return {**ends, "line": LIMIT_LINE}


def _note(text: str, x: float, y: float, anchor: str) -> dict[str, Any]:
    place = {
        "xref": "paper",
        "yref": "paper",
        "x": x,
        "y": rounded([y])[0],
        "xanchor": anchor,
        "yanchor": "bottom",
    }
    return {**place, "text": text, "showarrow": False, "font": {"size": 12, "color": "@muted"}}


def frame(height: int, left: int, top: int, bottom: int) -> Figure:
    """The layout that all figures share; sizes in pixels."""
    return {
        "height": height,
        "margin": {"l": left, "r": 14, "t": top, "b": bottom},
        "paper_bgcolor": "@surface",
        "plot_bgcolor": "@surface",
        "font": {
            "family": "system-ui, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif",
            "size": 12,
            "color": "@muted",
        },
        "showlegend": False,
        "hoverlabel": {"bgcolor": "@surface", "bordercolor": "@muted", "font": {"color": "@ink"}},
        "dragmode": "zoom",
    }


def titled_axis(title: str) -> dict[str, Any]:
    """An axis as all figures have it."""
    return {
        "title": {"text": title, "standoff": 8, "font": {"size": 12, "color": "@muted"}},
        "gridcolor": "@grid",
        "linecolor": "@grid",
        "zeroline": False,
        "automargin": False,
        "tickfont": {"size": 11, "color": "@muted"},
        "fixedrange": False,
    }


def rounded(values: Any) -> list[float | None]:
    """Plain floats of six significant digits, None for what is not finite."""
    return [
        float(f"{value:.6g}") if math.isfinite(value) else None for value in np.asarray(values, dtype=float)
    ]

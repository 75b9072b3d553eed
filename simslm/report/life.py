"""The drawing of one request's life above what its replica did meanwhile."""

from __future__ import annotations

from typing import Any

import numpy as np

from simslm.report.figures import Figure, frame, key, panel_heading, pattern, rounded, titled_axis
from simslm.report.overtime import heights
from simslm.report.page import Key, Plot
from simslm.report.slowest import Life, Segment
from simslm.report.wording import TimeUnit, time_unit
from simslm.units import seconds

KINDS = {
    "queue": ("@second", "/"),
    "prefill": ("@third", ""),
    "decode": ("@accent", ""),
    "wait": ("@fourth", "."),
    "prefill and wait": ("@third", "."),
    "decode and wait": ("@accent", "."),
}
"""Colour and pattern of each kind of segment."""


def life_plot(life: Life, anchor: str) -> Plot:
    """The place in which the lives of a run's slowest requests are drawn, with the first of them in it."""
    legend = [Key(kind, KINDS[kind][0], "square") for kind in ("queue", "prefill", "decode", "wait")]
    return Plot(f"{anchor}-life", life_title(life), life_words(life), life_figure(life), legend)


def life_title(life: Life) -> str:
    return f"Request {life.request_id}"


def life_words(life: Life) -> str:
    """What the drawing shows."""
    parts = "; ".join(f"{kind} {what}" for kind, what in life.events)
    return f"Life of request {life.request_id}: {parts}."


def life_figure(life: Life) -> Figure:
    """The request on top, then the batch and the queue of its replica, then its prefill."""
    unit = time_unit([life.edges_s[-1]])
    layout = {
        **frame(height=350, left=58, top=22, bottom=42),
        "barmode": "overlay",
        "bargap": 0,
        "hovermode": "closest",
        "xaxis": {
            **titled_axis(f"time since its arrival, {unit.name}"),
            "range": rounded([0.0, life.edges_s[-1] * unit.per_s]),
            "anchor": "y3",
        },
        "yaxis": {**titled_axis(""), "domain": [0.86, 1.0], "visible": False, "fixedrange": True},
        "yaxis2": {**titled_axis("requests"), "domain": [0.42, 0.74], "rangemode": "tozero", "nticks": 4},
        "yaxis3": {**titled_axis("tokens/s"), "domain": [0.0, 0.3], "rangemode": "tozero", "nticks": 4},
        "annotations": [
            panel_heading(f"Request {life.request_id}", 1.0),
            panel_heading(
                f"Replica {life.replica}: {key('@accent', 'decoding')} {key('@second', 'waiting', '╍')}",
                0.74,
            ),
            panel_heading(f"{key('@third', 'prompt tokens processed')}", 0.3),
        ],
    }
    bars = [_bars(kind, [each for each in life.segments if each.kind == kind], unit) for kind in KINDS]
    curves = [
        _curve("decoding", life.decoding, life, unit, "@accent", "solid", "y2"),
        _curve("waiting", life.waiting, life, unit, "@second", "dash", "y2"),
        _curve("prompt tokens/s", life.prefill_rate, life, unit, "@third", "solid", "y3"),
    ]
    return {"data": [bar for bar in bars if bar["x"]] + curves, "layout": layout}


def _bars(kind: str, segments: list[Segment], unit: TimeUnit) -> dict[str, Any]:
    colour, shape = KINDS[kind]
    return {
        "type": "bar",
        "orientation": "h",
        "name": kind,
        "y": [0] * len(segments),
        "base": rounded([each.start_s * unit.per_s for each in segments]),
        "x": rounded([(each.end_s - each.start_s) * unit.per_s for each in segments]),
        "text": [_told(each) for each in segments],
        "textposition": "none",
        "marker": {
            "color": colour,
            "pattern": pattern(shape),
        },
        "hovertemplate": "%{text}<extra></extra>",
        "xaxis": "x",
        "yaxis": "y",
    }


def _told(segment: Segment) -> str:
    what = {"prefill": "in pieces: {}", "decode": "iterations: {}"}.get(segment.kind, "")
    pieces = f", {what.format(segment.pieces)}" if what else ""
    return f"{segment.kind} {seconds(segment.end_s - segment.start_s)}{pieces}"


def _curve(
    name: str, values: np.ndarray, life: Life, unit: TimeUnit, colour: str, dash: str, axis: str
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x0": 0.0,
        "dx": rounded([life.edges_s[1] * unit.per_s])[0],
        "y": heights(values),
        "line": {"color": colour, "width": 2, "dash": dash, "shape": "hv"},
        "hovertemplate": f"{name} %{{y:.4~g}}<extra></extra>",
        "xaxis": "x",
        "yaxis": axis,
    }

"""Drawings of latencies: their distributions, and what the time to first token is made of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simslm.metrics.definitions import BY_KEY
from simslm.report.distribution import Cdf, cdf
from simslm.report.figures import (
    LIMIT_LINE,
    WIDE_RANGE,
    Figure,
    decades,
    frame,
    pattern,
    rounded,
    titled_axis,
)
from simslm.report.objective import stated_bounds
from simslm.report.page import Key, Plot
from simslm.report.tables import RunTables
from simslm.report.wording import TimeUnit, count, share, time_unit
from simslm.units import number, seconds

DRAWN = ("ttft_s", "tpot_s", "e2e_s")

GROUPS = (
    ("fastest half", 0.0, 0.5),
    ("50 to 90 %", 0.5, 0.9),
    ("90 to 99 %", 0.9, 0.99),
    ("slowest 1 %", 0.99, 1.0),
)
"""Requests by the rank of their TTFT: a name, and from which share of them up to which."""

PARTS = (("queue", "@second", "/"), ("prefill", "@third", ""), ("wait", "@fourth", "."))
"""What TTFT is made of, with colour and pattern."""


def distributions(run: RunTables, anchor: str) -> list[Plot]:
    """The distributions of TTFT, TPOT, ITL and E2E; a distribution without observations is left out."""
    bounds = stated_bounds(run)
    counts = run.requests["counted"]
    found = [cdf(key, run.requests[key][counts], bounds.get(key)) for key in DRAWN]
    if run.gaps is not None:
        found.insert(2, Cdf("itl_s", run.gaps["itl_s"], run.gaps["share"]))
    return [
        Plot(
            f"{anchor}-{each.metric}",
            BY_KEY[each.metric].name,
            _words(each),
            cdf_figure(each),
            cdf_legend(each),
        )
        for each in found
        if len(each.values)
    ]


def _counted(distribution: Cdf) -> str:
    """What a distribution is over: gaps between tokens are pooled."""
    return "tokens" if distribution.metric == "itl_s" else "requests"


def _words(found: Cdf) -> str:
    name = BY_KEY[found.metric].name
    middle, tail = (seconds(float(found.values[np.searchsorted(found.shares, at)])) for at in (0.5, 0.99))
    limit = f"; {share(found.met)} within the SLO bound" if found.met is not None else ""
    return f"Distribution of {name} over {_counted(found)}: half within {middle}, 99 % within {tail}{limit}."


def cdf_figure(distribution: Cdf) -> Figure:
    """The cumulative distribution of one latency, with its SLO bound when there is one."""
    unit = time_unit(distribution.values[-1:])
    values = distribution.values * unit.per_s
    name = BY_KEY[distribution.metric].name
    counted = _counted(distribution)
    line = {
        "type": "scatter",
        "mode": "lines",
        "x": rounded([*values[:1], *values]),
        "y": rounded([0.0, *(distribution.shares * 100)]),
        "line": {"color": "@accent", "width": 2, "shape": "hv"},
        "hovertemplate": f"%{{y:.1f}} % of {counted}: {name} ≤ %{{x:.4~g}} {unit.name}<extra></extra>",
    }
    layout = {
        **frame(height=224, left=46, top=8, bottom=44),
        "hovermode": "x",
        "xaxis": {**titled_axis(f"{name}, {unit.name}"), **_value_axis(distribution, unit)},
        "yaxis": {**titled_axis(f"{counted}, %"), "range": [0, 102], "dtick": 25},
    }
    if distribution.limit_s is not None and not _off_scale(distribution, layout["xaxis"]):
        layout["shapes"] = [_limit_line(distribution, unit)]
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


def cdf_legend(distribution: Cdf) -> list[Key]:
    """The bound and the share that keeps it; nothing without a bound."""
    if distribution.limit_s is None or distribution.met is None:
        return []
    beyond = (
        ", off the scale" if _off_scale(distribution, cdf_figure(distribution)["layout"]["xaxis"]) else ""
    )
    return [Key(f"SLO {seconds(distribution.limit_s)}: {share(distribution.met)}{beyond}", "@limit", "dash")]


def _off_scale(distribution: Cdf, axis: Mapping[str, Any]) -> bool:
    """Whether the bound lies beyond the axis."""
    unit = time_unit(distribution.values[-1:])
    return axis["type"] == "linear" and (distribution.limit_s or 0.0) * unit.per_s > axis["range"][1]


def _limit_line(distribution: Cdf, unit: TimeUnit) -> dict[str, Any]:
    at = rounded([(distribution.limit_s or 0.0) * unit.per_s])[0]
    ends = {"type": "line", "xref": "x", "yref": "paper", "x0": at, "x1": at, "y0": 0, "y1": 1}
    return {**ends, "line": LIMIT_LINE}


@dataclass(frozen=True, slots=True)
class FirstToken:
    """What the TTFT of some requests is made of, means in seconds.

    Attributes:
        name: of the requests.
        requests: how many.
        queue_s: first scheduled - arrival.
        prefill_s: in iterations that processed their prompts.
        wait_s: the rest: scheduled, but between pieces of their prompts, or preempted.
    """

    name: str
    requests: int
    queue_s: float
    prefill_s: float
    wait_s: float


def first_tokens(run: RunTables) -> list[FirstToken]:
    """TTFT of all requests that got a first token and of those of each rank; empty where the parts are not known."""
    got = np.flatnonzero(np.isfinite(run.requests["ttft_s"]) & run.requests["counted"])
    if run.stages is None or not len(got):
        return []
    ttft, queue = run.requests["ttft_s"][got], run.requests["queue_s"][got]
    prefill = prefill_s(run)[got]
    parts = np.stack([queue, prefill, np.maximum(ttft - queue - prefill, 0.0)])
    order = np.argsort(ttft, kind="stable")
    found = [FirstToken("all", len(got), *map(float, parts.mean(axis=1)))]
    for name, low, high in GROUPS:
        mine = order[round(low * len(order)) : round(high * len(order))]
        if len(mine):
            found.append(FirstToken(name, len(mine), *map(float, parts[:, mine].mean(axis=1))))
    return found


def prefill_s(run: RunTables) -> np.ndarray:
    """The time of the iterations that processed each request's prompt up to its first token, shape ``(requests,)``."""
    assert run.stages is not None
    order = np.argsort(run.requests["request_id"], kind="stable")
    ids = run.requests["request_id"][order]
    row = order[np.minimum(np.searchsorted(ids, run.stages["request_id"]), len(ids) - 1)]
    first = run.requests["first_token_s"][row]
    counts = ~run.stages["decode"] & (run.stages["end_s"] <= first)
    taken = (run.stages["end_s"] - run.stages["start_s"])[counts]
    return np.bincount(row[counts], taken, minlength=len(ids))


def first_token_plot(found: Sequence[FirstToken], anchor: str) -> Plot:
    """Bars, one for each group of requests, divided into what their TTFT is made of."""
    unit = time_unit([each.queue_s + each.prefill_s + each.wait_s for each in found])
    names = [f"{each.name} ({count(each.requests)})" for each in found]
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": part,
            "y": names,
            "x": rounded([getattr(each, f"{part}_s") * unit.per_s for each in found]),
            "marker": {
                "color": colour,
                "pattern": pattern(shape),
            },
            "hovertemplate": f"%{{y}}<br>{part} %{{x:.4~g}} {unit.name}<extra></extra>",
        }
        for part, colour, shape in PARTS
    ]
    layout = {
        **frame(height=max(150, 70 + 34 * len(found)), left=138, top=6, bottom=44),
        "barmode": "stack",
        "bargap": 0.35,
        "xaxis": {**titled_axis(f"mean TTFT, {unit.name}"), "rangemode": "tozero", "nticks": 4},
        "yaxis": {
            **titled_axis("requests by TTFT"),
            "autorange": "reversed",
            "type": "category",
            "showgrid": False,
        },
    }
    words = "; ".join(
        f"{each.name}: queue {seconds(each.queue_s)}, prefill {seconds(each.prefill_s)}, wait {seconds(each.wait_s)}"
        for each in found
    )
    legend = [Key(part, colour, "square") for part, colour, _ in PARTS]
    title = "What TTFT is made of, by how long it was"
    return Plot(f"{anchor}-first", title, f"Mean TTFT: {words}.", {"data": data, "layout": layout}, legend)

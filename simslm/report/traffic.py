"""The page of a traffic: its rate, its gaps and its lengths, perhaps beside those of another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simslm.report.figures import WIDE_RANGE, Figure, decades, frame, rounded, titled_axis
from simslm.report.page import Key, Plot, render_template
from simslm.report.wording import time_unit
from simslm.units import number

MOST_POINTS = 400
COLOURS = ("@accent", "@second")


@dataclass(frozen=True, slots=True)
class Drawn:
    """What is drawn of one traffic.

    Attributes:
        name: in legends.
        rate_edges_s, rates_rps: the rate in consecutive windows, and where these begin and end; empty without times.
        gaps_s: between arrivals; empty without times.
        prompt_tokens, output_tokens: of each request.
    """

    name: str
    rate_edges_s: np.ndarray
    rates_rps: np.ndarray
    gaps_s: np.ndarray
    prompt_tokens: np.ndarray
    output_tokens: np.ndarray


@dataclass(frozen=True, slots=True)
class TrafficPage:
    """What the page says beside its figures.

    Attributes:
        title: of the page.
        setup: facts below it.
        sentence: the answer.
        columns, rows: the table of figures.
        notes: warnings.
        source: names and values of where the traffic comes from.
        preset: the text of a preset; empty for none.
        command: what makes the page again.
    """

    title: str
    setup: Sequence[str]
    sentence: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]
    source: Sequence[tuple[str, str]]
    preset: str
    command: str


def render_traffic(page: TrafficPage, drawn: Sequence[Drawn]) -> str:
    """The HTML text of the page of one traffic, or of two."""
    legend = [Key(each.name, colour) for each, colour in zip(drawn, COLOURS, strict=False)]
    over_time = _rate_plot(drawn, legend)
    lengths = [
        _cdf_plot("prompt-tokens", "Prompt tokens", [each.prompt_tokens for each in drawn], legend),
        _cdf_plot("output-tokens", "Output tokens", [each.output_tokens for each in drawn], legend),
    ]
    gaps = _gap_plot(drawn, legend)
    timed = [plot for plot in (over_time, gaps) if plot is not None]
    return render_template(
        "traffic.html.j2", title=page.title, plots=[*timed, *lengths], view=page, timed=timed, lengths=lengths
    )


def _rate_plot(drawn: Sequence[Drawn], legend: Sequence[Key]) -> Plot | None:
    known = [(each, key) for each, key in zip(drawn, legend, strict=True) if len(each.rates_rps)]
    if not known:
        return None
    lines = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": each.name,
            "x": rounded(each.rate_edges_s),
            "y": rounded(np.append(each.rates_rps, each.rates_rps[-1])),
            "line": {"color": key.colour, "width": 2, "shape": "hv"},
            "hovertemplate": f"{each.name}: %{{y:.4~g}} requests/s<extra></extra>",
        }
        for each, key in known
    ]
    layout = {
        **frame(height=260, left=58, top=10, bottom=46),
        "xaxis": titled_axis("time, s"),
        "yaxis": {**titled_axis("requests/s"), "rangemode": "tozero"},
    }
    highest = max(float(each.rates_rps.max()) for each, _ in known)
    words = f"Arrival rate over {number(float(known[0][0].rate_edges_s[-1]))} s, at most {number(highest)} requests/s."
    return Plot("rate", "Arrival rate", words, {"data": lines, "layout": layout}, legend)


def _gap_plot(drawn: Sequence[Drawn], legend: Sequence[Key]) -> Plot | None:
    """The distribution of the gaps; those of 0 have no place on its logarithmic axis, but count."""
    known = [(each.gaps_s, key) for each, key in zip(drawn, legend, strict=True) if np.any(each.gaps_s > 0)]
    if not known:
        return None
    unit = time_unit([float(np.median(known[0][0][known[0][0] > 0]))])
    curves = [(gaps * unit.per_s, key) for gaps, key in known]
    return _plot("gaps", "Gaps between arrivals", f"gap, {unit.name}", curves, legend, "gaps")


def _cdf_plot(anchor: str, title: str, values: Sequence[np.ndarray], legend: Sequence[Key]) -> Plot:
    curves = list(zip(values, legend, strict=True))
    return _plot(anchor, title, title.lower(), curves, legend, "requests")


def _plot(
    anchor: str,
    title: str,
    axis: str,
    curves: Sequence[tuple[np.ndarray, Key]],
    legend: Sequence[Key],
    what: str,
) -> Plot:
    """Cumulative distributions, on a logarithmic axis where the tail is long."""
    lines = []
    for values, key in curves:
        at, shares = _cdf(values)
        lines.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": key.name,
                "x": rounded(at),
                "y": rounded(shares * 100),
                "line": {"color": key.colour, "width": 2, "shape": "hv"},
                "hovertemplate": f"{key.name}: %{{y:.1f}} % of {what} ≤ %{{x:.4~g}}<extra></extra>",
            }
        )
    layout = {
        **frame(height=260, left=46, top=10, bottom=46),
        "xaxis": {**titled_axis(axis), **_scale(np.concatenate([values for values, _ in curves]))},
        "yaxis": {**titled_axis(f"{what}, %"), "range": [0, 102], "dtick": 25},
    }
    first = curves[0][0]
    middle, tail = (number(float(np.quantile(first, share))) for share in (0.5, 0.99))
    words = f"Distribution of {title.lower()}: half at most {middle}, 99 % at most {tail}."
    return Plot(anchor, title, words, {"data": lines, "layout": layout}, legend)


def _cdf(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values and the share at most as large, at evenly spaced shares and in the last hundredth."""
    ordered = np.sort(values)
    count = len(ordered)
    shares = np.concatenate((np.linspace(0, 1, MOST_POINTS), 1 - 0.01 * np.linspace(0, 1, 40)))
    ranks = np.unique(np.clip(np.ceil(shares * count).astype(np.int64), 1, count))
    return ordered[ranks - 1], ranks / count


def _scale(values: np.ndarray) -> Figure:
    """A linear axis from 0, or a logarithmic one where the tail is long."""
    positive = values[values > 0]
    low, middle, high = (float(np.quantile(positive, share)) for share in (0.001, 0.5, 1.0))
    if high / middle <= WIDE_RANGE and high / low <= WIDE_RANGE**2:
        return {"type": "linear", "rangemode": "tozero", "nticks": 6}
    ticks = decades(low, high)
    ends = rounded([math.log10(low) - 0.03, math.log10(high) + 0.05])
    return {"type": "log", "range": ends, "tickvals": ticks, "ticktext": [number(tick) for tick in ticks]}

"""Drawings of batch sweeps: figures against the batch limit or against each other, and bars of configurations.

What was measured is drawn as hollow markers, what was simulated as a line, both in the colour of their name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simslm.report.figures import Figure, decades, frame, rounded, titled_axis
from simslm.report.page import Key
from simslm.report.palette import SERIES
from simslm.report.parity import batch_axis, plain
from simslm.units import number

MEASURED = Key("measured", "@muted", "circle-open")


@dataclass(frozen=True, slots=True)
class Series:
    """One curve.

    Attributes:
        name: what it is of; series of one name share a colour.
        batches: batch limits, ascending.
        values: of the figure at each, NaN where unknown.
        measured: rather than simulated.
        along: another figure at each, to be drawn against in place of the batch limit.
    """

    name: str
    batches: Sequence[int]
    values: Sequence[float]
    measured: bool = False
    along: Sequence[float] | None = None


def batch_figure(title: str, series: Sequence[Series], *, logarithmic: bool = False) -> Figure:
    """A figure against the batch limit, from 0 or logarithmic."""
    batches = sorted({batch for each in series for batch in each.batches})
    values = [each.values for each in series]
    return _figure(series, batch_axis(batches), _value_axis(title, values, logarithmic))


def against_figure(along: str, title: str, series: Sequence[Series]) -> Figure:
    """One figure against another, batch limit by batch limit."""
    x = _value_axis(along, [each.along or () for each in series], False)
    return _figure(series, x, _value_axis(title, [each.values for each in series], False))


def bars_figure(title: str, labels: Sequence[str], groups: Mapping[str, Sequence[float | None]]) -> Figure:
    """Bars side by side for each label, one of each group; none where a value is None.

    Args:
        title: of the values.
        labels: what is compared.
        groups: by name, a value for each label.
    """
    data = [
        {
            "type": "bar",
            "name": plain(each.name),
            "x": [plain(label) for label in labels],
            "y": rounded([math.nan if value is None else value for value in groups[each.name]]),
            "marker": {"color": each.colour},
            "hovertemplate": f"%{{x}}<br>{plain(each.name)} %{{y:.4~g}}<extra></extra>",
        }
        for each in bars_legend(groups)
    ]
    layout = {
        **frame(height=320, left=62, top=10, bottom=76),
        "barmode": "group",
        "bargap": 0.3,
        "xaxis": {**titled_axis("replicas × max_num_seqs"), "type": "category", "tickangle": -45},
        "yaxis": {**titled_axis(title), "rangemode": "tozero", "nticks": 6},
    }
    return {"data": data, "layout": layout}


def legend(series: Sequence[Series]) -> list[Key]:
    """Each name in its colour, and what a hollow marker is where there is one."""
    named = [Key(name, colour) for name, colour in _colours(series).items()]
    return [*named, *([MEASURED] if any(each.measured for each in series) else [])]


def bars_legend(groups: Iterable[str]) -> list[Key]:
    """Each group in its colour; of several, the first one is muted."""
    names = list(groups)
    colours = ("@muted", *SERIES) if len(names) > 1 else SERIES
    return [Key(name, colours[i % len(colours)], "square") for i, name in enumerate(names)]


def _figure(series: Sequence[Series], x: dict[str, Any], y: dict[str, Any]) -> Figure:
    colours = _colours(series)
    layout = {**frame(height=290, left=62, top=10, bottom=46), "xaxis": x, "yaxis": y}
    return {"data": [_trace(each, colours[each.name]) for each in series], "layout": layout}


def _trace(series: Series, colour: str) -> dict[str, Any]:
    who = "measured" if series.measured else "simulated"
    drawn = {"mode": "markers", "marker": {"color": colour, "symbol": "circle-open", "size": 9}}
    if not series.measured:
        drawn = {"mode": "lines+markers", "line": {"color": colour, "width": 2}}
        drawn["marker"] = {"color": colour, "size": 4}
    x = series.batches if series.along is None else series.along
    return {
        "type": "scatter",
        "name": f"{plain(series.name)}, {who}",
        "x": rounded(x),
        "y": rounded(series.values),
        "text": [number(batch) for batch in series.batches],
        "hovertemplate": f"{plain(series.name)}, {who}<br>batch %{{text}}: %{{y:.4~g}}<extra></extra>",
        **drawn,
    }


def _colours(series: Sequence[Series]) -> dict[str, str]:
    names = list(dict.fromkeys(each.name for each in series))
    return {name: SERIES[i % len(SERIES)] for i, name in enumerate(names)}


def _value_axis(title: str, values: Sequence[Sequence[float]], logarithmic: bool) -> dict[str, Any]:
    known = [value for each in values for value in each if math.isfinite(value) and value > 0]
    if not logarithmic or not known:
        top = 1.05 * max(known, default=1.0)
        return {**titled_axis(title), "range": rounded([0.0, top]), "nticks": 6}
    low, high = min(known), max(known)
    ticks = decades(low, high)
    return {
        **titled_axis(title),
        "type": "log",
        "range": rounded([math.log10(low) - 0.06, math.log10(high) + 0.06]),
        "tickvals": ticks,
        "ticktext": [number(tick) for tick in ticks],
    }

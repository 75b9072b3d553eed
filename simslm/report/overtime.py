"""The drawing of a run over simulated time: rows of curves on one time axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simslm.report.figures import LIMIT_LINE, Figure, frame, key, panel_heading, rounded, titled_axis
from simslm.report.page import Plot
from simslm.report.timeline import Band, Timeline
from simslm.report.wording import count, share
from simslm.units import number, seconds

PANEL = 120
"""Height of a row, pixels."""

Trace = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Panel:
    """One row: the unit of its axis, a heading, and curves; a horizontal limit and the axis end where set.

    ``single`` is the heading when each replica has a curve: of the row's first quantity alone.
    """

    unit: str
    heading: str
    single: str
    traces: Sequence[Trace]
    limit: float | None = None
    top: float | None = None


def overtime_plot(found: Timeline, anchor: str, replicas: int) -> Plot:
    """Queue, batch, KV, power, throughput and goodput, one above the other."""
    title = "All replicas together" if replicas > 1 else "The replica"
    return Plot(f"{anchor}-timeline", title, _words(found), overtime_figure(found))


def _words(found: Timeline) -> str:
    parts = [
        f"up to {count(found.running.peak.max())} requests running",
        f"up to {count(found.waiting.peak.max())} waiting",
        f"up to {count(found.decode_seqs.peak.max())} sequences decoding",
    ]
    if found.kv_share is not None:
        parts.append(f"up to {share(float(found.kv_share.peak.max()))} of the KV blocks used")
    if found.power_w is not None:
        parts.append(f"up to {number(found.power_w.peak.max())} W")
    parts.append(f"up to {number(found.output_rate.max())} output tokens/s")
    return f"Timeline of {seconds(float(np.ptp(found.edges_s)))}: {', '.join(parts)}."


def overtime_figure(timeline: Timeline) -> Figure:
    """The rows on one time axis; ``layout.meta`` says which trace shows what, for the script of the page."""
    rows = panels(timeline)
    gap = 0.3 / len(rows)
    height = (1 - gap * (len(rows) - 1)) / len(rows)
    layout = frame(height=PANEL * len(rows) + 64, left=58, top=22, bottom=42)
    layout |= {"shapes": [], "annotations": [], "hovermode": "x"}
    traces: list[Trace] = []
    for row, panel in enumerate(rows):
        suffix = "" if row == 0 else str(row + 1)
        top = 1 - row * (height + gap)
        ends = {"range": [0, panel.top]} if panel.top else {"rangemode": "tozero"}
        domain = rounded([max(0.0, top - height), top])
        layout[f"yaxis{suffix}"] = {**titled_axis(panel.unit), "domain": domain, "nticks": 4, **ends}
        layout["annotations"].append(panel_heading(panel.heading, rounded([top])[0] or 0.0))
        traces.extend({**trace, "xaxis": "x", "yaxis": f"y{suffix}"} for trace in panel.traces)
        if panel.limit is not None:
            across = {
                "xref": "paper",
                "yref": f"y{suffix}",
                "x0": 0,
                "x1": 1,
                "y0": panel.limit,
                "y1": panel.limit,
            }
            layout["shapes"].append({"type": "line", **across, "line": LIMIT_LINE})
    layout["xaxis"] = {
        **titled_axis("simulated time, s"),
        "anchor": f"y{len(rows)}" if len(rows) > 1 else "y",
        "range": rounded(timeline.edges_s[[0, -1]]),
        "showspikes": True,
        "spikemode": "across",
        "spikethickness": 1,
        "spikecolor": "@muted",
        "spikedash": "dot",
    }
    return {"data": traces, "layout": layout}


def panels(timeline: Timeline) -> list[Panel]:
    """The rows, top to bottom; those of unknown quantities are left out."""
    known = series(timeline)

    def curves(*names: str) -> list[Trace]:
        return [trace for name in names for trace in _traces(timeline, name, known[name])]

    seqs, most = timeline.max_num_seqs, max(float(np.max(timeline.decode_seqs.peak)), 1.0)
    limit = seqs if seqs is not None and seqs <= 2 * most else None
    capped = f" {key('@limit', f'limit {number(seqs)}', '╌')}" if limit is not None else ""
    ceiling = max(limit, most) * 1.15 if limit is not None else None
    running, waiting = _key("running"), _key("waiting")
    found = [
        Panel("requests", f"{waiting} {running}", "Requests waiting", curves("waiting", "running")),
        Panel(
            "sequences",
            f"{_key('decoding')}{capped}",
            "Sequences decoding",
            curves("decoding"),
            limit,
            ceiling,
        ),
    ]
    if "kv" in known:
        mean, peak = known["kv"]
        highest = float(np.max(mean if peak is None else peak))
        heading = f"{_key('kv')}, at most {share(highest / 100)}"
        top = 105.0 if highest >= 40 else 1.3 * highest or None
        found.append(Panel("% of blocks", heading, "KV blocks used", curves("kv"), top=top))
    if "power" in known:
        found.append(Panel("W", _key("power"), "Power", curves("power")))
    tokens = [name for name in ("offered", "output") if name in known]
    found.append(
        Panel("tokens/s", " ".join(map(_key, reversed(tokens))), "Output tokens produced", curves(*tokens))
    )
    done = [name for name in ("finished", "good") if name in known]
    found.append(Panel("requests/s", " ".join(map(_key, done)), "Requests finished", curves(*done)))
    return found


NAMES = {
    "waiting": ("requests waiting", "@second", "dash"),
    "running": ("running", "@accent", "solid"),
    "decoding": ("sequences decoding", "@accent", "solid"),
    "kv": ("KV blocks used", "@third", "solid"),
    "power": ("power", "@fourth", "solid"),
    "output": ("output tokens produced", "@accent", "solid"),
    "offered": ("requested", "@second", "dash"),
    "finished": ("requests finished", "@accent", "solid"),
    "good": ("within the SLO", "@third", "dash"),
}
"""What each series is called, its colour and its dash."""

SINGLE = ("waiting", "decoding", "kv", "power", "output", "finished")
"""Series that are drawn when each replica has a curve."""


def _key(name: str) -> str:
    words, colour, dash = NAMES[name]
    return key(colour, words, "╍" if dash == "dash" else "━")


def series(timeline: Timeline) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """Means and, where they differ, maxima over the intervals, of every quantity that is known; KV in %."""
    bands: dict[str, Band | None] = {
        "waiting": timeline.waiting,
        "running": timeline.running,
        "decoding": timeline.decode_seqs,
        "kv": timeline.kv_share,
        "power": timeline.power_w,
    }
    rates = {
        "output": timeline.output_rate,
        "offered": timeline.offered_rate,
        "finished": timeline.finished_rate,
        "good": timeline.good_rate,
    }
    found: dict[str, tuple[np.ndarray, np.ndarray | None]] = {}
    for name, band in bands.items():
        if band is not None:
            scale = 100.0 if name == "kv" else 1.0
            alike = np.allclose(band.mean, band.peak, atol=1e-9)
            found[name] = (band.mean * scale, None if alike else band.peak * scale)
    return found | {name: (rate, None) for name, rate in rates.items() if rate is not None}


def _traces(timeline: Timeline, name: str, values: tuple[np.ndarray, np.ndarray | None]) -> list[Trace]:
    """The mean as a line; the maximum of each interval as a thin one behind it where they differ."""
    words, colour, dash = NAMES[name]
    rate = name in ("output", "offered", "finished", "good")
    edges = timeline.rate_edges_s if rate else timeline.edges_s
    mean, peak = values
    line = {"color": colour, "width": 2, "dash": dash}
    traces = [_steps(mean, edges, words, line, {"series": name, "part": 0, "single": name in SINGLE})]
    if peak is not None:
        thin = {"color": colour, "width": 0.75}
        trace = _steps(peak, edges, f"{words}, highest", thin, {"series": name, "part": 1, "single": False})
        traces.insert(0, {**trace, "opacity": 0.45})
    return traces


def _steps(
    values: np.ndarray, edges: np.ndarray, name: str, line: Mapping[str, Any], meta: Mapping[str, Any]
) -> Trace:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x0": float(edges[0]),
        "dx": float(edges[1] - edges[0]),
        "y": heights(values),
        "line": {**line, "shape": "hv"},
        "hovertemplate": f"{name} %{{y:.4~g}}<extra></extra>",
        "meta": dict(meta),
    }


def heights(values: np.ndarray) -> list[float | None]:
    """What a curve of steps is drawn through: each interval's value from its beginning, the last one to its end."""
    clean = np.where(np.abs(values) < 1e-9 * np.max(np.abs(values), initial=0.0), 0.0, values)
    return rounded(np.append(clean, clean[-1:]), digits=4)


def replica_data(timelines: Mapping[int, Timeline]) -> dict[str, Any]:
    """What the script of the page draws of each replica.

    Its series are those of :func:`series`; beside them are its batch limit and, by unit, what stands above each row.
    """
    return {
        str(number): {
            "limit": found.max_num_seqs,
            "headings": {panel.unit: panel.heading for panel in panels(found)},
            "series": {
                name: [heights(mean), None if peak is None else heights(peak)]
                for name, (mean, peak) in series(found).items()
            },
        }
        for number, found in timelines.items()
    }


def overview_plot(found: Timeline, anchor: str) -> Plot:
    """Requests in the system over the whole run, small: what the brush is drawn on."""
    total = found.running.mean + found.waiting.mean
    line = {"color": "@accent", "width": 1}
    trace = _steps(total, found.edges_s, "requests in the system", line, {})
    trace |= {"hoverinfo": "skip", "hovertemplate": None, "fill": "tozeroy"}
    hidden = {"visible": False, "fixedrange": True}
    layout = {
        **frame(height=52, left=0, top=0, bottom=0),
        "xaxis": {**hidden, "range": rounded(found.edges_s[[0, -1]])},
        "yaxis": {**hidden, "rangemode": "tozero"},
        "dragmode": False,
    }
    layout["margin"] |= {"r": 0}
    words = f"Requests in the system over the whole run, up to {count(total.max())}."
    return Plot(f"{anchor}-overview", "Whole run", words, {"data": [trace], "layout": layout})

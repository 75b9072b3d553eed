"""Every measured operator under the roofline of the device: what it reaches of what its arithmetic and traffic allow.

An operator of ``flops`` operations and ``bytes`` moved can run at ``min(peak, flops / bytes × bandwidth)`` operations
a second at most (Williams, Waterman & Patterson 2009, "Roofline"); one without arithmetic at ``bandwidth`` bytes a
second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from simslm.catalog.devices import Device
from simslm.report.figures import Figure, decades, frame, rounded, titled_axis
from simslm.report.page import Key
from simslm.report.palette import SERIES, SYMBOLS
from simslm.report.parity import plain
from simslm.report.wording import count
from simslm.units import number, seconds

SHAPE = ("tokens", "seqs", "ctx_tokens")
TERA, GIGA = 1e12, 1e9
_CEILING = "ceiling_"


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What bounds every operator.

    Attributes:
        flops_per_s, bytes_per_s: the two.
        origin: where they come from, in words.
    """

    flops_per_s: float
    bytes_per_s: float
    origin: str

    @classmethod
    def of(cls, kernels: pa.Table, device: Device | None, dtype: str) -> Ceilings | None:
        """As measured beside the operators, else the catalogue's peaks; None where neither is known."""
        rows = kernels.to_pandas()
        rows = rows[rows["op"].str.startswith(_CEILING)]
        if len(rows):
            rate = rows[["flops", "bytes"]].div(rows["latency_s"], axis=0).groupby(rows["op"]).median()
            streams = rate.index != "ceiling_matmul"
            return cls(
                float(rate["flops"].max()), float(rate["bytes"][streams].max()), "measured on this device"
            )
        if device is None:
            return None
        return cls(
            device.flops_per_s(dtype),
            device.memory_bandwidth_bytes_per_s,
            f"the catalogue’s peaks of {device.name}",
        )


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator at all its measured shapes, arrays of shape ``(n,)``.

    Attributes:
        name: as the trace calls it.
        labels: each shape in words.
        latency_s: medians over repeats.
        flops, bytes: of one call.
    """

    name: str
    labels: list[str]
    latency_s: np.ndarray
    flops: np.ndarray
    bytes: np.ndarray

    @property
    def intensity(self) -> np.ndarray:
        """Operations for each byte moved; 0 without arithmetic."""
        return self.flops / self.bytes

    def reached(self, peak_flops: float, bandwidth: float) -> np.ndarray:
        """The share of what the roofline allows."""
        floor_s = np.maximum(self.flops / peak_flops, self.bytes / bandwidth)
        return floor_s / self.latency_s


def operators(kernels: pa.Table) -> list[Operator]:
    """The operators of a table of kernels, in the order of their names; calls that move no bytes are left out.

    Measured ceilings are no operators, see :class:`Ceilings`.
    """
    frame_of = kernels.to_pandas()
    frame_of = frame_of[(frame_of["bytes"] > 0) & ~frame_of["op"].str.startswith(_CEILING)]
    found = []
    for name, calls in frame_of.groupby("op", sort=True):
        each = calls.groupby(list(SHAPE), sort=True)[["latency_s", "flops", "bytes"]].median().reset_index()
        labels = [_label(*row) for row in each[list(SHAPE)].itertuples(index=False)]
        columns = (each[column].to_numpy(dtype=float) for column in ("latency_s", "flops", "bytes"))
        found.append(Operator(str(name), labels, *columns))
    return found


def _label(tokens: int, seqs: int, context: int) -> str:
    parts = [f"{count(tokens)} tokens", f"{count(seqs)} sequences"]
    return ", ".join([*parts, f"{count(context)} cached"] if context else parts)


def operator_rows(found: list[Operator], ceilings: Ceilings) -> list[tuple[str, ...]]:
    """A line for each operator: its shapes, its latencies, and the most it reaches of the roofline."""
    rows, peak_flops, bandwidth = [], ceilings.flops_per_s, ceilings.bytes_per_s
    for each in found:
        reached = each.reached(peak_flops, bandwidth)
        best = int(np.argmax(reached))
        bound = "compute" if each.intensity[best] > peak_flops / bandwidth else "bandwidth"
        rows.append(
            (
                each.name,
                count(len(each.labels)),
                f"{seconds(float(each.latency_s.min()))} to {seconds(float(each.latency_s.max()))}",
                f"{number(float(each.intensity.min()))} to {number(float(each.intensity.max()))}",
                f"{number(100 * float(reached[best]))} %",
                bound,
                each.labels[best],
            )
        )
    return rows


COLUMNS = ("operator", "shapes", "latency", "FLOP per byte", "best of ceiling", "ceiling there", "at")


def operators_legend(found: list[Operator]) -> list[Key]:
    """Each operator with its colour and symbol."""
    return [Key(each.name, colour, symbol) for each, colour, symbol in _marked(found)]


def _marked(found: list[Operator]) -> list[tuple[Operator, str, str]]:
    """Operators with arithmetic, each with a colour and a symbol of its own."""
    able = [each for each in found if each.flops.any()]
    return [
        (each, SERIES[i % len(SERIES)], SYMBOLS[(i + i // len(SERIES)) % len(SYMBOLS)])
        for i, each in enumerate(able)
    ]


def roofline_figure(found: list[Operator], ceilings: Ceilings, dtype: str) -> Figure | None:
    """Arithmetic reached against arithmetic intensity, under the two ceilings; None without any arithmetic.

    Args:
        found: from :func:`operators`.
        ceilings: of the device.
        dtype: the data type of its arithmetic.
    """
    peak, bandwidth = ceilings.flops_per_s, ceilings.bytes_per_s
    marks = [_marks(each, colour, symbol, peak, bandwidth) for each, colour, symbol in _marked(found)]
    if not marks:
        return None
    x = [value for trace in marks for value in trace["x"]]
    y = [value for trace in marks for value in trace["y"]]
    ridge = peak / bandwidth
    left, right = min(x) / 2, 3 * max(*x, ridge)
    note = {
        "xref": "paper",
        "yref": "y",
        "x": 1,
        "y": round(math.log10(peak / GIGA), 4),
        "xanchor": "right",
        "yanchor": "bottom",
        "text": f"{number(peak / TERA)} TFLOP/s {dtype} · {number(bandwidth / GIGA)} GB/s",
        "showarrow": False,
        "font": {"size": 12, "color": "@muted"},
    }
    layout = {
        **frame(height=430, left=66, top=22, bottom=50),
        "hovermode": "closest",
        "xaxis": logarithmic("arithmetic intensity, FLOP per byte", left, right),
        "yaxis": logarithmic("arithmetic reached, GFLOP/s", min(y) / 2, 2.2 * max(*y, peak / GIGA)),
        "annotations": [note],
    }
    limits = ceiling([left, ridge, right], [min(left * bandwidth, peak), peak, peak])
    return {"data": [limits, *marks], "layout": layout}


def _marks(each: Operator, colour: str, symbol: str, peak: float, bandwidth: float) -> dict[str, Any]:
    """One operator at its shapes with arithmetic."""
    able = each.flops > 0
    latency, reached = each.latency_s[able], each.reached(peak, bandwidth)[able]
    said = [
        f"<b>{plain(each.name)}</b><br>{label}<br>{seconds(float(time))}, {number(100 * float(part))} % of its ceiling"
        for label, time, part in zip(np.array(each.labels)[able], latency, reached, strict=True)
    ]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": plain(each.name),
        "x": rounded(each.intensity[able]),
        "y": rounded(each.flops[able] / latency / GIGA),
        "text": said,
        "marker": {"color": colour, "symbol": symbol, "size": 7, "opacity": 0.75},
        "hovertemplate": "%{text}<br>%{y:.3~s} GFLOP/s at %{x:.3~g} FLOP per byte<extra></extra>",
    }


def ceiling(x: list[float], y: list[float]) -> dict[str, Any]:
    """The roofline through points of FLOP per byte and FLOP per second."""
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "ceiling",
        "x": rounded(x),
        "y": rounded(np.array(y) / GIGA),
        "line": {"color": "@limit", "width": 2},
        "hoverinfo": "skip",
    }


def logarithmic(title: str, low: float, high: float) -> dict[str, Any]:
    """A logarithmic axis from ``low`` to ``high``."""
    ticks = decades(low, high)
    return {
        **titled_axis(title),
        "type": "log",
        "range": rounded([math.log10(low), math.log10(high)]),
        "tickvals": ticks,
        "ticktext": [number(tick) for tick in ticks],
    }

"""The operators of a model under the roofline of its device, as a run's manifest holds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simslm.report.figures import Figure, frame, rounded
from simslm.report.operators import GIGA, ceiling, logarithmic
from simslm.report.page import Key, Plot
from simslm.report.palette import SERIES, SYMBOLS
from simslm.report.tables import RunTables
from simslm.report.wording import share
from simslm.units import bytes_, flops, number, seconds

OPERATOR_COLUMNS = (
    "Operator",
    "Calls",
    "FLOP",
    "Bytes",
    "FLOP/byte",
    "Bound",
    "A call",
    "All calls",
    "Share",
)


@dataclass(frozen=True, slots=True)
class OperatorRows:
    """One iteration: what it is, and a row for each operator."""

    title: str
    rows: list[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class RooflineView:
    """One group's model on its device: what bounds it in words, the drawing, and the tables."""

    words: str
    plot: Plot
    tables: list[OperatorRows]


def roofline_views(run: RunTables, anchor: str) -> list[RooflineView]:
    """A view for each group whose operators the manifest holds; none for a run of an older version."""
    groups = [group for group in run.manifest.get("groups", ()) if isinstance(group, Mapping)]
    device = str((run.manifest.get("device") or {}).get("name", "the device"))
    return [
        _view(group, group["roofline"], device, f"{anchor}-roofline-{i}")
        for i, group in enumerate(groups, start=1)
        if isinstance(group.get("roofline"), Mapping)
    ]


def _view(group: Mapping[str, Any], found: Mapping[str, Any], device: str, place: str) -> RooflineView:
    ridge = found["flops_per_s"] / found["bytes_per_s"]
    reached = found["efficiency"]
    words = (
        f"{group['model']} on {device}, which reaches {flops(found['flops_per_s'])}/s and "
        f"{bytes_(found['bytes_per_s'])}/s ({share(reached['compute'])} and {share(reached['bandwidth'])} of its "
        f"peaks, assumed): memory bounds an operator of less than {number(ridge)} FLOP per byte, arithmetic any other. "
        + " ".join(_bound_words(phase) for phase in found["phases"])
    )
    keys = [
        Key(_name(phase), SERIES[i], SYMBOLS[i]) for i, phase in enumerate(found["phases"][: len(SERIES)])
    ]
    plot = Plot(
        place,
        "Operators under the roofline",
        f"Roofline with its ridge at {number(ridge)} FLOP per byte. {words}",
        roofline_figure(found),
        (*keys, Key("roofline", "@limit", "solid")),
    )
    tables = [OperatorRows(_title(phase), _rows(phase)) for phase in found["phases"]]
    return RooflineView(words, plot, tables)


def roofline_figure(found: Mapping[str, Any]) -> Figure:
    """Intensity against what is reached, both logarithmic; operators that compute nothing are left out."""
    peak, bandwidth = found["flops_per_s"], found["bytes_per_s"]
    phases = [[each for each in phase["operators"] if each["flops"] > 0] for phase in found["phases"]]
    drawn = [each for operators in phases for each in operators]
    ridge = peak / bandwidth
    intensities = [ridge, *(each["intensity"] for each in drawn)]
    low, high = min(intensities) / 3, max(intensities) * 3
    data = [ceiling([low, ridge, high], [low * bandwidth, peak, peak])]
    for i, (phase, operators) in enumerate(zip(found["phases"], phases, strict=True)):
        text = [f"{each['name']}: {seconds(each['seconds'])}, bound by {each['bound']}" for each in operators]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": _name(phase),
                "x": rounded([each["intensity"] for each in operators]),
                "y": rounded([each["flops_per_s"] / GIGA for each in operators]),
                "text": text,
                "marker": {
                    "color": SERIES[i % len(SERIES)],
                    "symbol": SYMBOLS[i % len(SYMBOLS)],
                    "size": max(13 - 3 * i, 5),
                },
                "hovertemplate": f"{_name(phase)}<br>%{{text}}<br>%{{x:.3~g}} FLOP/byte<extra></extra>",
            }
        )
    speeds = [low * bandwidth, peak, *(each["flops_per_s"] for each in drawn)]
    layout = {
        **frame(height=380, left=74, top=14, bottom=46),
        "xaxis": logarithmic("arithmetic intensity, FLOP per byte", low, high),
        "yaxis": logarithmic("arithmetic reached, GFLOP/s", min(speeds) / GIGA, 2 * peak / GIGA),
        "shapes": [],
        "annotations": [],
    }
    return {"data": data, "layout": layout}


def _name(phase: Mapping[str, Any]) -> str:
    count = phase["seqs"]
    return "prefill" if phase["name"] == "prefill" else f"decode, batch {count:,}"


def _title(phase: Mapping[str, Any]) -> str:
    tokens = number(phase["tokens"])
    of = f"{tokens} tokens" if phase["name"] == "prefill" else f"{tokens} tokens each in the cache"
    return f"{_name(phase).capitalize()}, {of}: {seconds(phase['seconds'])} on the device"


def _bound_words(phase: Mapping[str, Any]) -> str:
    memory = sum(each["calls"] * each["seconds"] for each in phase["operators"] if each["bound"] == "memory")
    part = memory / phase["seconds"] if phase["seconds"] else 0.0
    return f"{_name(phase).capitalize()}: {share(part)} of the device time is bound by memory."


def _rows(phase: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [_row(each, phase["seconds"]) for each in phase["operators"]]


def _row(each: Mapping[str, Any], whole_s: float) -> tuple[str, ...]:
    all_s = each["calls"] * each["seconds"]
    return (
        each["name"],
        f"{each['calls']:,}",
        flops(each["flops"]),
        bytes_(each["bytes"]),
        number(each["intensity"]),
        each["bound"],
        seconds(each["seconds"]),
        seconds(all_s),
        share(all_s / whole_s),
    )

"""The page of a trace: what was measured (or fitted), what the cost model makes of it, and how far to trust it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simslm.catalog.devices import Device, device_names, load_device
from simslm.metrics.whole import write_whole
from simslm.report.colocation import matrices, matrix_figure
from simslm.report.operators import (
    COLUMNS,
    Ceilings,
    operator_rows,
    operators,
    operators_legend,
    roofline_figure,
)
from simslm.report.page import Key, Plot, render_template
from simslm.report.portrayal import (
    Points,
    batch_figure,
    chosen_lines,
    clock_figure,
    decode_points,
    heldout_figure,
    lines_legend,
    prefill_points,
    prompt_figure,
    surface_figure,
)
from simslm.report.wording import count
from simslm.traces.files import Trace
from simslm.traces.portrait import Heldout, Portrait
from simslm.traces.shapes import Shapes, alone, shapes
from simslm.traces.terms import TERMS
from simslm.units import bytes_, change, number, seconds

WORST = 8
"""Held-out points in the table."""

UNTOLD = 0.5
"""A standard error of more than this share of its term means that the runs do not tell it."""

SHOWN = (
    "engine", "date", "driver", "cuda", "torch", "cpu", "cores", "clocks", "grid", "warmup", "repeats", "attention",
    "block_size",
)  # fmt: skip
"""Keys of a provenance that the page lists, where they are there."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A tile: a name, a figure with its unit, and what there is to add."""

    name: str
    figure: str
    note: str


@dataclass(frozen=True, slots=True)
class ProfileView:
    """Everything the template shows; ``no_*`` say why there is nothing to draw."""

    title: str
    setup: list[str]
    source: str
    engine: str
    sentence: str
    notes: list[str]
    tiles: list[Figure]
    latency: list[Plot]
    prompts: Plot | None
    host: Plot | None
    no_host: str
    roofline: Plot | None
    ceilings: str
    operator_rows: list[tuple[str, ...]]
    power: list[Plot]
    power_words: str
    no_power: str
    colocation: list[Plot]
    no_colocation: str
    heldout: Plot | None
    heldout_words: str
    heldout_rows: list[tuple[str, ...]]
    terms: list[tuple[str, ...]]
    findings: list[tuple[str, ...]]
    facts: list[tuple[str, str]]
    command: str

    @property
    def plots(self) -> list[Plot]:
        """Every figure of the page."""
        found = (self.prompts, self.host, self.roofline, self.heldout)
        return [*self.latency, *(plot for plot in found if plot), *self.power, *self.colocation]


def write_profile(portrait: Portrait, target: Path) -> Path:
    """Writes the page of a trace, whole or not at all, and returns where it is.

    Raises:
        UsageError: it cannot be written.
    """
    page = render_profile(portrait)
    write_whole(target, lambda path: path.write_text(page, encoding="utf-8", newline="\n"))
    return target


def render_profile(portrait: Portrait) -> str:
    """The HTML text of the page."""
    shown = view(portrait)
    return render_template(
        "profile.html.j2", title=shown.title, view=shown, plots=shown.plots, operator_columns=COLUMNS
    )


def view(portrait: Portrait) -> ProfileView:
    """What there is to say and to draw."""
    trace, origin = portrait.trace, portrait.trace.provenance
    measured = None if trace.iterations is None else shapes(alone(trace.iterations))
    points = None if measured is None else decode_points(measured)
    device = load_device(origin["device"]) if origin["device"] in device_names() else None
    roofline, ceilings, rows = _roofline(trace, device)
    power = _power(portrait, points)
    colocation = _colocation(trace)
    return ProfileView(
        title=f"{origin['model']} in {origin['dtype']} on {origin['device']}",
        setup=_setup(trace),
        source=trace.source,
        engine=f"on {origin['engine']}",
        sentence=_sentence(portrait, points),
        notes=[f"No cost model can be made of it: {portrait.note}."] if portrait.note else [],
        tiles=_tiles(portrait, points),
        latency=_latency(portrait, points),
        prompts=_prompts(portrait, measured),
        host=_host(portrait, points),
        no_host="The trace does not say which part of an iteration is host time.",
        roofline=roofline,
        ceilings=ceilings,
        operator_rows=rows,
        power=power,
        power_words=_power_words(trace),
        no_power="" if power else _no_power(trace),
        colocation=colocation,
        no_colocation="" if colocation else _no_colocation(trace),
        heldout=_heldout(portrait.heldout),
        heldout_words=_heldout_words(portrait),
        heldout_rows=_heldout_rows(portrait.heldout),
        terms=_terms(trace),
        findings=[(each.severity, each.what, each.where, each.remedy) for each in portrait.findings],
        facts=_facts(trace),
        command=str(origin.get("command") or ""),
    )


def _setup(trace: Trace) -> list[str]:
    origin = trace.provenance
    tables = [f"{count(table.num_rows)} rows of {name}" for name, table in trace.tables.items()]
    return [str(origin["engine"]), str(origin.get("date") or "")[:10], *tables]


def _ends(
    portrait: Portrait, points: Points | None
) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Batch and latency of the smallest and the largest decode-only iterations at the shortest context."""
    model = portrait.decoding
    if model is not None:
        first, last = (model.seqs[0], model.latency_s[0, 0]), (model.seqs[-1], model.latency_s[-1, 0])
        return first, last
    if points is None or not len(points):
        return None
    shortest = points.line == points.line.min()
    order = np.argsort(points.x[shortest])
    batch, latency = points.x[shortest][order], points.latency_s[shortest][order]
    return (batch[0], latency[0]), (batch[-1], latency[-1])


def _sentence(portrait: Portrait, points: Points | None) -> str:
    ends = _ends(portrait, points)
    if ends is None:
        return "Nothing was measured of decoding alone."
    (least, first), (most, last) = ends
    rate = (most / last) / (least / first)
    return (
        f"At the shortest context, a batch of {count(least)} decodes in {seconds(float(first))} and one of "
        f"{count(most)} in {seconds(float(last))}: {number(rate)} times the tokens/s."
    )


def _tiles(portrait: Portrait, points: Points | None) -> list[Figure]:
    found = []
    if (ends := _ends(portrait, points)) is not None:
        for batch, latency in dict.fromkeys(ends):
            name = f"Batch {count(batch)}, shortest context"
            found.append(Figure(name, seconds(float(latency)), f"{number(float(batch / latency))} tokens/s"))
    model = portrait.decoding
    if model is not None:
        share = model.host_s[0, 0] / model.latency_s[0, 0]
        found.append(
            Figure(
                "Host gap",
                f"{number(100 * float(share))} %",
                f"of an iteration at batch {count(model.seqs[0])}",
            )
        )
    if (held := portrait.heldout) is not None:
        median = float(np.median(np.abs(held.errors)))
        worst = float(np.abs(held.errors).max())
        note = f"in the median of {count(len(held.labels))} held-out points, {number(100 * worst)} % at most"
        found.append(Figure("Error of the model", f"{number(100 * median)} %", note))
    warnings = sum(each.severity != "note" for each in portrait.findings)
    found.append(Figure("Quality flags", count(warnings), "warnings and errors of `simslm traces check`"))
    return found


def _latency(portrait: Portrait, points: Points | None) -> list[Plot]:
    model = portrait.decoding
    if model is None and (points is None or not len(points)):
        return []
    lines = chosen_lines(np.array([]) if model is None else model.context, points)
    words = _drawn("Decode iteration against batch", lines, "cached tokens", points)
    legend = lines_legend(lines, "cached", points is not None)
    found = [
        Plot(
            "decode", "By batch, at a context", words, batch_figure(model, points, lines, "latency_s"), legend
        )
    ]
    if model is not None:
        words = "Decode iteration over batch and context, as a surface to turn."
        keys = [] if points is None else [Key("measured", "@second", "circle")]
        found.append(Plot("surface", "Surface of the model", words, surface_figure(model, points), keys))
    return found


def _drawn(what: str, lines: list[float], unit: str, points: Points | None) -> str:
    said = ", ".join(count(line) for line in lines)
    marks = "" if points is None else f"; {count(len(points))} measured points"
    return f"{what}, for {said} {unit}{marks}."


def _prompts(portrait: Portrait, measured: Shapes | None) -> Plot | None:
    model = portrait.prefilling
    points = None if measured is None else prefill_points(measured)
    if model is None and (points is None or not len(points)):
        return None
    lines = chosen_lines(np.array([]) if model is None else model.cached, points)
    words = _drawn("Iteration of one prompt against its new tokens", lines, "tokens cached before", points)
    legend = lines_legend(lines, "cached", points is not None)
    return Plot("prefill", "By new tokens", words, prompt_figure(model, points, lines), legend)


def _host(portrait: Portrait, points: Points | None) -> Plot | None:
    model = portrait.decoding
    known = points is not None and bool(np.isfinite(points.host_s).any())
    if not known and (model is None or portrait.trace.iterations is not None):
        return None
    lines = chosen_lines(np.array([]) if model is None else model.context, points)
    lines = sorted({lines[0], lines[-1]})
    words = _drawn("Host share of a decode iteration against batch", lines, "cached tokens", points)
    legend = lines_legend(lines, "cached", points is not None)
    return Plot("host", "Host time by batch", words, batch_figure(model, points, lines, "host_s"), legend)


def _roofline(trace: Trace, device: Device | None) -> tuple[Plot | None, str, list[tuple[str, ...]]]:
    """The plot, what its ceilings are or why there is none, and the table."""
    if trace.kernels is None:
        return None, "No operators were measured: the trace has no kernels.parquet.", []
    dtype = trace.provenance["dtype"]
    limits = Ceilings.of(trace.kernels, device, dtype)
    if limits is None:
        return None, "No ceilings were measured, and the catalogue does not know the device.", []
    found = operators(trace.kernels)
    ceilings = (
        f"Ceilings, {limits.origin}: {number(limits.flops_per_s / 1e12)} TFLOP/s in {dtype} and "
        f"{number(limits.bytes_per_s / 1e9)} GB/s; what fits into a cache may be above the sloped one. Operations and "
        "bytes are those of the architecture. An operator without arithmetic has no place in the plot; the table has "
        "it."
    )
    rows = operator_rows(found, limits)
    figure = roofline_figure(found, limits, dtype)
    if figure is None:
        return None, ceilings, rows
    words = (
        f"Arithmetic reached against intensity, {count(len(found))} operators under the device’s ceilings."
    )
    return Plot("roofline", "Operators", words, figure, operators_legend(found)), ceilings, rows


def _power(portrait: Portrait, points: Points | None) -> list[Plot]:
    found = []
    model, trace = portrait.decoding, portrait.trace
    known = points is not None and bool(np.isfinite(points.power_w).any())
    if known or (model is not None and model.power_w is not None):
        lines = chosen_lines(np.array([]) if model is None else model.context, points)
        words = _drawn("Device power while decoding against batch", lines, "cached tokens", points)
        figure = batch_figure(model, points, lines, "power_w")
        legend = lines_legend(lines, "cached", known)
        found.append(Plot("power", "Power by batch", words, figure, legend))
    if trace.power is not None:
        table = trace.power.to_pandas()
        table = table[table["relative_speed"].notna()]
        each = table.groupby(["sm_clock_mhz", "cap_w"], dropna=False)[["relative_speed", "power_w"]].median()
        if len(each) > 1:
            clocks = each.reset_index()["sm_clock_mhz"].to_numpy(dtype=float)
            figure = clock_figure(clocks, each["relative_speed"].to_numpy(), each["power_w"].to_numpy())
            words = f"Power against speed at {count(len(each))} clocks and caps."
            found.append(Plot("clocks", "Power by speed", words, figure))
    return found


def _power_words(trace: Trace) -> str:
    """Power with nothing running, where that is known."""
    watts: list[float] = []
    if trace.power is not None:
        rows = trace.power.to_pylist()
        watts = [row["power_w"] for row in rows if row["state"] == "idle"]
    elif trace.terms is not None:
        watts = [row["value"] for row in trace.terms.to_pylist() if row["term"] == "idle_power"]
    return f"With nothing running: {number(float(np.median(watts)))} W." if watts else ""


def _no_power(trace: Trace) -> str:
    note = trace.provenance.get("power_note")
    return f"No power is known: {note}." if note else "No power is known."


def _colocation(trace: Trace) -> list[Plot]:
    if trace.iterations is None:
        return []
    return [
        Plot(
            f"colocation-{i}",
            f"Shared by {each.sharing}",
            f"Slowdown of {count(len(each.own))} kinds of iterations beside {count(len(each.others))} others.",
            matrix_figure(each),
        )
        for i, each in enumerate(matrices(trace.iterations))
    ]


def _no_colocation(trace: Trace) -> str:
    if trace.iterations is None:
        return "A calibrated trace holds no replicas beside each other: their interference is modelled."
    return (
        "No replicas were measured beside each other: simulations model their interference from the demand on "
        "arithmetic and bandwidth."
    )


def _heldout(found: Heldout | None) -> Plot | None:
    if found is None:
        return None
    words = f"Signed error of the model at {count(len(found.labels))} points that it was not made from."
    return Plot("heldout", "Error by latency", words, heldout_figure(found))


def _heldout_words(portrait: Portrait) -> str:
    if portrait.trace.terms is not None:
        return "A calibrated trace holds no points of its own: the standard errors of its terms say how sure it is."
    if (found := portrait.heldout) is None:
        return "No points were held out, so that the error of the interpolation is not known."
    sizes = 100 * np.abs(found.errors)
    median, tail, worst = (number(float(np.quantile(sizes, level))) for level in (0.5, 0.95, 1.0))
    return (
        f"The model is not made from these {count(len(sizes))} points. Median error {median} %, 95th percentile "
        f"{tail} %, largest {worst} %; bias {change(float(found.errors.mean()), 2)}."
    )


def _heldout_rows(found: Heldout | None) -> list[tuple[str, ...]]:
    """The worst points, the worst first."""
    if found is None:
        return []
    order = np.argsort(-np.abs(found.errors), kind="stable")[:WORST]
    return [
        (
            change(float(found.errors[i]), 2),
            found.labels[i],
            seconds(float(found.measured_s[i])),
            seconds(float(found.predicted_s[i])),
            "yes" if found.inside[i] else "no",
        )
        for i in order.tolist()
    ]


def _terms(trace: Trace) -> list[tuple[str, ...]]:
    if trace.terms is None:
        return []
    return [_term(row) for row in trace.terms.to_pylist()]


def _term(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A term's name, value, standard error, what that is of the value, and what it means."""
    value, error = row["value"], row["stderr"]
    shown = seconds if row["unit"] == "s" else lambda each: f"{each:.3g} {row['unit']}".removesuffix(" 1")
    meaning = TERMS[row["term"]].doc if row["term"] in TERMS else ""
    if error is None:
        return row["term"], shown(value), "not fitted", "–", meaning
    share = abs(error / value) if value else float("inf")
    said = f"{number(100 * share)} %" if share < 10 else "over 10 times"
    told = f"{said}: the runs hardly tell it" if share > UNTOLD else said
    return row["term"], shown(value), shown(error), told, meaning


def _facts(trace: Trace) -> list[tuple[str, str]]:
    origin = trace.provenance
    found = [("path", str(trace.path)), ("content", trace.content_hash[:12])]
    if origin.get("memory_bytes"):
        found.append(("memory", bytes_(origin["memory_bytes"])))
    found += [(name, _said(origin[name])) for name in SHOWN if origin.get(name) not in (None, "")]
    if (domain := origin.get("domain")) and isinstance(domain, Mapping):
        words = (f"{name} {number(low)} to {number(high)}" for name, (low, high) in domain.items())
        found.append(("domain", ", ".join(words)))
    return found


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)

"""The page of one or several runs: what was found about each, put into words, tables and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simslm.metrics.definitions import ATTAINMENT, BY_KEY, ENERGY, GOODPUT, LATENCIES, STATISTICS
from simslm.report.bound import Bound, bound
from simslm.report.distribution import Cdf, cdf
from simslm.report.facts import facts, stated_bounds
from simslm.report.figures import cdf_figure, timeline_figure
from simslm.report.page import Plot, render_template
from simslm.report.provenance import Provenance, provenance, reproduce_command, scenario_text, setup
from simslm.report.tables import RunTables, dig, figure_of
from simslm.report.timeline import Timeline, timeline
from simslm.report.verdict import SloRow, Tile, Verdict, slo_rows, tiles, verdict
from simslm.report.wording import count, share, time_unit
from simslm.units import joules, number, seconds

DEFINED = {"attainment": ATTAINMENT, "goodput": GOODPUT, "energy": ENERGY}
"""Definitions that the template prints beside their figures."""


@dataclass(frozen=True, slots=True)
class Part:
    """One segment of a bar: its name, its share of the whole, its size in words."""

    name: str
    share: float
    percent: str
    size: str


@dataclass(frozen=True, slots=True)
class LatencyRow:
    """One latency with its statistics in one unit."""

    name: str
    unit: str
    definition: str
    figures: list[str]


@dataclass(frozen=True, slots=True)
class RunView:
    """Everything the template shows of one run."""

    anchor: str
    name: str
    setup: list[str]
    verdict: Verdict
    tiles: list[Tile]
    provenance: Provenance
    bound: Bound
    time_parts: list[Part]
    slo_rows: list[SloRow]
    latency_rows: list[LatencyRow]
    cdfs: list[Plot]
    timeline: Plot | None
    power_note: str
    energy_parts: list[Part]
    energy_words: str
    command: str
    scenario: str

    @property
    def plots(self) -> list[Plot]:
        return [*self.cdfs, *([self.timeline] if self.timeline else [])]


def render(runs: Sequence[RunTables]) -> str:
    """The HTML text of one page with a section for each run."""
    views = [run_view(run, f"run-{index}") for index, run in enumerate(runs, start=1)]
    plots = [plot for view in views for plot in view.plots]
    title = views[0].name if len(views) == 1 else f"{len(views)} runs"
    return render_template("run.html.j2", title=title, views=views, plots=plots, defined=DEFINED)


def run_view(run: RunTables, anchor: str) -> RunView:
    """What there is to say and to draw about a run."""
    found = facts(run)
    return RunView(
        anchor=anchor,
        name=run.name,
        setup=setup(run),
        verdict=verdict(run),
        tiles=tiles(run),
        provenance=provenance(run),
        bound=bound(found),
        time_parts=parts(found.split.parts(), seconds),
        slo_rows=slo_rows(run),
        latency_rows=latency_rows(run.summary),
        cdfs=cdf_plots(run, anchor),
        timeline=timeline_plot(run, anchor),
        power_note=power_note(run),
        energy_parts=energy_parts(run.summary),
        energy_words=energy_words(run.summary),
        command=reproduce_command(run),
        scenario=scenario_text(run),
    )


def latency_rows(summary: Mapping[str, Any]) -> list[LatencyRow]:
    rows = []
    for metric in LATENCIES:
        values = [figure_of(summary, f"{metric.key}.{name}") for name in STATISTICS]
        unit = time_unit(values)
        rows.append(
            LatencyRow(metric.name, unit.name, metric.meaning, [unit.show(value) for value in values])
        )
    return rows


def cdf_plots(run: RunTables, anchor: str) -> list[Plot]:
    """The distributions of TTFT, TPOT and E2E; those of which nothing was observed are left out."""
    bounds = stated_bounds(run)
    found = [cdf(key, run.requests[key], bounds.get(key)) for key in ("ttft_s", "tpot_s", "e2e_s")]
    return [
        Plot(f"{anchor}-{each.metric}", BY_KEY[each.metric].name, _cdf_words(each), cdf_figure(each))
        for each in found
        if len(each.values)
    ]


def _cdf_words(found: Cdf) -> str:
    name = BY_KEY[found.metric].name
    middle, tail = (seconds(float(found.values[_rank(found, at)])) for at in (0.5, 0.99))
    limit = f"; {share(found.met)} within the SLO bound" if found.met is not None else ""
    return f"Distribution of {name} over requests: half within {middle}, 99 % within {tail}{limit}."


def _rank(found: Cdf, at: float) -> int:
    return min(int(found.shares.searchsorted(at)), len(found.shares) - 1)


def timeline_plot(run: RunTables, anchor: str) -> Plot | None:
    found = timeline(run)
    if found is None:
        return None
    return Plot(f"{anchor}-timeline", "Over time", _timeline_words(found), timeline_figure(found))


def _timeline_words(found: Timeline) -> str:
    parts = [
        f"up to {count(found.running.peak.max())} requests running",
        f"up to {count(found.waiting.peak.max())} waiting",
        f"up to {count(found.decode_seqs.peak.max())} sequences decoding",
    ]
    if found.kv_share is not None:
        parts.append(f"up to {share(float(found.kv_share.peak.max()))} of the KV blocks used")
    if found.power_w is not None:
        parts.append(f"up to {number(found.power_w.peak.max())} W")
    return f"Timeline of {seconds(float(np.ptp(found.edges_s)))}: {', '.join(parts)}."


def power_note(run: RunTables) -> str:
    """Why there is no power to draw; empty when there is."""
    if figure_of(run.summary, "energy.total_j") is not None:
        return ""
    return str(dig(run.summary, "energy.note", "The trace has no power."))


def energy_parts(summary: Mapping[str, Any]) -> list[Part]:
    """The energy by phase, or nothing when it is unknown."""
    found = [(name, figure_of(summary, f"energy.{name}_j")) for name in ("prefill", "decode", "idle")]
    known = [(name, value) for name, value in found if value is not None]
    return parts(known, joules) if len(known) == len(found) else []


def parts(named: Sequence[tuple[str, float]], words: Any) -> list[Part]:
    """Segments of a bar from sizes; none when there is nothing to divide."""
    total = sum(size for _, size in named)
    if total <= 0:
        return []
    return [Part(name, round(size / total, 5), share(size / total), words(size)) for name, size in named]


def energy_words(summary: Mapping[str, Any]) -> str:
    total = figure_of(summary, "energy.total_j")
    if total is None:
        return ""
    output, both, watts = (
        number(figure_of(summary, f"energy.{name}"))
        for name in ("j_per_output_token", "j_per_total_token", "mean_power_w")
    )
    per_token = f"{output} J per output token, {both} J per total token"
    return f"{joules(total)} in all: {per_token}, mean power {watts} W."

"""The page of one or several runs: what was found about each, put into words, tables and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simslm.metrics.definitions import APART, ATTAINMENT, ENERGY, GOODPUT, LATENCIES
from simslm.metrics.metric import STATISTICS
from simslm.report.bound import Bound, bound
from simslm.report.division import Division, divisions
from simslm.report.doubt import doubted
from simslm.report.facts import facts
from simslm.report.fleet import control_plane
from simslm.report.latencies import distributions, first_token_plot, first_tokens
from simslm.report.life import life_figure, life_plot, life_title, life_words
from simslm.report.moves import between_phases
from simslm.report.overtime import overtime_plot, overview_plot, panels, replica_data
from simslm.report.page import Key, Plot, render_template
from simslm.report.palette import DASHES, SERIES
from simslm.report.provenance import Provenance, provenance, reproduce_command, scenario_text, setup
from simslm.report.roofline import OPERATOR_COLUMNS, RooflineView, roofline_views
from simslm.report.slowest import COLUMNS, Life, Ranking, lives, rankings
from simslm.report.tables import RunTables, dig, figure_of
from simslm.report.timeline import timelines
from simslm.report.verdict import SloRow, Tile, Verdict, apart, slo_rows, tiles, verdict
from simslm.report.wording import count, share, time_unit
from simslm.units import joules, number, seconds

DEFINED = {"attainment": ATTAINMENT, "goodput": GOODPUT, "energy": ENERGY}
"""Definitions that the template prints beside their figures."""


@dataclass(frozen=True, slots=True)
class BarPart:
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
    over: str
    figures: list[str]


@dataclass(frozen=True, slots=True)
class Overtime:
    """The run over simulated time.

    Attributes:
        plot, overview: of all replicas together, and what the brush is drawn on.
        replicas: by number, the series of each of several; none where there is one.
        limit: batch limit of all together, or None.
        keys: of the replicas that can be drawn side by side; none where there are too many.
        headings: of the rows when each replica has a curve.
        begin_s, end_s: simulated time.
    """

    plot: Plot
    overview: Plot
    replicas: Mapping[str, Any]
    limit: float | None
    keys: Sequence[Key]
    headings: Sequence[str]
    begin_s: float
    end_s: float

    @property
    def data(self) -> dict[str, Any]:
        """What the script of the page works on."""
        return {
            "replicas": self.replicas,
            "limit": self.limit,
            "headings": self.headings,
            "begin": self.begin_s,
            "end": self.end_s,
        }


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
    time_parts: list[BarPart]
    slo_rows: list[SloRow]
    divisions: list[Division]
    latency_rows: list[LatencyRow]
    cdfs: list[Plot]
    first: Plot | None
    apart: str
    overtime: Overtime | None
    rankings: list[Ranking]
    lives: list[Life]
    life: Plot | None
    power_note: str
    energy_parts: list[BarPart]
    energy_words: str
    rooflines: list[RooflineView]
    command: str
    scenario: str

    @property
    def plots(self) -> list[Plot]:
        over = [self.overtime.plot, self.overtime.overview] if self.overtime else []
        single = [plot for plot in (self.first, *over, self.life) if plot is not None]
        return [*self.cdfs, *single, *(view.plot for view in self.rooflines)]

    @property
    def data(self) -> dict[str, Any]:
        """What the script of the page works on."""
        return {
            **(self.overtime.data if self.overtime else {}),
            "lives": {
                str(life.request_id): {
                    "title": life_title(life),
                    "words": life_words(life),
                    "events": life.events,
                    "figure": life_figure(life),
                }
                for life in self.lives
            },
        }


def render(runs: Sequence[RunTables]) -> str:
    """The HTML text of one page with a section for each run."""
    views = [run_view(run, f"run-{index}") for index, run in enumerate(runs, start=1)]
    plots = [plot for view in views for plot in view.plots]
    title = views[0].name if len(views) == 1 else f"{len(views)} runs"
    return render_template(
        "run.html.j2",
        title=title,
        plots=plots,
        script="run.js",
        data={"runs": {view.anchor: view.data for view in views}, "colours": SERIES, "dashes": DASHES},
        views=views,
        defined=DEFINED,
        definitions=(*LATENCIES, ATTAINMENT, GOODPUT, ENERGY),
        slow_columns=COLUMNS,
        operator_columns=OPERATOR_COLUMNS,
    )


def run_view(run: RunTables, anchor: str) -> RunView:
    """The contents of the section of a run."""
    found, first, living = facts(run), first_tokens(run), lives(run)
    return RunView(
        anchor=anchor,
        name=run.name,
        setup=setup(run),
        verdict=doubted(run, verdict(run)),
        tiles=tiles(run),
        provenance=provenance(run),
        bound=bound(found),
        time_parts=parts(found.split.parts(), seconds),
        slo_rows=slo_rows(run),
        divisions=[*divisions(run), *control_plane(run), *between_phases(run)],
        latency_rows=latency_rows(run.summary),
        cdfs=distributions(run, anchor),
        first=first_token_plot(first, anchor) if first else None,
        apart=APART if apart(run) else "",
        overtime=overtime(run, anchor),
        rankings=rankings(run),
        lives=living,
        life=life_plot(living[0], anchor) if living else None,
        power_note=power_note(run),
        energy_parts=energy_parts(run.summary),
        energy_words=energy_words(run.summary),
        rooflines=roofline_views(run, anchor),
        command=reproduce_command(run),
        scenario=scenario_text(run),
    )


def latency_rows(summary: Mapping[str, Any]) -> list[LatencyRow]:
    rows = []
    for metric in LATENCIES:
        values = [figure_of(summary, f"{metric.key}.{name}") for name in STATISTICS]
        unit = time_unit(values)
        rows.append(
            LatencyRow(
                metric.name,
                unit.name,
                metric.meaning,
                count(figure_of(summary, f"population.{metric.key}")),
                [unit.show(value) for value in values],
            )
        )
    return rows


def overtime(run: RunTables, anchor: str) -> Overtime | None:
    """The run over simulated time; None when no iteration ran."""
    found = timelines(run)
    if found is None:
        return None
    whole, each = found
    keys = [
        Key(f"replica {number}", SERIES[i], DASHES[i])
        for i, number in enumerate(each)
        if len(each) <= len(SERIES)
    ]
    return Overtime(
        overtime_plot(whole, anchor, len(each)),
        overview_plot(whole, anchor),
        replica_data(each),
        whole.max_num_seqs,
        keys,
        [panel.single for panel in panels(whole)],
        float(whole.edges_s[0]),
        float(whole.edges_s[-1]),
    )


def power_note(run: RunTables) -> str:
    """Why there is no power to draw; empty when there is."""
    if figure_of(run.summary, "energy.total_j") is not None:
        return ""
    return str(dig(run.summary, "energy.note", "The trace has no power."))


def energy_parts(summary: Mapping[str, Any]) -> list[BarPart]:
    """The energy by phase, or nothing when it is unknown."""
    found = [(name, figure_of(summary, f"energy.{name}_j")) for name in ("prefill", "decode", "idle")]
    known = [(name, value) for name, value in found if value is not None]
    return parts(known, joules) if len(known) == len(found) else []


def parts(named: Sequence[tuple[str, float]], words: Any) -> list[BarPart]:
    """Segments of a bar from sizes; none when there is nothing to divide."""
    total = sum(size for _, size in named)
    if total <= 0:
        return []
    return [BarPart(name, round(size / total, 5), share(size / total), words(size)) for name, size in named]


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

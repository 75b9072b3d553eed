"""The page: what was found about each run, put into the templates, with plotly.js once.

Everything that comes from files is escaped. A content security policy, with the hashes of the page's own two
scripts, keeps anything else from running and the page from loading anything.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simslm.errors import UsageError
from simslm.metrics.definitions import ATTAINMENT, BY_KEY, ENERGY, GOODPUT, LATENCIES, STATISTICS
from simslm.report.bound import Bound, bound
from simslm.report.distribution import Cdf, cdf
from simslm.report.facts import facts, stated_bounds
from simslm.report.figures import Figure, cdf_figure, timeline_figure
from simslm.report.provenance import Provenance, provenance, reproduce_command, scenario_text, setup
from simslm.report.tables import RunTables, dig, figure_of
from simslm.report.timeline import Timeline, timeline
from simslm.report.verdict import SloRow, Tile, Verdict, slo_rows, tiles, verdict
from simslm.report.wording import count, share, time_unit
from simslm.units import number, seconds

if TYPE_CHECKING:
    from markupsafe import Markup

HERE = Path(__file__).parent
DEFINED = {"attainment": ATTAINMENT, "goodput": GOODPUT, "energy": ENERGY}
"""Definitions that the template prints beside their figures."""


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure at a fixed place of the page, and what it shows in words."""

    id: str
    title: str
    words: str
    figure: Figure


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
    figures = {plot.id: plot.figure for view in views for plot in view.plots}
    title = views[0].name if len(views) == 1 else f"{len(views)} runs"
    return render_template("run.html.j2", title=title, views=views, figures=figures, defined=DEFINED)


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


def joules(value: float) -> str:
    """An energy for a screen: ``812 J``, ``34.1 kJ``, ``2.40 kWh``."""
    if value >= 3.6e6:
        return f"{value / 3.6e6:.3g} kWh"
    return f"{value / 1e3:.3g} kJ" if value >= 1e3 else f"{value:.3g} J"


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


def render_template(template: str, *, title: str, figures: Mapping[str, Figure], **values: Any) -> str:
    """A page from one of the templates that extend ``layout.html.j2``."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["coded"] = coded
    scripts = [get_plotlyjs(), (HERE / "page.js").read_text(encoding="utf-8")]
    return environment.get_template(template).render(
        title=title,
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        scripts=[Markup(script) for script in scripts],
        script_hashes=[script_hash(script) for script in scripts],
        figures=Markup(json_block(figures)),
        **values,
    )


def script_hash(script: str) -> str:
    """What a content security policy calls an inline script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def json_block(value: Any) -> str:
    """JSON that may stand inside a script element: no ``<`` in it."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def coded(text: str) -> Markup:
    """Escaped text, words between backticks as code, and figures kept on one line with their unit."""
    from markupsafe import Markup, escape

    html = re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)))
    html = html.replace("≤ ", "≤\N{NO-BREAK SPACE}")
    return Markup(re.sub(r"(?<=\d) (?=%|(?:ms|µs|s|min|W|k?J|kWh)\b)", "\N{NO-BREAK SPACE}", html))


def destination(directories: Sequence[Path], output: Path | None) -> Path:
    """Where the page of ``directories`` goes.

    Raises:
        UsageError: no directory is given, or several without a common parent and without an output.
    """
    if not directories:
        raise UsageError("no run directory given", remedy="name at least one")
    if output is not None:
        return Path(output)
    if len(directories) == 1:
        return directories[0] / "report.html"
    parents = {directory.resolve().parent for directory in directories}
    if len(parents) > 1:
        raise UsageError(
            "the run directories have no common parent", remedy="say where the page goes with `-o`"
        )
    return directories[0].parent / "report.html"

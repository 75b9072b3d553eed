"""The page of a comparison: what is better or worse, how surely, what differs, and the runs on the same axes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from simslm.comparison import Comparison, Configuration, Contrast, Delta
from simslm.comparison.wording import change, interval, sentences, shown
from simslm.metrics.definitions import BY_KEY
from simslm.metrics.whole import write_whole
from simslm.report.distribution import cdf
from simslm.report.overlays import (
    cdfs_figure,
    changes_figure,
    differences_figure,
    legend,
    overtime_figure,
)
from simslm.report.page import Plot, render_template
from simslm.report.tables import RunTables
from simslm.report.timeline import timelines
from simslm.report.wording import count, share

HEADLINES = (
    "throughput.output_tokens_per_s", "throughput.requests_per_s", "ttft_s.mean", "ttft_s.p50", "ttft_s.p99",
    "tpot_s.mean", "tpot_s.p99", "itl_s.p99", "e2e_s.p50", "e2e_s.p99", "slo.attainment", "slo.goodput_rps",
    "energy.j_per_output_token",
    "requests.rejected", "requests.failed", "kv.preemptions", "economics.usd_per_million_output_tokens",
)  # fmt: skip
"""Figures that are drawn and come first in the tables."""

OVERLAID = ("ttft_s", "tpot_s", "e2e_s")
MOST_OVERLAID = 12
"""Configurations drawn on the same axes; the tables have all."""

VERDICTS = {"untested": "open", "different": "differs"}
"""Verdicts that the table names otherwise."""

MARK = {"better": "met", "worse": "missed"}


@dataclass(frozen=True, slots=True)
class DeltaRow:
    """One figure of a contrast, in texts; ``state`` is the mark of its verdict."""

    name: str
    baseline: str
    value: str
    change: str
    interval: str
    note: str
    verdict: str
    state: str


@dataclass(frozen=True, slots=True)
class ContrastView:
    """One configuration against the baseline."""

    label: str
    sentences: list[tuple[str, str]]
    why: str
    method: str
    headlines: list[DeltaRow]
    rest: list[DeltaRow]
    latencies: list[str]


@dataclass(frozen=True, slots=True)
class ComparisonView:
    """Everything the template shows."""

    title: str
    setup: list[str]
    sentence: str
    notes: list[str]
    contrasts: list[ContrastView]
    changes: Plot | None
    cdfs: list[Plot]
    differences: list[Plot]
    overtime: Plot | None
    left_out: str
    names: list[str]
    scenario_rows: list[list[str]]
    runs: list[tuple[str, str]]

    @property
    def plots(self) -> list[Plot]:
        """Every figure of the page."""
        found = (self.changes, self.overtime)
        return [*(plot for plot in found if plot is not None), *self.cdfs, *self.differences]


def write_comparison(comparison: Comparison, target: Path) -> Path:
    """Writes the page, whole or not at all, and returns where it is.

    Raises:
        UsageError: it cannot be written.
    """
    page = render_comparison(comparison)
    write_whole(target, lambda path: path.write_text(page, encoding="utf-8", newline="\n"))
    return target


def render_comparison(comparison: Comparison) -> str:
    """The HTML text of the page."""
    shown = view(comparison)
    return render_template("comparison.html.j2", title=shown.title, view=shown, plots=shown.plots)


def view(comparison: Comparison) -> ComparisonView:
    """The contents of the page."""
    configurations = [comparison.baseline, *(each.configuration for each in comparison.contrasts)]
    drawn = list(enumerate(configurations))[:MOST_OVERLAID]
    others = ", ".join(each.configuration.label for each in comparison.contrasts)
    left = len(configurations) - len(drawn)
    return ComparisonView(
        title=f"{others} against {comparison.baseline.label}",
        setup=[
            f"{count(sum(len(each.runs) for each in configurations))} runs",
            f"{count(len(configurations))} configurations",
        ],
        sentence=_sentence(comparison),
        notes=list(comparison.notes),
        contrasts=[_contrast(each) for each in comparison.contrasts],
        changes=_changes(comparison.contrasts[: MOST_OVERLAID - 1]),
        cdfs=_cdfs(drawn),
        differences=_differences(comparison.contrasts[: MOST_OVERLAID - 1]),
        overtime=_overtime(drawn),
        left_out=f"{count(left)} further configurations are in the tables alone." if left > 0 else "",
        names=[each.label for each in configurations],
        scenario_rows=scenario_rows(comparison),
        runs=[
            (place, _run(run))
            for each in configurations
            for place, run in zip(each.places, each.runs, strict=True)
        ],
    )


def _sentence(comparison: Comparison) -> str:
    """The answer where one configuration is held against the baseline, else how many are."""
    if len(comparison.contrasts) == 1:
        return " ".join(words for _, words in _verdicts(comparison.contrasts[0]))
    return f"{count(len(comparison.contrasts))} configurations, each against {comparison.baseline.label}."


def _verdicts(contrast: Contrast) -> list[tuple[str, str]]:
    """What is better and what is worse beyond what the intervals leave open, each with its mark."""
    return [(MARK.get(verdict, ""), words) for verdict, words in sentences(contrast, HEADLINES)]


def _contrast(contrast: Contrast) -> ContrastView:
    rows = {delta.path: _row(delta) for delta in contrast.deltas if delta.verdict != "unknown"}
    return ContrastView(
        label=contrast.configuration.label,
        sentences=_verdicts(contrast),
        why=f"{contrast.pairing.why[:1].upper()}{contrast.pairing.why[1:]}.",
        method=f"{contrast.pairing.method[:1].upper()}{contrast.pairing.method[1:]}.",
        headlines=[rows[path] for path in HEADLINES if path in rows],
        rest=[row for path, row in rows.items() if path not in HEADLINES],
        latencies=[
            f"{BY_KEY[each.metric].name}: less for {share(each.faster)} of the {count(each.pairs)} requests that "
            f"have it in both, more for {share(each.slower)}"
            for each in contrast.latencies
        ],
    )


def _row(delta: Delta) -> DeltaRow:
    counted = delta.path.startswith("requests.")
    return DeltaRow(
        delta.title,
        shown(delta, delta.baseline),
        shown(delta, delta.value),
        change(delta),
        interval(delta),
        delta.note if delta.verdict == "untested" and not counted else "",
        "" if delta.verdict == "untested" and counted else VERDICTS.get(delta.verdict, delta.verdict),
        MARK.get(delta.verdict, ""),
    )


def _changes(contrasts: Sequence[Contrast]) -> Plot | None:
    """The changes of the figures of which some configuration has one in per cent."""
    rows = [{delta.path: delta for delta in each.deltas} for each in contrasts]
    paths = [
        path
        for path in HEADLINES
        if any(path in row and row[path].delta is not None and row[path].relative is not None for row in rows)
    ]
    if not paths:
        return None
    labels = [each.configuration.label for each in contrasts]
    titles = [next(row[path].title for row in rows if path in row) for path in paths]
    figure = changes_figure(titles, labels, [[row[path] for path in paths] for row in rows])
    words = f"Change of {count(len(paths))} figures against the baseline, with 95 % intervals."
    return Plot("changes", "Change against the baseline", words, figure, legend(labels, marks=True, first=1))


Numbered = Sequence[tuple[int, Configuration]]


def _tables(configuration: Configuration) -> RunTables:
    """The first run of a configuration, with the tables that are drawn."""
    return cast("RunTables", configuration.runs[0])


def _cdfs(drawn: Numbered) -> list[Plot]:
    found = []
    for key in OVERLAID:
        each = [(i, one.label, cdf(key, _tables(one).requests[key])) for i, one in drawn]
        known = [(i, label, distribution) for i, label, distribution in each if len(distribution.values)]
        if known:
            name = BY_KEY[key].name
            words = f"Distributions of {name} over the requests of {count(len(known))} runs."
            keys = legend([one.label for _, one in drawn])
            found.append(Plot(f"cdf-{key}", name, words, cdfs_figure(known), keys))
    return found


def _differences(contrasts: Sequence[Contrast]) -> list[Plot]:
    found = []
    for key in OVERLAID:
        each = [
            (i, contrast.configuration.label, latency)
            for i, contrast in enumerate(contrasts, 1)
            for latency in contrast.latencies
            if latency.metric == key
        ]
        if each:
            words = f"How {BY_KEY[key].name} of the same request changed."
            keys = [key_ for i, label, _ in each for key_ in legend([label], first=i)]
            figure = differences_figure(key, each)
            found.append(Plot(f"difference-{key}", f"Change of {BY_KEY[key].name}", words, figure, keys))
    return found


def _overtime(drawn: Numbered) -> Plot | None:
    each = [(i, one.label, timelines(_tables(one))) for i, one in drawn]
    known = [(i, label, found[0]) for i, label, found in each if found is not None]
    if not known:
        return None
    words = f"Requests, output, KV blocks and power over the time of {count(len(known))} runs."
    keys = legend([one.label for _, one in drawn])
    return Plot("overtime", "Over time", words, overtime_figure(known), keys)


def scenario_rows(comparison: Comparison) -> list[list[str]]:
    """A row for each key that differs somewhere: its path, and its value in every configuration."""
    paths = dict.fromkeys(change.path for each in comparison.contrasts for change in each.changes)
    known = [{change.path: change for change in each.changes} for each in comparison.contrasts]
    rows = []
    for path in paths:
        baseline = next(each[path].baseline for each in known if path in each)
        values = [each[path].value if path in each else baseline for each in known]
        rows.append([path, *(_text(value) for value in (baseline, *values))])
    return rows


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else json.dumps(value)


def _run(run: Any) -> str:
    command = run.manifest.get("command")
    words = command if isinstance(command, str) else " ".join(map(str, command or ()))
    return words or "no command on record"

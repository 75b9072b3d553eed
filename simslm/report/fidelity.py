"""The page of ``fidelity.json``: how far simulation is from measurement, by metric, model, batch and run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simslm.errors import UsageError
from simslm.metrics.whole import write_whole
from simslm.report.page import Key, Plot, render_template
from simslm.report.parity import SPREAD, Point, error_figure, legend, parity_figure, spread_figure
from simslm.report.repeats import RepeatTable, repeat_tables
from simslm.report.wording import count
from simslm.units import number

KEYS = ("traces", "rows", "summary", "derived", "skipped", "command", "interrupted")
FIGURES = ("median_abs_error", "p95_abs_error", "max_abs_error", "bias")
HEADLINES = ("output_tokens_per_s", "itl_mean_s", "ttft_mean_s", "power_active_p50_w")
"""Metrics that a reader looks at first."""

DRAWN = (*HEADLINES, "itl_p99_s", "preemptions")
"""Metrics with a parity plot."""

NAMED = 3
"""Runs that a note names."""

WORST = 12
"""Runs shown before the page is asked for all."""

NAMES = {
    "duration_s": "duration",
    "requests_per_s": "requests/s",
    "output_tokens_per_s": "output tokens/s",
    "total_tokens_per_s": "total tokens/s",
    "preemptions": "preemptions",
    "kv_peak": "KV peak",
    "power_mean_w": "mean power",
    "power_active_p50_w": "active power",
    "energy_j": "energy",
    "sm_busy_pct": "SM busy",
}


Row = Sequence[str]
"""A line of a table: what it is of, then its cells."""


@dataclass(frozen=True, slots=True)
class FidelityView:
    """Everything the template shows."""

    title: str
    setup: list[str]
    sentence: str
    tiles: list[tuple[str, str, str]]
    spread: Plot | None
    traces: list[tuple[str, str, str]]
    by_metric: list[Row]
    by_model: list[Row]
    headlines: list[str]
    parity: list[Plot]
    errors: list[Plot]
    worst: list[Row]
    rest: list[Row]
    repeats: list[RepeatTable]
    advice_names: list[str]
    advice: list[Row]
    notes: list[str]
    skipped: list[tuple[str, str]]
    command: str


def write_page(directory: Path) -> Path:
    """Writes ``report.html`` beside a ``fidelity.json``, whole or not at all, and returns where it is.

    Raises:
        UsageError: the file is missing or damaged, or the page cannot be written.
    """
    target = directory / "report.html"
    page = render(read_fidelity(directory / "fidelity.json"))
    write_whole(target, lambda path: path.write_text(page, encoding="utf-8", newline="\n"))
    return target


def read_fidelity(path: Path) -> dict[str, Any]:
    """What a ``fidelity.json`` holds.

    Raises:
        UsageError: it is missing, damaged or lacks a key.
    """
    remedy = "run `simslm validate recorded` again with `-o` its directory"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"not a readable JSON file ({error})", where=str(path), remedy=remedy) from None
    missing = [key for key in KEYS if not isinstance(values, dict) or key not in values]
    if missing:
        raise UsageError(f"missing keys: {', '.join(missing)}", where=str(path), remedy=remedy)
    return values


def render(values: Mapping[str, Any]) -> str:
    """The HTML text of the page."""
    shown = view(values)
    plots = [*([shown.spread] if shown.spread else []), *shown.parity, *shown.errors]
    return render_template("fidelity.html.j2", title=shown.title, view=shown, plots=plots, name_of=name_of)


def view(values: Mapping[str, Any]) -> FidelityView:
    """The contents of the page."""
    rows, summary = values["rows"], values["summary"]
    headlines = [column for column in HEADLINES if column in summary]
    ranked = sorted(rows, key=lambda row: -_size(row, headlines))
    models = sorted({row["setting"]["model"] for row in rows})
    return FidelityView(
        title="Simulated and measured",
        setup=[f"{count(len(rows))} runs", *models, *sorted({row["setting"]["device"] for row in rows})],
        sentence=_sentence(summary, headlines),
        tiles=[_tile(column, summary[column]) for column in headlines],
        spread=_spread_plot(summary),
        traces=[(trace["path"], trace["source"], f"on {trace['engine']}") for trace in values["traces"]],
        by_metric=[[name_of(column), count(each["n"]), *_figures(each)] for column, each in summary.items()],
        by_model=[
            [f"{model}, {name_of(column)}", count(len(errors)), *_figures(_spread(errors))]
            for model in models
            for column in headlines
            if (errors := _errors(rows, model, column))
        ],
        headlines=[name_of(column) for column in headlines],
        parity=[_parity(column, rows) for column in DRAWN if _points(rows, column)],
        errors=[_by_batch(column, rows) for column in headlines],
        worst=[_run_row(row, headlines) for row in ranked[:WORST]],
        rest=[_run_row(row, headlines) for row in ranked[WORST:]],
        repeats=repeat_tables(values),
        advice_names=_advice_names(values["derived"]),
        advice=[_advice_row(each) for each in values["derived"]],
        notes=notes(values),
        skipped=[(each["run"], each["reason"]) for each in values["skipped"]],
        command=values["command"],
    )


def name_of(column: str) -> str:
    """A column's name on a screen: ``TTFT p99`` for ``ttft_p99_s``."""
    if column in NAMES:
        return NAMES[column]
    latency, _, statistic = column.removesuffix("_s").partition("_")
    return f"{latency.capitalize() if latency == 'queue' else latency.upper()} {statistic}"


def signed(share: float | None) -> str:
    """A signed share for a screen: ``+1.20 %``."""
    return "–" if share is None else f"{100 * share:+.2f} %"


def _sentence(summary: Mapping[str, Any], headlines: Sequence[str]) -> str:
    if not headlines:
        return "Nothing that was measured is simulated."
    first = summary[headlines[0]]
    return (
        f"Half of {count(first['n'])} runs are simulated within {_percent(first['median_abs_error'])} of the measured "
        f"{name_of(headlines[0])}, 95 % of them within {_percent(first['p95_abs_error'])}."
    )


def _tile(column: str, each: Mapping[str, float]) -> tuple[str, str, str]:
    """Name, median error, and what else there is to know of a metric."""
    note = f"median error of {count(each['n'])} runs; 95 % within {_percent(each['p95_abs_error'])}"
    return name_of(column), _percent(each["median_abs_error"]), note


def _spread_plot(summary: Mapping[str, Any]) -> Plot | None:
    if not summary:
        return None
    words = f"Median, 95th percentile and largest error of {count(len(summary))} metrics."
    figure = spread_figure([name_of(column) for column in summary], list(summary.values()))
    keys = [Key(name, colour, symbol) for _, name, colour, symbol in SPREAD]
    return Plot("spread", "Size of the errors", words, figure, keys)


def _percent(share: float) -> str:
    return f"{number(100 * share)} %"


def _figures(each: Mapping[str, float]) -> list[str]:
    return [*(_percent(each[figure]) for figure in FIGURES[:3]), signed(each["bias"])]


def _spread(errors: Sequence[float]) -> dict[str, float]:
    """As ``summary`` has it, over some of the runs."""
    sizes = np.abs(errors)
    found = (np.median(sizes), np.percentile(sizes, 95), sizes.max(), np.mean(errors))
    return dict(zip(FIGURES, map(float, found), strict=True))


def _errors(rows: Sequence[Mapping[str, Any]], model: str, column: str) -> list[float]:
    found = [row["error"].get(column) for row in rows if row["setting"]["model"] == model]
    return [error for error in found if error is not None]


def _size(row: Mapping[str, Any], columns: Sequence[str]) -> float:
    """How far a run is off: its largest error in some metrics."""
    errors = (row["error"].get(column) for column in columns)
    return max((abs(error) for error in errors if error is not None), default=0.0)


def _run_row(row: Mapping[str, Any], headlines: Sequence[str]) -> Row:
    setting = row["setting"]
    shared = f"{setting['replicas']} × {setting['sharing']}, " if setting["replicas"] > 1 else ""
    text = f"{setting['model']}, {shared}{setting['batching']}, batch {setting['max_num_seqs']}"
    return [row["run"], text, *(signed(row["error"].get(column)) for column in headlines)]


def _points(rows: Sequence[Mapping[str, Any]], column: str) -> list[Point]:
    return [
        Point(
            row["run"],
            row["setting"]["model"],
            row["setting"]["max_num_seqs"],
            row["measured"][column],
            row["simulated"][column],
            row["error"][column],
        )
        for row in rows
        if column in row["error"]
    ]


def _parity(column: str, rows: Sequence[Mapping[str, Any]]) -> Plot:
    name, points = name_of(column), _points(rows, column)
    words = f"{name}: simulated against measured, {len(points)} runs."
    return Plot(f"parity-{column}", name, words, parity_figure(column, points), legend(points))


def _by_batch(column: str, rows: Sequence[Mapping[str, Any]]) -> Plot:
    name, points = name_of(column), _points(rows, column)
    words = f"{name}: signed error by batch limit, {len(points)} runs."
    return Plot(f"error-{column}", name, words, error_figure(points), legend(points))


def _advice_names(derived: Sequence[Mapping[str, Any]]) -> list[str]:
    if not derived:
        return []
    bounds = [(each["epsilon"], each["latency_factor"]) for each in derived[0]["best_batch"]]
    return ["knee", *(f"B_opt ({epsilon:g}, {factor:g})" for epsilon, factor in bounds)]


def _advice_row(each: Mapping[str, Any]) -> Row:
    setting = each["setting"]
    lengths = f"{number(setting['prompt_tokens'])} + {number(setting['output_tokens'])} tokens"
    name = f"{setting['model']}, {setting['workload']} {lengths}, {setting['batching']}"
    shared = f", {setting['replicas']} × {setting['sharing']}" if setting["replicas"] > 1 else ""
    return [name + shared, *(_pair(pair) for pair in (each["knee"], *each["best_batch"]))]


def _pair(pair: Mapping[str, Any]) -> str:
    if pair["measured"] is None and pair["simulated"] is None:
        return "–"
    measured, simulated = (number(pair[who]) for who in ("measured", "simulated"))
    return f"{measured} = {simulated}" if measured == simulated else f"{measured} ≠ {simulated}"


def notes(values: Mapping[str, Any]) -> list[str]:
    """What a reader should know about the figures."""
    found = ["Interrupted: not all runs were simulated."] if values["interrupted"] else []
    found += [f"{trace['path']}: {flag}." for trace in values["traces"] for flag in trace.get("flags", ())]
    return (
        found
        + _fitted(values)
        + _foreign_engines(values)
        + notes_of({row["run"]: row.get("notes", ()) for row in values["rows"]})
        + _unsized(values["rows"])
    )


def _fitted(values: Mapping[str, Any]) -> list[str]:
    """A warning that the trace was calibrated on some of the runs compared: its error on those says nothing of
    others."""
    found = []
    for trace in values["traces"]:
        rows = [row for row in values["rows"] if row["setting"]["model"] == trace["model"]]
        own = sum(row["run"] in trace.get("fitted", ()) for row in rows)
        if own:
            what = "is one" if own == 1 else "are"
            found.append(
                f"{count(own)} of these {count(len(rows))} runs of {trace['model']} {what} of those that "
                f"{trace['path']} was calibrated on (by name): how well it meets them does not say how well it "
                "predicts others."
            )
    return found


def notes_of(runs: Mapping[str, Sequence[str]]) -> list[str]:
    """What is to be known of single runs, each once with the runs it is true of.

    Args:
        runs: notes by run.
    """
    found: dict[str, list[str]] = {}
    for run, notes in runs.items():
        for note in notes:
            found.setdefault(note, []).append(run)
    return [f"{_named(names, len(runs))}: {note}." for note, names in found.items()]


def _named(names: Sequence[str], count: int) -> str:
    if len(names) == count > 1:
        return f"all {count} runs"
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _foreign_engines(values: Mapping[str, Any]) -> list[str]:
    """A warning where a trace is of another engine than the one that served: host time differs between engines."""
    found = []
    for trace in values["traces"]:
        key = (trace["model"], trace["device"])
        settings = [row["setting"] for row in values["rows"]]
        mine = [setting["engine"] for setting in settings if (setting["model"], setting["device"]) == key]
        if others := sorted({engine for engine in mine if engine and engine != trace["engine"]}):
            found.append(
                f"{trace['model']} was served by {', '.join(others)}, but the host time of its trace is that of "
                f"{trace['engine'] or 'no engine'}."
            )
    return found


def _unsized(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    found = []
    for column in dict.fromkeys(name for row in rows for name in row["error"]):
        unsized = sum(row["error"].get(column, 0.0) is None for row in rows)
        if unsized:
            plural = "runs" if unsized > 1 else "run"
            found.append(
                f"{name_of(column)}: 0 was measured and more simulated in {unsized} {plural}; "
                "such an error has no size and is in no figure."
            )
    return found

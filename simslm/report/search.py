"""The page of a search, from its ``frontier.json`` and ``trials.parquet`` alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simslm.comparison.student import quantile
from simslm.errors import UsageError
from simslm.metrics.definitions import BY_KEY
from simslm.report import choice
from simslm.report.advice import AdviceView, advice_view
from simslm.report.explorer import Explored, Explorer, explored, explorer
from simslm.report.importance import caution, importance, importance_figure
from simslm.report.page import Key, Plot, render_template
from simslm.report.palette import SERIES
from simslm.report.provenance import sentence
from simslm.report.tradeoff import Scale, growth_figure
from simslm.report.wording import count
from simslm.units import number

FRONTIER = "frontier.json"
KEYS = (
    "name",
    "method",
    "space",
    "objectives",
    "constraints",
    "test",
    "counts",
    "infeasible",
    "violated",
    "nearest",
)
KEYS += ("reference_point", "reference_stated", "hypervolume", "points", "interrupted", "capacity", "cost")
KEYS += ("slo", "bounds", "deciding", "best", "topmost")
COLUMNS = ("trial", "point", "seed", "share", "status", "hypervolume", "command", "vllm", "scenario")

REMEDY = "run `simslm search` again with `-o` its directory"


@dataclass(frozen=True, slots=True)
class PointRow:
    """A point of the frontier: its parameters, its objectives with intervals, the shares of its requests that were
    rejected and that failed, which points are like it, and the commands that use it."""

    anchor: str
    parameters: list[str]
    objectives: list[str]
    lost: list[str]
    same: str
    capacity: str
    command: str
    vllm: str


@dataclass(frozen=True, slots=True)
class SearchView:
    """Everything the template shows."""

    title: str
    setup: list[str]
    state: str
    word: str
    sentence: str
    counted: str
    source: str
    engine: str
    notes: list[str]
    explorer: Explorer | None
    importance: Plot | None
    importance_note: str
    growth: Plot | None
    volume: str
    parameter_names: list[str]
    objective_names: list[str]
    definitions: list[tuple[str, str]]
    points: list[PointRow]
    test: str
    counts: list[tuple[str, str]]
    infeasible: list[tuple[str, str]]
    violated: list[tuple[str, str]]
    nearest: PointRow | None
    advice: AdviceView | None


def holds_search(directory: Path) -> bool:
    """Whether a directory is that of a search."""
    return (directory / FRONTIER).exists()


def render_search(directory: Path) -> str:
    """The HTML text of the page.

    Raises:
        UsageError: a file is missing, damaged or lacks a key or column.
    """
    shown = view(read_frontier(directory / FRONTIER), read_trials(directory / "trials.parquet"))
    drawn = [*(shown.explorer.plots if shown.explorer else []), shown.importance, shown.growth]
    return render_template(
        "search.html.j2",
        title=shown.title,
        view=shown,
        plots=[plot for plot in drawn if plot is not None],
        script="search.js" if shown.explorer else None,
        data=shown.explorer.data if shown.explorer else None,
    )


def read_frontier(path: Path) -> dict[str, Any]:
    """What a ``frontier.json`` holds.

    Raises:
        UsageError: it is missing, damaged or lacks a key.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"not a readable JSON file ({error})", where=str(path), remedy=REMEDY) from None
    missing = [key for key in KEYS if not isinstance(values, dict) or key not in values]
    if missing:
        raise UsageError(f"missing keys: {', '.join(missing)}", where=str(path), remedy=REMEDY)
    return values


def read_trials(path: Path) -> dict[str, list[Any]]:
    """The columns of a ``trials.parquet``.

    Raises:
        UsageError: it is missing, damaged or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            columns = file.read().to_pydict()
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"not a readable Parquet file ({reason})", where=str(path), remedy=REMEDY) from None
    missing = [name for name in COLUMNS if name not in columns]
    if missing:
        raise UsageError(f"missing columns: {', '.join(missing)}", where=str(path), remedy=REMEDY)
    return columns


def view(found: Mapping[str, Any], trials: Mapping[str, Sequence[Any]]) -> SearchView:
    """The contents of the page."""
    scales = choice.scales(found, {path: _known(trials, path) for path in found["objectives"]})
    points = found["points"]
    seen = explored(trials, {point["point"] for point in points})
    answered = bool(points)
    return SearchView(
        title=str(found["name"]),
        setup=_setup(found),
        state="met" if answered else "missed",
        word=choice.headline(found) if answered else "No point is feasible.",
        sentence=choice.reason(found) if answered else _sentence(found),
        counted=_sentence(found),
        source=found["cost"]["source"] if found["cost"] else "",
        engine=_engine(found["cost"]),
        notes=[
            *(sentence(flag) for flag in found.get("flags", ())),
            *(["Interrupted: not all trials were done."] if found["interrupted"] else []),
        ],
        explorer=explorer(found, seen, _quantiles(found["test"])) if seen.numbers else None,
        importance=_importance(scales, found, seen),
        importance_note=caution(_columns(found, seen)) if seen.numbers else "",
        growth=_growth(trials),
        volume=_volume(found, scales),
        parameter_names=choice.labels(list(found["space"])),
        objective_names=[f"{scales[path].title} ({way})" for path, way in found["objectives"].items()],
        definitions=_definitions(found),
        points=[_row(found, scales, point) for point in points],
        test=_test(found),
        counts=_counts(found["counts"]),
        infeasible=[(each["reason"], _reason(found, each)) for each in found["infeasible"]],
        violated=_violated(found),
        nearest=None if found["nearest"] is None else _row(found, scales, found["nearest"]),
        advice=None if found.get("advice") is None else advice_view(found["advice"]),
    )


def _known(trials: Mapping[str, Sequence[Any]], path: str) -> list[float]:
    return [value for value in trials.get(path, ()) if value is not None]


def _setup(found: Mapping[str, Any]) -> list[str]:
    method = found["method"]
    words = [f"method {method['name']}", f"{count(found['counts']['points'])} points"]
    if found["capacity"] is not None:
        words.append(f"each at its highest {found['capacity']['of']} that meets the SLO")
        if found["capacity"].get("note"):
            words.append(found["capacity"]["note"])
    return [*words, *(choice.bound(each) + _origin(each) for each in found["bounds"])]


def _origin(each: Mapping[str, Any]) -> str:
    """The origin of a constraint that the search does not state."""
    return {"slo": " (the scenario’s SLO)", "default": " (a default)"}.get(each["origin"], "")


def _sentence(found: Mapping[str, Any]) -> str:
    counts = found["counts"]
    return (
        f"{count(counts['points'])} points: {count(counts['feasible'])} keep all constraints, "
        f"{count(counts['frontier'])} of them on the frontier; {count(counts['violating'])} break one, "
        f"{count(counts['infeasible'])} infeasible."
    )


def _engine(cost: Mapping[str, str] | None) -> str:
    if cost is None:
        return ""
    return "not measured" if cost["source"] == "roofline" else f"on {cost['engine']}"


def _counts(counts: Mapping[str, int]) -> list[tuple[str, str]]:
    left_out = counts["points"] - counts["feasible"] - counts["violating"] - counts["infeasible"]
    rows = [
        ("points", counts["points"]),
        ("infeasible", counts["infeasible"]),
        ("break a constraint", counts["violating"]),
        ("left out after a short run", left_out),
        ("keep all constraints", counts["feasible"]),
        ("on the frontier", counts["frontier"]),
        ("trials", counts["trials"]),
        ("requests simulated", counts["requests"]),
    ]
    return [(name, count(value)) for name, value in rows]


def _reason(found: Mapping[str, Any], each: Mapping[str, Any]) -> str:
    example = choice.label(found, each["example"])
    return f"{count(each['points'])} points, such as {example}"


def _violated(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Each constraint that some points break, and how near the nearest of them comes."""
    bounds = dict(zip(found["constraints"], found["bounds"], strict=True))
    rows = []
    for each in found["violated"]:
        of = bounds[each["constraint"]]
        rows.append(
            (
                choice.bound(of),
                f"{count(each['points'])} of {count(each['of'])} points; {choice.closest(each, of)}",
            )
        )
    return rows


def _test(found: Mapping[str, Any]) -> str:
    test = found["test"]
    near = f"Points near the frontier (within {number(100 * test['near'])} %) were simulated under several seeds."
    rule = f"{test['rule'][0].upper()}{test['rule'][1:]}. The margin is {number(100 * test['margin'])} %."
    missed = (
        "None: so many requests were rejected, failed or did not finish that the figure has no finite value."
    )
    return " ".join([*([near] if test["replications"] > 1 else []), choice.seeds(found), rule, missed])


def _volume(found: Mapping[str, Any], scales: Mapping[str, Scale]) -> str:
    if found["hypervolume"] is None:
        return ""
    reference = ", ".join(
        f"{scales[path].name} {scales[path].show(value)} {scales[path].unit.name}".rstrip()
        for path, value in found["reference_point"].items()
    )
    origin = (
        "stated"
        if found["reference_stated"]
        else "a tenth of the range beyond the worst of each objective, as far as that can be"
    )
    return f"Hypervolume {number(found['hypervolume'])} (units of the files), reference point {reference}: {origin}."


def _definitions(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The definitions of the latencies among the objectives."""
    metrics = {path.partition(".")[0] for path in found["objectives"]}
    return [(BY_KEY[key].name, BY_KEY[key].meaning) for key in BY_KEY if key in metrics]


def _row(found: Mapping[str, Any], scales: Mapping[str, Scale], point: Mapping[str, Any]) -> PointRow:
    capacity = point["runs"][0].get("capacity")
    return PointRow(
        anchor=f"point-{point['point']}",
        parameters=[choice.text(point["parameters"][path]) for path in found["space"]],
        objectives=[
            choice.estimated(scales[path], point["objectives"][path]) for path in found["objectives"]
        ],
        lost=[choice.lost(point)[name] for name in ("rejected", "failed")],
        same=choice.sames(found, point),
        capacity="" if capacity is None else number(capacity["value"]),
        command=point["command"],
        vllm=point["vllm"],
    )


def _quantiles(test: Mapping[str, Any]) -> list[float]:
    """Quantiles of Student's t, for as many degrees of freedom as there may be seeds."""
    return [quantile(test["confidence"], degrees) for degrees in range(1, test["replications"])]


def _columns(found: Mapping[str, Any], seen: Explored) -> list[list[Any]]:
    """The value of each parameter at each point."""
    return [seen.column(f"parameters.{path}") for path in found["space"]]


def _importance(scales: Mapping[str, Scale], found: Mapping[str, Any], seen: Explored) -> Plot | None:
    """What each parameter matters to each objective; nothing where no objective varies."""
    if not seen.numbers:
        return None
    columns = _columns(found, seen)
    each = [importance(scales[path].name, columns, seen.own(path)) for path in found["objectives"]]
    if not any(one.shares for one in each):
        return None
    names = choice.labels(list(found["space"]))
    words = "; ".join(
        f"{one.name}: "
        + ", ".join(f"{name} {number(100 * part)} %" for name, part in zip(names, one.shares, strict=True))
        for one in each
        if one.shares
    )
    keys = [
        Key(one.name, colour, "square")
        for one, colour in zip((one for one in each if one.shares), SERIES, strict=False)
    ]
    return Plot("shares", "Share of the variance", f"{words}.", importance_figure(names, each), keys)


def _growth(trials: Mapping[str, Sequence[Any]]) -> Plot | None:
    known = [
        (trial, volume)
        for trial, volume in zip(trials["trial"], trials["hypervolume"], strict=True)
        if volume is not None
    ]
    if len(known) < 2:
        return None
    numbers, volumes = np.array(known, dtype=float).T
    words = f"Hypervolume after each of {len(known)} points, the last one being 100 %."
    return Plot("growth", "Hypervolume", words, growth_figure(numbers, volumes))

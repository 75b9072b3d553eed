"""What the page of a search explores in the browser: every point with its figures, and what one does with it.

The browser recomputes which points keep the bounds and which of them are on the frontier by the rule of the search
(:data:`simslm.search.intervals.TEST`), so that objectives come unrounded, seed by seed, with the quantiles of the test.
A figure that is infinite, because requests were missed, is null.
Long texts, such as the commands of each point, are lists of numbers into one table of words.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simslm.metrics.definitions import BY_KEY, LATENCIES
from simslm.metrics.figure_paths import OF_PATH
from simslm.metrics.metric import STATISTICS
from simslm.report.choice import labels, text
from simslm.report.figures import frame, rounded, titled_axis
from simslm.report.page import Key, Plot
from simslm.report.palette import SCALE
from simslm.report.parity import plain
from simslm.report.tradeoff import Scale, scale
from simslm.report.wording import count
from simslm.units import number

MOST_POINTS = 4000
"""Points that are drawn; of more, those of the frontier and every so many of the others."""

MOST_WORDS = 600_000
"""Words of commands and scenarios that a page holds; beyond them only the frontier's points have theirs."""

ROLE = {"command": " ", "vllm": " ", "scenario": "\n"}
"""What a point comes with, and what divides the words of each."""

MOST_CELLS = 12
"""Different numbers of a parameter beyond which the heat map gathers them into as many ranges."""

BOUNDED = ("ttft_s", "tpot_s", "itl_s", "e2e_s")
"""Latencies that have a slider."""

LEGEND = (
    Key("frontier", "@accent", "circle"),
    Key("frontier of the two figures shown", "@accent", "dot"),
    Key("best", "@second", "diamond"),
    Key("beaten or the same", "@muted", "circle"),
    Key("breaks a bound", "@muted", "circle-open"),
)

TURNED_AWAY = ("requests.rejected_share", "requests.failed_share")
"""Said of every point."""

NEXT = ("ttft_s.p99", "throughput.output_tokens_per_s", "energy.j_per_output_token", "tpot_s.p99")
"""Figures on the axes where there are fewer objectives than axes."""

SIGN = {"<=": -1, ">=": 1}


@dataclass(frozen=True, slots=True)
class Explored:
    """The points of a search that can be, each under one or several seeds.

    Attributes:
        numbers: of the points, in their order.
        rows: for each, the rows of ``trials.parquet`` under its seeds, the scenario's own first.
        trials: the columns of ``trials.parquet``.
    """

    numbers: list[int]
    rows: list[list[int]]
    trials: Mapping[str, Sequence[Any]]

    def column(self, name: str) -> list[Any]:
        """A column at each point's first trial."""
        return [self.trials[name][rows[0]] for rows in self.rows]

    def seeds(self, path: str) -> list[list[float]]:
        """A figure at each point, seed by seed; NaN where it has no value."""
        column = self.trials[path]
        return [[math.nan if column[row] is None else column[row] for row in rows] for rows in self.rows]

    def own(self, path: str) -> np.ndarray:
        """A figure at each point under the scenario's own seed, which all of them have."""
        return np.array([values[0] for values in self.seeds(path)], dtype=float)

    def means(self, path: str) -> np.ndarray:
        """The mean of a figure over the seeds of each point, summed in their order as the search does."""
        return np.array([sum(values) / len(values) for values in self.seeds(path)], dtype=float)


def explored(trials: Mapping[str, Sequence[Any]], frontier: set[int]) -> Explored:
    """The points that can be, thinned out where they are too many.

    Args:
        trials: the columns of ``trials.parquet``.
        frontier: numbers of the points that must stay.
    """
    by_point: dict[int, dict[int, int]] = {}
    impossible = set()
    columns = (trials[name] for name in ("point", "seed", "share", "status"))
    for row, (point, seed, share, status) in enumerate(zip(*columns, strict=True)):
        if share == 1:
            by_point.setdefault(point, {})[seed] = row
            if status != "finished":
                impossible.add(point)
    figures = [path for path in OF_PATH if path in trials]
    found = {
        point: _differing(list(_consecutive(by_point[point])), trials, figures)
        for point in sorted(by_point)
        if point not in impossible
    }
    # Every so many of them, not a random choice: the same files give the same page, byte for byte.
    step = math.ceil(len(found) / MOST_POINTS)
    numbers = [point for i, point in enumerate(found) if i % step == 0 or point in frontier]
    return Explored(numbers, [found[point] for point in numbers], trials)


def _consecutive(by_seed: Mapping[int, int]) -> Iterator[int]:
    """The rows under seed, seed + 1, and so on; the first trial of a point is under the scenario's own."""
    # Not the smallest seed: rows come in the order of trials, and the first is under the scenario's own.
    seed = min(by_seed, key=lambda each: by_seed[each])
    while seed in by_seed:
        yield by_seed[seed]
        seed += 1


def _differing(rows: list[int], trials: Mapping[str, Sequence[Any]], figures: Sequence[str]) -> list[int]:
    """The rows; the first alone where seeds change no figure, as in a replay."""
    first, *more = rows
    same = all(trials[path][row] == trials[path][first] for row in more for path in figures)
    return [first] if same else rows


@dataclass(frozen=True, slots=True)
class Explorer:
    """What the template shows of it.

    Attributes:
        plots: the trade-off, and the heat map where two parameters vary; drawn by the page's script.
        data: what the script works on, see :func:`payload`.
        objectives, others: paths and titles of the figures to choose from.
        parameters: paths and names of the parameters that vary, to choose from as axes and in the heat map.
        solid: whether there are figures enough for three axes.
    """

    plots: list[Plot]
    data: dict[str, Any]
    objectives: list[tuple[str, str]]
    others: list[tuple[str, str]]
    numeric: list[tuple[str, str]]
    parameters: list[tuple[str, str]]
    solid: bool


def explorer(found: Mapping[str, Any], points: Explored, quantiles: Sequence[float]) -> Explorer:
    """The explorer of a search; see :func:`payload` for the arguments."""
    data = payload(found, points, quantiles)
    choices = [(each["objective"], (each["path"], _titled(each))) for each in data["figures"]]
    varying = [each for each in data["parameters"] if len(each["levels"]) > 1]
    numeric = [each for each in varying if "numbers" in each]
    frontier = len(found["points"])
    words = (
        f"{count(len(points.numbers))} points over two figures, {count(frontier)} of them on the frontier."
    )
    plots = [Plot("explorer", "Trade-off", words, {"data": [], "layout": data["frame"]}, LEGEND)]
    if data["heat"]:
        plots.append(
            Plot(
                "heat",
                "Best of each cell",
                "The best point of each cell.",
                {"data": [], "layout": {**data["frame"], "height": 96 + 38 * _rows(varying[0])}},
            )
        )
    return Explorer(
        plots,
        data,
        [choice for objective, choice in choices if objective],
        [choice for objective, choice in choices if not objective],
        [(each["path"], each["name"]) for each in numeric],
        [(each["path"], each["name"]) for each in varying],
        len(choices) + len(numeric) > 2,
    )


def _rows(parameter: Mapping[str, Any]) -> int:
    return len(parameter.get("ranges", parameter)["levels"])


def _titled(each: Mapping[str, Any]) -> str:
    return f"{each['name']}, {each['unit']}" if each["unit"] else each["name"]


def payload(found: Mapping[str, Any], points: Explored, quantiles: Sequence[float]) -> dict[str, Any]:
    """What the page's script works on.

    Args:
        found: the contents of ``frontier.json``.
        points: at least one.
        quantiles: of Student's t for 1, 2, ... degrees of freedom at the confidence of the search.
    """
    space = list(found["space"])
    objectives = found["objectives"]
    bounded = [each["path"] for each in found["bounds"]]
    judged = {*objectives, *bounded, "slo.attainment", *_statistics(BOUNDED)}
    of = (found["capacity"] or {}).get("of", "")
    scales = _scales(points, [*objectives, *bounded, *TURNED_AWAY], of)
    figures = [_figure(each, points, objectives, each.path in judged) for each in scales]
    parameters = [
        {"path": path, "name": name, **_parameter(points.column(f"parameters.{path}"))}
        for path, name in zip(space, labels(space), strict=True)
    ]
    varying = [each for each in parameters if len(each["levels"]) > 1]
    known = [each["path"] for each in (*figures, *(each for each in varying if "numbers" in each))]
    axes = list(dict.fromkeys((*objectives, *(path for path in NEXT if path in known), *known)))
    heat = (
        {"row": varying[0]["path"], "column": varying[1]["path"], "figure": figures[0]["path"]}
        if len(varying) > 1
        else None
    )
    return {
        "numbers": points.numbers,
        "parameters": parameters,
        "axes": [axes[i % len(axes)] for i in range(3)],
        "heat": heat,
        "objectives": list(objectives),
        "deciding": found["deciding"],
        "margin": found["test"]["margin"],
        "seeds": {path: [_finite(values) for values in points.seeds(path)] for path in objectives},
        "figures": figures,
        "bounds": bounds(found, {each["path"] for each in figures}),
        "near": found["test"]["near"],
        "quantiles": list(quantiles),
        "frame": {**frame(height=430, left=66, top=14, bottom=50), "hovermode": "closest"},
        "axis": titled_axis(""),
        "scale": [list(stop) for stop in SCALE],
        **_texts(points, found["name"], {point["point"] for point in found["points"]}),
    }


def _scales(points: Explored, needed: Sequence[str], capacity_of: str) -> Iterator[Scale]:
    """The scales of the figures that are needed, and of every other figure that is known at all points and varies."""
    others = [path for path in (*OF_PATH, "capacity.value") if path in points.trials and path not in needed]
    for path in dict.fromkeys((*needed, *others)):
        values = points.own(path)
        known = not np.isnan(points.means(path)).any()
        if path in needed or (known and len(set(values.tolist())) > 1):
            yield scale(path, values.tolist(), capacity_of)


def _finite(values: Sequence[float] | np.ndarray) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]


def _figure(each: Scale, points: Explored, objectives: Mapping[str, str], exact: bool) -> dict[str, Any]:
    """A figure at every point; unrounded, with the means over seeds, where points are judged by it."""
    way = objectives.get(each.path)
    values, means = points.own(each.path), points.means(each.path)
    return {
        "path": each.path,
        "name": each.name,
        "unit": each.unit.name,
        "per": each.unit.per_s,
        "better": each.better if way is None else {"max": 1, "min": -1}[way],
        "objective": way is not None,
        "values": _finite(values) if exact else rounded(values),
        **({"means": _finite(means)} if exact and np.any(values != means) else {}),
    }


def _parameter(values: Sequence[Any]) -> dict[str, Any]:
    """The different values of a parameter in their order, and which one each point has."""
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    texts = [text(value) for value in values]
    distinct = dict(zip(texts, values, strict=True))
    order = sorted(distinct, key=lambda each: distinct[each] if numeric else each)
    place = {each: i for i, each in enumerate(order)}
    found = {"levels": [plain(each) for each in order], "at": [place[each] for each in texts]}
    if not numeric:
        return found
    found["numbers"] = list(values)
    return found | ({"ranges": _ranges(values)} if len(order) > MOST_CELLS else {})


def _ranges(values: Sequence[float]) -> dict[str, Any]:
    """Equally frequent ranges of many numbers: what each holds, and which one each number lies in."""
    numbers = np.array(values, dtype=float)
    inner = np.quantile(numbers, np.linspace(0, 1, MOST_CELLS + 1)[1:-1], method="nearest")
    at = np.searchsorted(np.unique(inner), numbers, side="right")
    there, at = np.unique(at, return_inverse=True)
    groups = [numbers[at == i] for i in range(len(there))]
    ends = [(number(float(group.min())), number(float(group.max()))) for group in groups]
    return {
        "levels": [low if low == high else f"{low} to {high}" for low, high in ends],
        "at": at.tolist(),
    }


def bounds(found: Mapping[str, Any], known: set[str]) -> list[dict[str, Any]]:
    """What a reader may bound: the constraints of the search, the latencies, and SLO attainment where one is stated.

    Each has ``paths`` to choose from, the ``sign`` of its bound, the ``path`` and ``bound`` to begin with (None: no
    bound), and what the scenario ``stated`` where that is an SLO.
    """
    rows = [_bound([each["path"]], each["sign"], each["path"], each["bound"]) for each in found["bounds"]]
    slo = found["slo"] or {}
    for metric in LATENCIES:
        paths = [path for path in _statistics([metric.key]) if path in known]
        if metric.key in BOUNDED and paths and not any(row["path"] in paths for row in rows):
            first = f"{metric.key}.p99" if f"{metric.key}.p99" in known else paths[-1]
            rows.append(_bound(paths, "<=", first, None))
    if slo and "slo.attainment" in known and not any(row["path"] == "slo.attainment" for row in rows):
        rows.append(_bound(["slo.attainment"], ">=", "slo.attainment", None) | {"stated": slo["attainment"]})
    return rows


def _statistics(keys: Sequence[str]) -> list[str]:
    return [f"{key}.{statistic}" for key in keys for statistic in STATISTICS]


def _bound(paths: Sequence[str], sign: str, path: str, bound: float | None) -> dict[str, Any]:
    key = path.partition(".")[0]
    name = BY_KEY[key].name if key in BY_KEY else scale(path, []).name
    return {"name": name, "paths": list(paths), "sign": SIGN[sign], "path": path, "bound": bound}


def _texts(points: Explored, name: str, frontier: set[int]) -> dict[str, Any]:
    """The commands and scenario of each point, as numbers of words."""
    head = f"# A point of the search {json.dumps(name)}; paths are relative to the folder of its scenario."
    words: dict[str, int] = {}
    uses: dict[str, list[list[int]]] = {}
    left = MOST_WORDS
    for role, divider in ROLE.items():
        columns = points.column(role)
        if role == "scenario":
            columns = [f"{head}\n{yaml_text(json.loads(each))}\n" for each in columns]
        uses[role] = []
        for point, each in zip(points.numbers, columns, strict=True):
            parts = each.split(divider) if left > 0 or point in frontier else []
            left -= len(parts)
            uses[role].append([words.setdefault(part, len(words)) for part in parts])
    return {"words": list(words), "uses": uses, "dividers": ROLE}


def yaml_text(value: Mapping[str, Any], indent: str = "") -> str:
    """A mapping as YAML: a line for each key, lists and scalars as JSON, which YAML takes as it is."""
    lines = []
    for name, inner in value.items():
        key = name if name.replace("_", "").replace("-", "").isalnum() else json.dumps(name)
        if isinstance(inner, Mapping) and inner:
            lines += [f"{indent}{key}:", yaml_text(inner, f"{indent}  ")]
        else:
            lines.append(f"{indent}{key}: {json.dumps(inner)}")
    return "\n".join(lines)

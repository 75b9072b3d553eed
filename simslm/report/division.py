"""A run by class, by program and by group, as tables for the screen and the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from simslm.metrics.definitions import ATTAINMENT
from simslm.metrics.divided import FAIRNESS, PROGRAM_TIMES, SERVICE
from simslm.metrics.figure_paths import metric_of
from simslm.metrics.metric import STATISTICS, Metric
from simslm.report.objective import class_objectives
from simslm.report.tables import RunTables, dig, figure_of
from simslm.report.wording import attained, count, share

SHOWN = (
    "requests.arrived",
    "requests.finished",
    "ttft_s.p50",
    "ttft_s.p99",
    "tpot_s.p99",
    "e2e_s.p99",
    "slo.attainment",
    "slo.goodput_rps",
    "service_tokens_per_s",
)
"""Figures of the table by class; those that no class has are left out."""


@dataclass(frozen=True, slots=True)
class Division:
    """A table.

    Attributes:
        id: for the page.
        title: above it.
        columns: heads, that of the names first.
        rows: of each line, its name and its cells.
        sentences: what is to be said below it.
        definitions: name and meaning of what is in it and is defined nowhere else.
    """

    id: str
    title: str
    columns: tuple[str, ...]
    rows: list[list[str]]
    sentences: list[str]
    definitions: list[tuple[str, str]]


def divisions(run: RunTables) -> list[Division]:
    """The tables of a run: of its classes, its programs, its gateway and groups, as far as it states such."""
    return [*_classes(run), *_programs(run.summary), *_dispatched(run.summary)]


def _classes(run: RunTables) -> Iterator[Division]:
    summary, classes = run.summary, dig(run.summary, "classes", {})
    if not classes:
        return
    asked = {name: target for name, _, target in class_objectives(run)}
    known = [path for path in SHOWN if any(figure_of(each, path) is not None for each in classes.values())]
    rows = [
        [
            name,
            *(_shown(path, each) for path in known),
            *([share(asked[name]) if name in asked else "–"] if asked else []),
        ]
        for name, each in classes.items()
    ]
    fairness = [
        (metric, value) for metric in FAIRNESS if (value := figure_of(summary, metric.key)) is not None
    ]
    yield Division(
        "classes",
        "By class",
        ("class", *(_head(path) for path in known), *(("attainment asked",) if asked else ())),
        rows,
        [f"{metric.name}: {metric.show(value)}." for metric, value in fairness],
        [_defined(SERVICE), *(_defined(metric) for metric, _ in fairness)],
    )


def _programs(summary: Mapping[str, Any]) -> Iterator[Division]:
    found = dig(summary, "programs", {})
    if not found:
        return
    divided = {
        name: each["programs"] for name, each in dig(summary, "classes", {}).items() if "programs" in each
    }
    parts = {"all": found, **divided} if len(divided) > 1 else {"all": found}
    rows = [
        [
            metric.name if len(parts) == 1 else f"{metric.name}, {name}",
            *(
                metric.show(figure_of(each, f"{metric.key.partition('.')[2]}.{value}"))
                for value in STATISTICS
            ),
        ]
        for metric in PROGRAM_TIMES
        for name, each in parts.items()
    ]
    yield Division(
        "programs",
        "By program",
        ("", *STATISTICS),
        rows,
        [_counts(found)],
        [_defined(metric) for metric in PROGRAM_TIMES],
    )


def _dispatched(summary: Mapping[str, Any]) -> Iterator[Division]:
    """What the gateway answered, and what became of the requests of each group."""
    gateway, groups = dig(summary, "gateway", {}), dig(summary, "group_routing.groups", [])
    if not gateway and not groups:
        return
    rows = []
    if gateway:
        arrived = dig(summary, "requests.arrived")
        rows.append(["gateway", count(arrived), count(gateway["answered"]), "–"])
    rows += [
        [group["name"], *(count(group[name]) for name in ("requests", "answered", "escalated"))]
        for group in groups
    ]
    sentences = []
    if gateway:
        sentences.append(
            f"The gateway answered {share(gateway['answered_share'])} of the requests: no replica served them."
        )
    again = dig(summary, "group_routing.escalations", 0)
    if again:
        sentences.append(
            f"{count(again)} answers were not accepted; another group served those requests anew."
        )
    columns = ("", "requests", "answered", "escalated") if groups else ("", "requests", "answered")
    definitions = [
        ("requests", "that arrived at the gateway, or that the group let in"),
        ("answered", "whose answer went out from here"),
        ("escalated", "whose answer was not accepted, so that they went on to another group"),
    ]
    yield Division(
        "dispatched",
        "By who answered" if groups else "The gateway",
        columns,
        [row[: len(columns)] for row in rows],
        sentences,
        definitions[: len(columns) - 1],
    )


def _counts(found: Mapping[str, Any]) -> str:
    parts = [f"{count(found['arrived'])} programs arrived", f"{count(found['finished'])} finished"]
    parts += [f"{count(found[name])} {name}" for name in ("failed", "unfinished") if found[name]]
    lost = found["requests_not_sent"]
    return ", ".join(parts) + (f"; {count(lost)} of their requests were never sent." if lost else ".")


def _metric(path: str) -> Metric:
    metric = metric_of(f"classes.each.{path}")
    assert metric is not None, path
    return metric


def _head(path: str) -> str:
    metric = _metric(path)
    return f"{metric.name} {path.rpartition('.')[2]}" if metric.has_statistics else metric.name


def _shown(path: str, figures: Mapping[str, Any]) -> str:
    metric, value = _metric(path), figure_of(figures, path)
    if metric.unit == "requests":
        return count(value)
    if metric is ATTAINMENT and value is not None:
        return attained(value)
    return metric.show(value)


def _defined(metric: Metric) -> tuple[str, str]:
    return metric.name, metric.meaning

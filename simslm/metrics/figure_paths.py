"""The numbers of a summary by their dotted paths: ``ttft_s.p99``, ``classes.chat.slo.attainment``."""

from __future__ import annotations

from collections.abc import Iterable

from simslm.metrics.definitions import METRICS
from simslm.metrics.divided import BY_CLASS, CLOCKS, FAIRNESS, FLEET, GATEWAY, GROUP_ROUTING, PROGRAMS
from simslm.metrics.metric import Metric, paths

OF_PATH = {path: metric for metric in METRICS for path in paths(metric)}
"""The metric of every number of a summary, by the number's dotted path."""

FIGURES = tuple(OF_PATH)
"""Every number of a summary, by its dotted path."""


_OF_DIVIDED = {
    path: metric
    for metric in (*PROGRAMS, *FAIRNESS, *GATEWAY, *GROUP_ROUTING, *FLEET, *CLOCKS)
    for path in paths(metric)
}
_OF_CLASS = {path: metric for metric in (*BY_CLASS, *PROGRAMS) for path in paths(metric)}


def figures_of(
    classes: Iterable[str],
    programs: bool,
    *,
    gateway: bool = False,
    group_routing: bool = False,
    fleet: bool = False,
    clocks: bool = False,
) -> tuple[str, ...]:
    """Every number of the summary of a scenario, by its dotted path.

    Args:
        classes: names of its classes, perhaps none.
        programs: whether any of them, or all of it, has programs.
        gateway: whether it has a gateway.
        group_routing: whether it states how groups are chosen.
        fleet: whether it has a control plane.
        clocks: whether that changes clocks.
    """
    of_programs = [path for metric in PROGRAMS for path in paths(metric)] if programs else []
    names = tuple(classes)
    of_class = [*(path for metric in BY_CLASS for path in paths(metric)), *of_programs]
    fairness = [path for metric in FAIRNESS for path in paths(metric)] if names else []
    return (
        *FIGURES,
        *of_programs,
        *(f"classes.{name}.{path}" for name in names for path in of_class),
        *fairness,
        *(path for metric in GATEWAY if gateway for path in paths(metric)),
        *(path for metric in GROUP_ROUTING if group_routing for path in paths(metric)),
        *(path for metric in FLEET if fleet for path in paths(metric)),
        *(path for metric in CLOCKS if clocks for path in paths(metric)),
    )


def metric_of(path: str) -> Metric | None:
    """The metric of a number by its dotted path, also of a class; None where there is no such number."""
    if path.startswith("classes."):
        return _OF_CLASS.get(path.split(".", 2)[-1])
    return OF_PATH.get(path) or _OF_DIVIDED.get(path)


def title(path: str) -> str:
    """The name of a number on screens: ``TTFT p99``, ``TTFT p99 of chat``."""
    metric = metric_of(path)
    if metric is None:
        raise KeyError(path)
    name = f"{metric.name} {path.rpartition('.')[2]}" if metric.has_statistics else metric.name
    return f"{name} of {path.split('.')[1]}" if path.startswith("classes.") else name

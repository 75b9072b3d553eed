"""Figures by class, and how fairly classes are served."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simslm.metrics.programs import ProgramColumns, program_figures
from simslm.metrics.summary import rate, reuse, slo_figures, throughput
from simslm.metrics.tally import Tally

Bounds = Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Classes:
    """Which class each request is of, and what is good for it.

    Attributes:
        names: of the classes.
        of: the class of each request by its place in ``names``, shape ``(requests,)``, int64.
        bounds: of each class, by metric name, None where unbounded.
    """

    names: tuple[str, ...]
    of: np.ndarray
    bounds: tuple[Bounds, ...]


def split_slo(columns: Mapping[str, np.ndarray], classes: Classes, seconds: float) -> dict[str, Any]:
    """Attainment and goodput of all requests that have a bound, each held to those of its class.

    Args:
        columns: of the arrived requests, ``request_id`` among them.
        classes: of all requests.
        seconds: the makespan.
    """
    mine = classes.of[columns["request_id"]]
    limits = {name: _limits(classes, name) for name in dict.fromkeys(_bounded(classes.bounds))}
    if not limits:
        return slo_figures(Tally(), seconds)
    some = np.array(
        [any(np.isfinite(limit[i]) for limit in limits.values()) for i in range(len(classes.names))]
    )
    bounded = some[mine]
    held = {name: column[bounded] for name, column in columns.items()}
    return slo_figures(
        Tally.of(held, {name: limit[mine[bounded]] for name, limit in limits.items()}), seconds
    )


def _bounded(bounds: Iterable[Bounds]) -> Iterable[str]:
    return (name for each in bounds for name, bound in each.items() if bound is not None)


def _limits(classes: Classes, name: str) -> np.ndarray:
    """The bound of each class on a metric, inf where it has none."""
    values = (each.get(name) for each in classes.bounds)
    return np.array([np.inf if value is None else value for value in values])


def class_figures(
    columns: Mapping[str, np.ndarray],
    classes: Classes,
    programs: ProgramColumns | None,
    seconds: float,
) -> dict[str, dict[str, Any]]:
    """The figures of each class, under the names that those of all requests have.

    Args:
        columns: of the arrived requests.
        classes: of all requests.
        programs: of all requests, None where there are none.
        seconds: the makespan.
    """
    mine = classes.of[columns["request_id"]]
    found = {}
    for number, name in enumerate(classes.names):
        of_class = {key: column[mine == number] for key, column in columns.items()}
        tally = Tally.of(of_class, classes.bounds[number])
        found[name] = {
            "requests": tally.counts(),
            "throughput": throughput(tally, seconds),
            **tally.spreads(),
            "slo": slo_figures(tally, seconds),
            "kv": reuse(tally),
            "service_tokens_per_s": rate(tally.output_tokens, tally.in_system_s),
        }
        if programs is not None:
            found[name]["programs"] = program_figures(of_class, programs.only(classes.of == number))
    return found


def fairness_figures(classes: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    """How evenly classes are served; of those that have requests.

    Jain's index of ``x`` is ``(sum x)^2 / (n sum x^2)`` (Jain, Chiu and Hawe, DEC-TR-301, 1984): 1 where all are equal,
    ``1 / n`` where one has everything. Here ``x`` is the output tokens per second that a class's requests get while
    they are in the system, the inverse of the normalized latency of Orca and vLLM; 0 for a class of which none
    finished.
    """
    arrived = [each for each in classes.values() if each["requests"]["arrived"]]
    attained = [each["slo"]["attainment"] for each in arrived if each["slo"]["attainment"] is not None]
    return {
        "jain": jain([each["service_tokens_per_s"] for each in arrived]),
        "min_attainment": min(attained, default=None),
        "attainment_gap": max(attained) - min(attained) if attained else None,
    }


def jain(values: Sequence[float]) -> float | None:
    """Jain's fairness index; None where nobody got anything."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else None

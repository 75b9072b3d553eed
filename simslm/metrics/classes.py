"""Figures by class, and how fairly classes are served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simslm.metrics.steady import Counted
from simslm.metrics.summary import rate, reuse, slo_figures, throughput
from simslm.metrics.tally import Tally

Bounds = Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Classes:
    """The class of each request, and the bounds of each class.

    Attributes:
        names: of the classes.
        of: the class of each request by its place in ``names``, shape ``(requests,)``, int64.
        bounds: of each class, by metric name, None where unbounded.
    """

    names: tuple[str, ...]
    of: np.ndarray
    bounds: tuple[Bounds, ...]


class ClassTallies:
    """What the figures by class follow from, counted a part of the requests at a time."""

    def __init__(self, classes: Classes) -> None:
        self.classes = classes
        self.each = [Tally(bounds) for bounds in classes.bounds]
        names = dict.fromkeys(
            name for each in classes.bounds for name, bound in each.items() if bound is not None
        )
        self._limits = {name: _limits(classes, name) for name in names}
        self._bounded = Tally()

    def take(self, columns: Mapping[str, np.ndarray], window: Counted | None = None) -> None:
        """Counts some more requests, ``request_id`` among their columns; see :meth:`Tally.take`."""
        mine = self.classes.of[columns["request_id"]]
        for number, tally in enumerate(self.each):
            tally.take({name: column[mine == number] for name, column in columns.items()}, window)
        if self._limits:
            some = np.any([np.isfinite(limit) for limit in self._limits.values()], axis=0)[mine]
            self._bounded.bounds = {name: limit[mine[some]] for name, limit in self._limits.items()}
            self._bounded.take({name: column[some] for name, column in columns.items()}, window)

    def names(self, requests: np.ndarray) -> np.ndarray:
        """The classes of some requests, by their numbers."""
        return np.array(self.classes.names, dtype=object)[self.classes.of[requests]]

    def slo(self, seconds: float) -> dict[str, Any]:
        """Attainment and goodput of all requests that have a bound, each held to those of its class."""
        return slo_figures(self._bounded, seconds)

    def figures(self, seconds: float) -> dict[str, dict[str, Any]]:
        """The figures of each class, under the names that those of all requests have; ``seconds`` is the time
        that counts."""
        return {
            name: {
                "requests": tally.counts(),
                "throughput": throughput(tally, seconds),
                **tally.spreads(),
                "slo": slo_figures(tally, seconds),
                "kv": reuse(tally),
                "service_tokens_per_s": rate(tally.output_tokens, tally.in_system_s),
            }
            for name, tally in zip(self.classes.names, self.each, strict=True)
        }


def _limits(classes: Classes, name: str) -> np.ndarray:
    """The bound of each class on a metric, inf where it has none."""
    values = (each.get(name) for each in classes.bounds)
    return np.array([np.inf if value is None else value for value in values])


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
    """Jain's fairness index; None where no class got any service."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else None

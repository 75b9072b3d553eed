"""Costs made of other costs: a layer computes new prices from those inside and states only what it changes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np

from simslm.catalog.work import IterationShape
from simslm.cost.decoding import decode_columns
from simslm.cost.facts import Facts
from simslm.cost.model import CostModel, Costs, DecodeLine

Maximum = Callable[[Any, Any], Any]
"""The larger of two numbers (``max``), or of the elements of two arrays (``np.maximum``)."""


class Layer(CostModel):
    """A cost model around another.

    Args:
        cost: the costs inside.
        facts: of the result.

    Class attributes:
        measured: whether iterations inside the measured domain stay inside; False where the change was not measured.
    """

    measured: ClassVar[bool] = True

    def __init__(self, cost: CostModel, facts: Facts) -> None:
        super().__init__(facts)
        self._cost = cost

    @abstractmethod
    def _over(self, cost: CostModel) -> Self:
        """The same layer around other costs."""

    @abstractmethod
    def _seconds(self, shape: IterationShape, seconds: Any, host_s: Any, maximum: Maximum) -> Any:
        """Seconds of an iteration, or of many.

        Args:
            shape: numbers, or arrays of shape ``(n,)``.
            seconds: of the costs inside, host time included.
            host_s: their host time.
            maximum: of numbers or of arrays, as ``shape`` has them.
        """

    def _inside(self, shapes: IterationShape) -> Costs:
        """What the costs inside say of many iterations."""
        return self._cost.evaluate(shapes)

    def _host(self, shape: IterationShape, host_s: Any) -> Any:
        """Host time of an iteration, or of many, from that of the costs inside."""
        del shape
        return host_s

    def _joules(
        self, shapes: IterationShape, energy_j: np.ndarray, inner: Costs, latency_s: np.ndarray
    ) -> np.ndarray:
        """Energy of many iterations, in J.

        Args:
            shapes: of the iterations.
            energy_j: by the costs inside, shape ``(n,)``.
            inner: those costs.
            latency_s: of the iterations as this layer has it, shape ``(n,)``.
        """
        del shapes, inner, latency_s
        return energy_j

    def latency_s(self, shape: IterationShape) -> float:
        """Seconds of one iteration, host time included."""
        if shape.plain_decode:
            return self.decode(shape.decode_seqs).latency_s(shape.decode_ctx_tokens)
        return self._seconds(shape, self._cost.latency_s(shape), self._cost.host_s(shape), max)

    def host_s(self, shape: IterationShape) -> float:
        """Seconds of one iteration in which no kernel runs."""
        return self._host(shape, self._cost.host_s(shape))

    def evaluate(self, shapes: IterationShape) -> Costs:
        """The cost of many iterations at once."""
        inner = self._inside(shapes)
        latency = self._seconds(shapes, inner.latency_s, inner.host_s, np.maximum)
        decode_columns(self.decode, shapes, latency)
        energy = None if inner.energy_j is None else self._joules(shapes, inner.energy_j, inner, latency)
        inside = inner.in_domain if self.measured else np.zeros_like(inner.in_domain)
        return Costs(latency, self._host(shapes, inner.host_s), energy, inside)

    def variants(self) -> tuple[tuple[CostModel, CostModel], ...]:
        """Those of the costs inside, each under this layer; the layer's own error is not known."""
        return tuple((self._over(low), self._over(high)) for low, high in self._cost.variants())


def stretched(line: DecodeLine, host_s: float, divisor: float, added_s: float) -> DecodeLine:
    """A line with its device time divided.

    Args:
        line: seconds against context, host time included.
        host_s: the host time in it.
        divisor: of the device time.
        added_s: what is added to the divided device time, host time included.
    """
    return replace(
        line,
        intercepts=tuple((value - host_s) / divisor + added_s for value in line.intercepts),
        slopes=tuple(value / divisor for value in line.slopes),
    )

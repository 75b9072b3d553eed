"""Costs times a factor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from simslm.catalog.work import IterationShape
from simslm.cost.layer import Layer, Maximum
from simslm.cost.model import CostModel, Costs, DecodeLine


class Scaled(Layer):
    """Costs times a factor, power as it is: how a systematic error of a measurement is followed through.

    Args:
        cost: what is scaled.
        factor: more than 0.

    Raises:
        ValueError: it is not.
    """

    def __init__(self, cost: CostModel, factor: float) -> None:
        if not factor > 0:
            raise ValueError(f"costs are scaled by more than 0, not {factor}")
        super().__init__(cost, cost.facts.noting(scaled=factor))
        self._factor = factor

    def _over(self, cost: CostModel) -> Scaled:
        return Scaled(cost, self._factor)

    def _line(self, decode_seqs: int) -> DecodeLine:
        inner = self._cost.decode(decode_seqs)
        intercepts, slopes = (
            tuple(self._factor * value for value in part) for part in (inner.intercepts, inner.slopes)
        )
        return replace(inner, intercepts=intercepts, slopes=slopes)

    def latency_s(self, shape: IterationShape) -> float:
        """Seconds of one iteration; its host time, which takes as long to find, is not needed."""
        if shape.plain_decode:
            return self.decode(shape.decode_seqs).latency_s(shape.decode_ctx_tokens)
        return self._factor * self._cost.latency_s(shape)

    def _seconds(self, shape: IterationShape, seconds: Any, host_s: Any, maximum: Maximum) -> Any:
        del shape, host_s, maximum
        return self._factor * seconds

    def _host(self, shape: IterationShape, host_s: Any) -> Any:
        del shape
        return self._factor * host_s

    def _joules(
        self, shapes: IterationShape, energy_j: np.ndarray, inner: Costs, latency_s: np.ndarray
    ) -> np.ndarray:
        del shapes, inner, latency_s
        return self._factor * energy_j

    def variants(self) -> tuple[()]:
        """None: a scaled cost is a variant itself."""
        return ()

"""Costs times a factor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from simslm.catalog.work import IterationShape
from simslm.cost.decoding import decode_columns
from simslm.cost.model import CostModel, Costs, DecodeLine
from simslm.cost.sharing import DemandModel


class Scaled:
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
        self._cost = cost
        self._factor = factor
        self.source: str = cost.source
        self.engine: str = cost.engine
        self.idle_w: float | None = cost.idle_w
        self.power_note: str = cost.power_note
        self.colocated = cost.colocated
        self.demand: DemandModel | None = getattr(cost, "demand", None)
        self.provenance: dict[str, Any] = {**cost.provenance, "scaled": factor}
        self._lines: dict[int, DecodeLine] = {}

    def decode(self, decode_seqs: int) -> DecodeLine:
        line = self._lines.get(decode_seqs)
        if line is None:
            inner = self._cost.decode(decode_seqs)
            intercepts, slopes = (
                tuple(self._factor * value for value in part) for part in (inner.intercepts, inner.slopes)
            )
            line = self._lines[decode_seqs] = replace(inner, intercepts=intercepts, slopes=slopes)
        return line

    def latency_s(self, shape: IterationShape) -> float:
        if shape.plain_decode:
            return self.decode(shape.decode_seqs).latency_s(shape.decode_ctx_tokens)
        return self._factor * self._cost.latency_s(shape)

    def host_s(self, shape: IterationShape) -> float:
        return self._factor * self._cost.host_s(shape)

    def evaluate(self, shapes: IterationShape) -> Costs:
        inner = self._cost.evaluate(shapes)
        latency = self._factor * inner.latency_s
        decode_columns(self.decode, shapes, latency)
        energy = None if inner.energy_j is None else self._factor * inner.energy_j
        return Costs(latency, self._factor * inner.host_s, energy, inner.in_domain)

    def variants(self) -> tuple[()]:
        """It is one."""
        return ()

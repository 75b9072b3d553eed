"""Costs of the shape that a transform makes of an iteration."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from simslm.catalog.work import IterationShape
from simslm.cost.layer import Layer, Maximum
from simslm.cost.model import CostModel, Costs, DecodeLine
from simslm.cost.sharing import Demand, DemandModel
from simslm.transforms.registry import ShapeTransform


class Reshaped(Layer):
    """A cost that is asked about fewer keys than the cache holds.

    Its prices were measured on dense attention over as many keys. That a sparse kernel reaches the same rate was not
    measured, so no iteration counts as inside the measured domain. Co-located replicas were measured on dense attention
    too: their interference is modelled.

    Args:
        cost: of the shape that the device runs.
        transform: makes that shape of the one that is asked for.
    """

    measured = False

    def __init__(self, cost: CostModel, transform: ShapeTransform) -> None:
        facts = cost.facts.changed(transform.words(), **{transform.key: transform.model_dump()})
        super().__init__(cost, replace(facts, demand=InnerDemand.of(cost, transform), colocated=None))
        self._transform = transform

    def _over(self, cost: CostModel) -> Reshaped:
        return Reshaped(cost, self._transform)

    def latency_s(self, shape: IterationShape) -> float:
        """Seconds of one iteration, host time included."""
        if shape.plain_decode:
            return self.decode(shape.decode_seqs).latency_s(shape.decode_ctx_tokens)
        return self._cost.latency_s(self._transform.shape(shape))

    def _inside(self, shapes: IterationShape) -> Costs:
        return self._cost.evaluate(self._transform.shape(shapes))

    def _seconds(self, shape: IterationShape, seconds: Any, host_s: Any, maximum: Maximum) -> Any:
        del shape, host_s, maximum
        return seconds.copy()  # decode-only rows are written over

    def _line(self, decode_seqs: int) -> DecodeLine:
        """Piece by piece: contexts read are piecewise linear in contexts held, and latency in contexts read."""
        inner = self._cost.decode(decode_seqs)
        knots = sorted({0.0, *self._transform.knots(decode_seqs)})
        knots.append(knots[-1] + max(decode_seqs, 1) * 1024.0)
        read = [self._transform.shape(IterationShape(decode_seqs, knot)).decode_ctx_tokens for knot in knots]
        pieces: list[tuple[float, float, float]] = []
        for i in range(len(knots) - 1):
            last = i == len(knots) - 2
            per_token = (read[i + 1] - read[i]) / (knots[i + 1] - knots[i])
            cuts = [read[i]]
            if per_token > 0:
                cuts += [start for start in inner.starts if start > read[i] and (last or start < read[i + 1])]
            for cut in cuts:
                at = knots[i] + ((cut - read[i]) / per_token if per_token > 0 else 0.0)
                intercept, slope, _ = inner.segment(cut)
                pieces.append((at, intercept + slope * (read[i] - per_token * knots[i]), slope * per_token))
        starts, intercepts, slopes = zip(*pieces, strict=True)
        return DecodeLine(starts, intercepts, slopes)


class InnerDemand:
    """The demand of a changed iteration, from a cost model that has a demand of its own.

    Args:
        cost: knows demand and latency.
        demand: its own.
        transform: makes the shape that ``cost`` is asked about; None where the shape stays.
    """

    def __init__(self, cost: CostModel, demand: DemandModel, transform: ShapeTransform | None = None) -> None:
        self._cost = cost
        self._demand = demand
        self._transform = transform

    @classmethod
    def of(cls, cost: CostModel, transform: ShapeTransform | None = None) -> InnerDemand | None:
        """The demand of a cost model, changed; None where the model has none of its own."""
        return None if cost.demand is None else cls(cost, cost.demand, transform)

    def __call__(self, shape: IterationShape, device_s: float) -> Demand:
        del device_s
        if self._transform is not None:
            shape = self._transform.shape(shape)
        return self._demand(shape, max(self._cost.latency_s(shape) - self._cost.host_s(shape), 1e-12))

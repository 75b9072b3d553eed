"""Costs of the shape that a transform makes of an iteration."""

from __future__ import annotations

from typing import Any

from simslm.catalog.work import IterationShape
from simslm.cost.decoding import decode_columns
from simslm.cost.model import CostModel, Costs, DecodeLine
from simslm.cost.retimed import HostCost
from simslm.cost.sharing import Demand, DemandModel
from simslm.transforms.registry import ShapeTransform


class Reshaped:
    """A cost asked about fewer keys than there are.

    What it answers was measured on dense attention over as many keys: that a sparse kernel reaches its rate was not, so
    nothing counts as inside the measured domain. Co-located replicas were measured as they are: their interference is
    modelled.

    Args:
        cost: of the shape that is run.
        transform: makes it of the shape that is asked for.
    """

    colocated = None

    def __init__(self, cost: HostCost, transform: ShapeTransform) -> None:
        self._cost = cost
        self._transform = transform
        self.source: str = cost.source
        self.engine: str = f"{cost.engine}; {transform.words()}"
        self.idle_w: float | None = cost.idle_w
        self.power_note: str = cost.power_note
        self.demand: DemandModel | None = InnerDemand.of(cost, transform)
        self.provenance: dict[str, Any] = {**cost.provenance, transform.key: transform.model_dump()}
        self._lines: dict[int, DecodeLine] = {}

    def decode(self, decode_seqs: int) -> DecodeLine:
        """The inner line over the contexts that are read."""
        line = self._lines.get(decode_seqs)
        if line is None:
            line = self._lines[decode_seqs] = self._build_line(decode_seqs)
        return line

    def latency_s(self, shape: IterationShape) -> float:
        """Seconds of one iteration, host time included."""
        if shape.plain_decode:
            return self.decode(shape.decode_seqs).latency_s(shape.decode_ctx_tokens)
        return self._cost.latency_s(self._transform.shape(shape))

    def host_s(self, shape: IterationShape) -> float:
        """Host time of one iteration: contexts do not change it."""
        return self._cost.host_s(shape)

    def evaluate(self, shapes: IterationShape) -> Costs:
        """Costs of many iterations at once."""
        inner = self._cost.evaluate(self._transform.shape(shapes))
        latency = inner.latency_s.copy()
        decode_columns(self.decode, shapes, latency)
        return Costs(latency, inner.host_s, inner.energy_j, inner.in_domain & False)

    def variants(self) -> tuple[tuple[CostModel, CostModel], ...]:
        """Those of the inner costs, each reshaped."""
        return tuple(
            (Reshaped(low, self._transform), Reshaped(high, self._transform))
            for low, high in self._cost.variants()
        )

    def _build_line(self, decode_seqs: int) -> DecodeLine:
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


class InnerDemand(DemandModel):
    """What a changed iteration asks of a shared device, by a cost model that knows it of the unchanged one.

    Args:
        cost: knows demand and latency.
        demand: its own.
        transform: makes the shape that ``cost`` is asked about; None where that stays.
    """

    def __init__(self, cost: HostCost, demand: DemandModel, transform: ShapeTransform | None = None) -> None:
        self._cost = cost
        self._demand = demand
        self._transform = transform

    @classmethod
    def of(cls, cost: HostCost, transform: ShapeTransform | None = None) -> InnerDemand | None:
        """None where the cost model does not know."""
        demand = getattr(cost, "demand", None)
        return None if demand is None else cls(cost, demand, transform)

    def __call__(self, shape: IterationShape, device_s: float) -> Demand:
        del device_s
        if self._transform is not None:
            shape = self._transform.shape(shape)
        return self._demand(shape, max(self._cost.latency_s(shape) - self._cost.host_s(shape), 1e-12))

"""Costs of iterations whose work a transform has changed, by the ratio of the roofline's before and after."""

from __future__ import annotations

from typing import Any

import numpy as np

from simslm.catalog.work import IterationShape
from simslm.cost.decoding import decode_columns
from simslm.cost.model import CostModel, Costs, DecodeLine
from simslm.cost.reshaped import InnerDemand
from simslm.cost.retimed import HostCost
from simslm.cost.roofline import Roofline
from simslm.cost.sharing import DemandModel
from simslm.transforms.registry import WorkTransform


class Reworked:
    """A measured or calibrated cost, its parts changed as the roofline's parts change.

    Host time stays. In decode-only iterations the device time at empty caches (weights, head) and what each cached
    token adds (attention) change by the ratio of the roofline's, each by its own; in iterations that prefill or
    verify, the device time changes as a whole. Energy beyond idling changes by the ratio of the roofline's activity.
    The result is no longer measured: no shape is inside the measured domain, and co-located replicas' interference
    is modelled.

    Args:
        cost: what is changed.
        before, after: the roofline of the same model and device, without and with the transform.
        transform: that changes the work.
    """

    colocated = None

    def __init__(self, cost: HostCost, before: Roofline, after: Roofline, transform: WorkTransform) -> None:
        self._cost = cost
        self._before = before
        self._after = after
        self._transform = transform
        self.source: str = cost.source
        self.engine: str = f"{cost.engine}; {transform.words()}"
        self.idle_w: float | None = cost.idle_w
        self.power_note: str = cost.power_note
        self.demand: DemandModel | None = InnerDemand.of(cost)
        self.provenance: dict[str, Any] = {**cost.provenance, transform.key: transform.model_dump()}
        self._lines: dict[int, DecodeLine] = {}

    def decode(self, decode_seqs: int) -> DecodeLine:
        """The inner line with its intercept and its slopes changed."""
        line = self._lines.get(decode_seqs)
        if line is None:
            line = self._lines[decode_seqs] = self._build_line(decode_seqs)
        return line

    def latency_s(self, shape: IterationShape) -> float:
        """Seconds of one iteration, host time included."""
        if shape.plain_decode:
            return self.decode(shape.decode_seqs).latency_s(shape.decode_ctx_tokens)
        host = self._cost.host_s(shape)
        ratio = self._after.device_s(shape, max) / self._before.device_s(shape, max)
        return (self._cost.latency_s(shape) - host) * ratio + host

    def host_s(self, shape: IterationShape) -> float:
        """Host time of one iteration."""
        return self._cost.host_s(shape)

    def evaluate(self, shapes: IterationShape) -> Costs:
        """Costs of many iterations at once."""
        inner = self._cost.evaluate(shapes)
        ratio = self._after.device_s(shapes, np.maximum) / self._before.device_s(shapes, np.maximum)
        latency = (inner.latency_s - inner.host_s) * ratio + inner.host_s
        decode_columns(self.decode, shapes, latency)
        energy = inner.energy_j
        if energy is not None:
            idle_w = self.idle_w or 0.0
            active = energy - idle_w * inner.latency_s
            changed = self._after.activity_s(shapes) / self._before.activity_s(shapes)
            energy = idle_w * latency + active * changed
        return Costs(latency, inner.host_s, energy, inner.in_domain & False)

    def variants(self) -> tuple[tuple[CostModel, CostModel], ...]:
        """Those of the inner costs, each changed; the error of the ratio itself is not known."""
        others = (self._before, self._after, self._transform)
        return tuple((Reworked(low, *others), Reworked(high, *others)) for low, high in self._cost.variants())

    def _build_line(self, decode_seqs: int) -> DecodeLine:
        """Piece by piece between all knots; each begins where the one before ends."""
        lines = [each.decode(decode_seqs) for each in (self._cost, self._before, self._after)]
        inner, before, after = lines
        empty = IterationShape(decode_seqs, 0)
        host = self._cost.host_s(empty)
        ratio = self._after.device_s(empty, max) / self._before.device_s(empty, max)
        starts = sorted({start for line in lines for start in line.starts})
        value = (inner.latency_s(0.0) - host) * ratio + host
        intercepts, slopes = [], []
        for start, until in zip(starts, (*starts[1:], starts[-1]), strict=True):
            slope, was, becomes = (line.segment(start)[1] for line in (inner, before, after))
            slope = slope * (becomes / was) if was > 0 else slope + becomes
            intercepts.append(value - slope * start)
            slopes.append(slope)
            value += slope * (until - start)
        return DecodeLine(tuple(starts), tuple(intercepts), tuple(slopes))

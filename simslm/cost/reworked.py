"""Costs of iterations after a transform changed their work: device time times the roofline's ratio after to before."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from simslm.catalog.work import IterationShape
from simslm.cost.layer import Layer, Maximum
from simslm.cost.model import CostModel, Costs, DecodeLine
from simslm.cost.reshaped import InnerDemand
from simslm.cost.roofline import Roofline
from simslm.transforms.registry import WorkTransform


class Reworked(Layer):
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

    measured = False

    def __init__(self, cost: CostModel, before: Roofline, after: Roofline, transform: WorkTransform) -> None:
        facts = cost.facts.changed(transform.words(), **{transform.key: transform.model_dump()})
        super().__init__(cost, replace(facts, demand=InnerDemand.of(cost), colocated=None))
        self._before = before
        self._after = after
        self._transform = transform

    def _over(self, cost: CostModel) -> Reworked:
        return Reworked(cost, self._before, self._after, self._transform)

    def _seconds(self, shape: IterationShape, seconds: Any, host_s: Any, maximum: Maximum) -> Any:
        ratio = self._after.device_s(shape, maximum) / self._before.device_s(shape, maximum)
        return (seconds - host_s) * ratio + host_s

    def _joules(
        self, shapes: IterationShape, energy_j: np.ndarray, inner: Costs, latency_s: np.ndarray
    ) -> np.ndarray:
        idle_w = self.idle_w or 0.0
        active = energy_j - idle_w * inner.latency_s
        changed = self._after.activity_s(shapes) / self._before.activity_s(shapes)
        return idle_w * latency_s + active * changed

    def _line(self, decode_seqs: int) -> DecodeLine:
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

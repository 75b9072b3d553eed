"""Costs with something else around the device's part: host time, or what the device waits for."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

import numpy as np

from simslm.catalog.work import IterationShape
from simslm.cost.layer import Layer, Maximum
from simslm.cost.model import CostModel, Costs, DecodeLine
from simslm.transforms.registry import TimeTransform


class Retimed(Layer):
    """The device's part of a cost, at least as long as what it waits for, and host time by a transform.

    Energy changes by the idle power times the time gained or lost, when the idle power is known.

    Args:
        cost: whose device time is kept.
        transform: what happens around it.
    """

    def __init__(self, cost: CostModel, transform: TimeTransform) -> None:
        super().__init__(
            cost, cost.facts.changed(transform.words(), **{transform.key: transform.model_dump()})
        )
        self._transform = transform

    def _over(self, cost: CostModel) -> Retimed:
        return Retimed(cost, self._transform)

    def _line(self, decode_seqs: int) -> DecodeLine:
        """The inner line, lowered by the inner host time and raised by the new one, bent where the device waits."""
        inner = self._cost.decode(decode_seqs)
        shape = IterationShape(decode_seqs, 0)
        old, new = self._cost.host_s(shape), self.host_s(shape)
        line = replace(inner, intercepts=tuple((intercept - old) + new for intercept in inner.intercepts))
        least = self._transform.device_at_least_s(shape)
        return line if least is None else raised(line, new + least)

    def _seconds(self, shape: IterationShape, seconds: Any, host_s: Any, maximum: Maximum) -> Any:
        device = seconds - host_s
        least = self._transform.device_at_least_s(shape)
        return (device if least is None else maximum(device, least)) + self._transform.host_s(shape, host_s)

    def _host(self, shape: IterationShape, host_s: Any) -> Any:
        return self._transform.host_s(shape, host_s)

    def _joules(
        self, shapes: IterationShape, energy_j: np.ndarray, inner: Costs, latency_s: np.ndarray
    ) -> np.ndarray:
        del shapes
        return energy_j + (self.idle_w or 0.0) * (latency_s - inner.latency_s)


def raised(line: DecodeLine, least_s: float) -> DecodeLine:
    """The longer of a line and a constant."""
    pieces: list[tuple[float, float, float]] = []
    ends = (*line.starts[1:], inf)
    for start, end, intercept, slope in zip(line.starts, ends, line.intercepts, line.slopes, strict=True):
        cuts = [start]
        if slope and start < (crossing := (least_s - intercept) / slope) < end:
            cuts.append(crossing)
        for cut, until in zip(cuts, (*cuts[1:], end), strict=True):
            inside = cut + 1.0 if until == inf else (cut + until) / 2
            piece = (intercept, slope) if intercept + slope * inside >= least_s else (least_s, 0.0)
            if not pieces or pieces[-1][1:] != piece:
                pieces.append((cut, *piece))
    starts, intercepts, slopes = zip(*pieces, strict=True)
    return DecodeLine(starts, intercepts, slopes)

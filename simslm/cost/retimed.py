"""Costs with something else around the device's part: host time, or what the device waits for."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any, Protocol

import numpy as np

from simslm.catalog.work import IterationShape
from simslm.cost.decoding import decode_columns
from simslm.cost.model import CostModel, Costs, DecodeLine
from simslm.cost.sharing import DemandModel
from simslm.transforms.registry import TimeTransform


class HostCost(CostModel, Protocol):
    """A cost model that tells host time of one iteration; it must not depend on contexts."""

    def host_s(self, shape: IterationShape) -> float:
        """Host time of one iteration, in seconds."""
        ...


class Retimed:
    """The device's part of a cost, at least as long as what it waits for, and host time by a transform.

    Energy changes by the idle power times the time gained or lost, when the idle power is known.

    Args:
        cost: whose device time is kept.
        transform: what happens around it.
    """

    def __init__(self, cost: HostCost, transform: TimeTransform) -> None:
        self._cost = cost
        self._transform = transform
        self.source: str = cost.source
        self.engine: str = f"{cost.engine}; {transform.words()}"
        self.idle_w: float | None = cost.idle_w
        self.power_note: str = cost.power_note
        self.colocated = cost.colocated
        self.demand: DemandModel | None = getattr(cost, "demand", None)
        self.provenance: dict[str, Any] = {**cost.provenance, transform.key: transform.model_dump()}
        self._lines: dict[int, DecodeLine] = {}

    def decode(self, decode_seqs: int) -> DecodeLine:
        """The inner line, lowered by the inner host time and raised by the new one, bent where the device waits."""
        line = self._lines.get(decode_seqs)
        if line is None:
            inner = self._cost.decode(decode_seqs)
            shape = IterationShape(decode_seqs, 0)
            old, new = self._cost.host_s(shape), self.host_s(shape)
            intercepts = tuple((intercept - old) + new for intercept in inner.intercepts)
            line = replace(inner, intercepts=intercepts)
            least = self._transform.device_at_least_s(shape)
            if least is not None:
                line = raised(line, new + least)
            self._lines[decode_seqs] = line
        return line

    def latency_s(self, shape: IterationShape) -> float:
        """Seconds of one iteration, the new host time included."""
        if shape.plain_decode:
            return self.decode(shape.decode_seqs).latency_s(shape.decode_ctx_tokens)
        device = self._cost.latency_s(shape) - self._cost.host_s(shape)
        least = self._transform.device_at_least_s(shape)
        return (device if least is None else max(device, least)) + self.host_s(shape)

    def host_s(self, shape: IterationShape) -> Any:
        """The new host time of one iteration, in seconds."""
        return self._transform.host_s(shape, self._cost.host_s(shape))

    def evaluate(self, shapes: IterationShape) -> Costs:
        """Costs of many iterations at once."""
        inner = self._cost.evaluate(shapes)
        host = self._transform.host_s(shapes, inner.host_s)
        device = inner.latency_s - inner.host_s
        least = self._transform.device_at_least_s(shapes)
        latency = (device if least is None else np.maximum(device, least)) + host
        decode_columns(self.decode, shapes, latency)
        energy = inner.energy_j
        if energy is not None:
            energy = energy + (self.idle_w or 0.0) * (latency - inner.latency_s)
        return Costs(latency, host, energy, inner.in_domain)

    def variants(self) -> tuple[tuple[CostModel, CostModel], ...]:
        """Those of the inner costs, each retimed."""
        return tuple(
            (Retimed(low, self._transform), Retimed(high, self._transform))
            for low, high in self._cost.variants()
        )


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

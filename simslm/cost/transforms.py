"""Changes to a cost model, each a cost model itself; scalar and column answers stay bitwise equal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

from simslm.catalog.work import IterationShape
from simslm.cost.decoding import decode_columns
from simslm.cost.model import CostModel, Costs, DecodeLine
from simslm.cost.sharing import DemandModel
from simslm.scenario.cost import HostTime


class HostCost(CostModel, Protocol):
    """A cost model that tells host time of one iteration; it must not depend on contexts."""

    def host_s(self, shape: IterationShape) -> float:
        """Host time of one iteration, in seconds."""
        ...


class HostReplaced:
    """Another engine's host time in place of the measured one; device time stays.

    Energy changes by the idle power times the time gained or lost, when the idle power is known.

    Args:
        cost: whose device time is kept.
        host: the host time of the engine in question.
    """

    def __init__(self, cost: HostCost, host: HostTime) -> None:
        self._cost = cost
        self._host = host
        self.source: str = cost.source
        self.engine: str = f"{cost.engine}; host time {host.fixed_s:g} s + {host.per_seq_s:g} s per sequence"
        self.idle_w: float | None = cost.idle_w
        self.power_note: str = cost.power_note
        self.colocated = cost.colocated
        self.demand: DemandModel | None = getattr(cost, "demand", None)
        self.provenance: dict[str, Any] = {**cost.provenance, "host": host.model_dump()}
        self._lines: dict[int, DecodeLine] = {}

    def decode(self, decode_seqs: int) -> DecodeLine:
        """The inner line, lowered by the inner host time and raised by the new one."""
        line = self._lines.get(decode_seqs)
        if line is None:
            inner = self._cost.decode(decode_seqs)
            shape = IterationShape(decode_seqs, 0)
            old, new = self._cost.host_s(shape), self.host_s(shape)
            intercepts = tuple((intercept - old) + new for intercept in inner.intercepts)
            line = self._lines[decode_seqs] = replace(inner, intercepts=intercepts)
        return line

    def latency_s(self, shape: IterationShape) -> float:
        """Seconds of one iteration, the new host time included."""
        if not shape.prefill_tokens:
            return self.decode(shape.decode_seqs).latency_s(shape.decode_ctx_tokens)
        return (self._cost.latency_s(shape) - self._cost.host_s(shape)) + self.host_s(shape)

    def host_s(self, shape: IterationShape) -> Any:
        """The new host time of one iteration (or of an array of them), in seconds."""
        return self._host.fixed_s + self._host.per_seq_s * (shape.decode_seqs + shape.prefill_seqs)

    def evaluate(self, shapes: IterationShape) -> Costs:
        """Costs of many iterations at once."""
        inner = self._cost.evaluate(shapes)
        host = self.host_s(shapes)
        latency = (inner.latency_s - inner.host_s) + host
        decode_columns(self.decode, shapes, latency)
        energy = inner.energy_j
        if energy is not None:
            energy = energy + (self.idle_w or 0.0) * (latency - inner.latency_s)
        return Costs(latency, host, energy, inner.in_domain)

    def variants(self) -> tuple[tuple[CostModel, CostModel], ...]:
        """Those of the inner costs, each with the new host time."""
        return tuple(
            (HostReplaced(low, self._host), HostReplaced(high, self._host))
            for low, high in self._cost.variants()
        )


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
        if not shape.prefill_tokens:
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

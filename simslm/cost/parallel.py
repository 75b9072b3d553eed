"""Tensor parallelism: one replica over several devices, its device time divided, its sums exchanged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from simslm.catalog.architecture import Architecture, element_bytes
from simslm.catalog.devices import Device
from simslm.catalog.work import IterationShape
from simslm.cost.decoding import decode_columns
from simslm.cost.model import CostModel, Costs, DecodeLine
from simslm.scenario.cost import AllReduce


class TensorParallel:
    """The cost of a model split over ``size`` devices (Megatron-LM, arXiv:1909.08053, section 3).

    Every device computes ``1 / size`` of each matrix product and of each attention, so device time is divided by
    ``size``; two all-reduces per layer add up the hidden states of all tokens. A ring all-reduce of ``b`` bytes
    takes ``latency + 2 (size - 1) / size * b / bandwidth`` (Patarasu & Yuan 2009). Host time stays. None of this
    was measured: iterations count as outside the measured domain.

    Args:
        cost: of one device.
        architecture, device, dtype: what is split, and the link between its parts.
        size: devices.
        options: latency of an all-reduce and the share of the link's bandwidth it reaches.
    """

    def __init__(
        self,
        cost: CostModel,
        architecture: Architecture,
        device: Device,
        dtype: str,
        size: int,
        options: AllReduce,
    ) -> None:
        self._cost = cost
        self._size = size
        self._split = (architecture, device, dtype, size, options)
        layers, hidden = architecture.num_layers, architecture.hidden_size
        link = device.peer_link_bytes_per_s * options.bandwidth_efficiency
        moved = 2 * (size - 1) / size * hidden * element_bytes(dtype)
        self._fixed_s = 2 * layers * options.latency_s
        self._per_token_s = 2 * layers * moved / link
        self.source: str = cost.source
        self.engine: str = cost.engine
        self.idle_w: float | None = None if cost.idle_w is None else cost.idle_w * size
        self.power_note: str = cost.power_note
        self.colocated = cost.colocated
        self.provenance: dict[str, Any] = cost.provenance | {"tensor_parallel_size": size}
        self._lines: dict[int, DecodeLine] = {}

    def decode(self, decode_seqs: int) -> DecodeLine:
        """The inner line with its device part divided, and what the exchange adds."""
        line = self._lines.get(decode_seqs)
        if line is None:
            inner = self._cost.decode(decode_seqs)
            host = self._cost.host_s(IterationShape(decode_seqs, 0))
            added = host + self._exchange_s(decode_seqs)
            line = self._lines[decode_seqs] = replace(
                inner,
                intercepts=tuple((value - host) / self._size + added for value in inner.intercepts),
                slopes=tuple(value / self._size for value in inner.slopes),
            )
        return line

    def latency_s(self, shape: IterationShape) -> float:
        """Seconds of one iteration, host time and exchange included."""
        if shape.plain_decode:
            return self.decode(shape.decode_seqs).latency_s(shape.decode_ctx_tokens)
        host = self._cost.host_s(shape)
        added = host + self._exchange_s(shape.new_tokens)
        return (self._cost.latency_s(shape) - host) / self._size + added

    def host_s(self, shape: IterationShape) -> float:
        """Host time of one iteration: that of one device."""
        return self._cost.host_s(shape)

    def evaluate(self, shapes: IterationShape) -> Costs:
        """Costs of many iterations; energy is that of the same work, and of all devices idling meanwhile."""
        inner = self._cost.evaluate(shapes)
        added = inner.host_s + self._exchange_s(shapes.new_tokens)
        latency = (inner.latency_s - inner.host_s) / self._size + added
        decode_columns(self.decode, shapes, latency)
        energy = inner.energy_j
        if energy is not None and self._cost.idle_w is not None and self.idle_w is not None:
            energy = energy - self._cost.idle_w * inner.latency_s + self.idle_w * latency
        return Costs(latency, inner.host_s, energy, inner.in_domain & False)

    def variants(self) -> tuple[tuple[CostModel, CostModel], ...]:
        """Those of one device, each split; the error of the splitting itself is not known."""
        return tuple(
            (TensorParallel(low, *self._split), TensorParallel(high, *self._split))
            for low, high in self._cost.variants()
        )

    def _exchange_s(self, tokens: Any) -> Any:
        return self._fixed_s + self._per_token_s * tokens

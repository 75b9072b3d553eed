"""Tensor parallelism: one replica over several devices, its device time divided, its sums exchanged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from simslm.catalog.architecture import Architecture, element_bytes
from simslm.catalog.devices import Device
from simslm.catalog.work import IterationShape
from simslm.cost.layer import Layer, Maximum, stretched
from simslm.cost.model import CostModel, Costs, DecodeLine
from simslm.scenario.cost import AllReduce


class TensorParallel(Layer):
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

    measured = False

    def __init__(
        self,
        cost: CostModel,
        architecture: Architecture,
        device: Device,
        dtype: str,
        size: int,
        options: AllReduce,
    ) -> None:
        facts = replace(
            cost.facts.noting(tensor_parallel_size=size),
            idle_w=None if cost.idle_w is None else cost.idle_w * size,
            demand=None,
        )
        super().__init__(cost, facts)
        self._size = size
        self._split = (architecture, device, dtype, size, options)
        layers, hidden = architecture.num_layers, architecture.hidden_size
        link = device.peer_link_bytes_per_s * options.bandwidth_efficiency
        moved = 2 * (size - 1) / size * hidden * element_bytes(dtype)
        self._fixed_s = 2 * layers * options.latency_s
        self._per_token_s = 2 * layers * moved / link

    def _over(self, cost: CostModel) -> TensorParallel:
        return TensorParallel(cost, *self._split)

    def _line(self, decode_seqs: int) -> DecodeLine:
        """The inner line with its device part divided, and what the exchange adds."""
        host = self._cost.host_s(IterationShape(decode_seqs, 0))
        added = host + self._exchange_s(decode_seqs)
        return stretched(self._cost.decode(decode_seqs), host, self._size, added)

    def _seconds(self, shape: IterationShape, seconds: Any, host_s: Any, maximum: Maximum) -> Any:
        del maximum
        return (seconds - host_s) / self._size + (host_s + self._exchange_s(shape.new_tokens))

    def _joules(
        self, shapes: IterationShape, energy_j: np.ndarray, inner: Costs, latency_s: np.ndarray
    ) -> np.ndarray:
        """That of the same work, and of all devices idling meanwhile."""
        del shapes
        if self._cost.idle_w is None or self.idle_w is None:
            return energy_j
        return energy_j - self._cost.idle_w * inner.latency_s + self.idle_w * latency_s

    def _exchange_s(self, tokens: Any) -> Any:
        return self._fixed_s + self._per_token_s * tokens

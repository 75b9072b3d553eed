"""The roofline: what an iteration costs if every operator runs at a fixed fraction of the device's peaks.

Each operator takes the longer of its arithmetic and its memory traffic (Williams, Waterman & Patterson 2009,
"Roofline"), operators follow one another, and host time comes on top. Nothing is measured: ``source`` says
``roofline``, no shape is in the measured domain, and power is assumed from the activity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from simslm.catalog.architecture import Architecture
from simslm.catalog.devices import Device
from simslm.catalog.work import IterationShape, Work, WorkModel
from simslm.cost.decoding import decode_columns, line_through
from simslm.cost.facts import Facts
from simslm.cost.model import CostModel, Costs, DecodeLine
from simslm.scenario.cost import RooflineOptions
from simslm.transforms.registry import Served, Transform
from simslm.transforms.work import TransformedWork


class Parts(NamedTuple):
    """Seconds of one iteration (or arrays of them), by what they are spent on."""

    linear: Any
    head: Any
    embedding: Any
    decode: Any
    prefill: Any
    host: Any

    @property
    def base(self) -> Any:
        """Device time but for attention: what is left when contexts vanish."""
        return self.linear + self.head + self.embedding

    @property
    def device(self) -> Any:
        """Everything but host time."""
        return self.base + self.decode + self.prefill


class Roofline(CostModel):
    """Iteration costs of a model on a device from their published figures alone.

    The defaults of ``options`` and where they come from:

    * ``efficiency.compute`` 0.6 and ``efficiency.bandwidth`` 0.8: typical of what matrix products of the
      sizes that small models have, and streaming kernels, reach of the peak. Assumed.
    * ``host.fixed_s`` 0.5 ms and ``host.per_seq_s`` 30 µs: vLLM 0.6.3 on an H100 spends 0.45 to 0.6 ms plus
      24 to 35 µs for each sequence (Recasens et al. 2025, "Mind the Memory Gap").
    * ``power.compute`` 1.0 and ``power.memory`` 0.5 of the span between idle and maximum power: prompt phases
      come close to the limit, token phases stay far below it (Patel et al. 2024, "Characterizing Power
      Management Opportunities for LLMs in the Cloud"). Assumed, not measured.

    Args:
        architecture: the model.
        device: its peaks and power.
        dtype: data type of weights and KV cache.
        options: the assumptions; defaults when None.
        transforms: what changes shapes and work, applied in order.

    Raises:
        UsageError: the device has no peak for the data type.
    """

    def __init__(
        self,
        architecture: Architecture,
        device: Device,
        dtype: str,
        options: RooflineOptions | None = None,
        transforms: Sequence[Transform] = (),
    ) -> None:
        self.options = options or RooflineOptions()
        provenance: dict[str, Any] = {
            "source": "roofline",
            "model": architecture.name,
            "dtype": dtype,
            "device": device.name,
            "options": self.options.model_dump(),
            "power": "assumed from arithmetic and memory activity",
            **{each.key: each.model_dump() for each in transforms},
        }
        super().__init__(
            Facts(
                source="roofline",
                engine="; ".join(["none: host time is assumed", *(each.words() for each in transforms)]),
                idle_w=device.idle_w,
                power_note="",
                provenance=provenance,
            )
        )
        flops_per_s = device.flops_per_s(dtype) * self.options.efficiency.compute
        bytes_per_s = device.memory_bandwidth_bytes_per_s * self.options.efficiency.bandwidth
        self._work = WorkModel(architecture, dtype, flops_per_s, bytes_per_s)
        self._plain = self._work.plain and not transforms
        self._seconds: WorkModel | TransformedWork = self._work
        if transforms:
            served = Served.on(architecture, dtype, device, 1.0 / flops_per_s, 1.0 / bytes_per_s)
            self._seconds = TransformedWork(self._work, transforms, served)
        self._fixed_s, self._per_seq_s = self.options.host.fixed_s, self.options.host.per_seq_s
        self._dynamic_w = device.max_w - device.idle_w

    def latency_s(self, shape: IterationShape) -> float:
        """Seconds of one iteration, host time included.

        Asked once for every iteration that prefills, so models without windows have the sum of :meth:`parts`
        written out: three times as fast, and the same bits.
        """
        seqs, context, prompts, tokens, cached, pairs, _, drafted, _ = shape
        if not tokens and not drafted:
            return self.decode(seqs).latency_s(context)
        if drafted or not self._plain:
            parts = self._parts(shape, max)
            return parts.device + parts.host
        work = self._work
        total, rows, keys = seqs + tokens, seqs + prompts, context + seqs
        linear, head = total * work.linear_flops, rows * work.head_flops
        decode, read = keys * work.full_flops, keys * work.full_bytes + seqs * work.all_bytes
        prefill = pairs * work.full_flops
        cache = (cached + tokens) * work.full_bytes + tokens * work.all_bytes
        return (
            (linear if linear > work.linear_bytes else work.linear_bytes)
            + (head if head > work.head_bytes else work.head_bytes)
            + total * work.embedding_bytes
            + (decode if decode > read else read)
            + (prefill if prefill > cache else cache)
            + (self._fixed_s + self._per_seq_s * rows)
        )

    def host_s(self, shape: IterationShape) -> float:
        """Host time of one iteration, in seconds."""
        return self._fixed_s + self._per_seq_s * (shape.decode_seqs + shape.prefill_seqs)

    def evaluate(self, shapes: IterationShape) -> Costs:
        """Costs of many iterations; energy is assumed, and nothing is in the measured domain."""
        parts = self.parts(shapes)
        latency = parts.device + parts.host
        decode_columns(self.decode, shapes, latency)
        energy = self._energy_j(self._seconds(shapes), latency)
        return Costs(latency, parts.host, energy, np.zeros(len(latency), dtype=bool))

    def variants(self) -> tuple[()]:
        """Nothing was measured, so nothing is known of the error."""
        return ()

    def device_s(self, shape: IterationShape, maximum: Any) -> Any:
        """Seconds of one iteration but for host time, with the ``max`` of numbers or of arrays."""
        return self._parts(shape, maximum).device

    def activity_s(self, shapes: IterationShape) -> np.ndarray:
        """Seconds at full dynamic power that the work of many iterations draws."""
        return self._activity_s(self._seconds(shapes))

    def parts(self, shapes: IterationShape) -> Parts:
        """Seconds by what they are spent on, for arrays of shapes."""
        return self._parts(shapes, np.maximum)

    def _parts(self, shape: IterationShape, maximum: Any) -> Parts:
        work = self._seconds(shape)
        return Parts(
            linear=maximum(work.linear_flops, work.linear_bytes),
            head=maximum(work.head_flops, work.head_bytes),
            embedding=work.embedding_bytes,
            decode=maximum(work.decode_flops, work.decode_bytes),
            prefill=maximum(work.prefill_flops, work.prefill_bytes),
            host=self.host_s(shape),
        )

    def _line(self, decode_seqs: int) -> DecodeLine:
        """Through the contexts where attention's slope may change: full windows, and memory to arithmetic."""
        knots = sorted({0.0, *self._seconds.knots(decode_seqs)})
        knots.append(knots[-1] + max(decode_seqs, 1) * 1024.0)
        ends: list[float | None] = [*knots[1:], None]
        crossings = [self._crossing(decode_seqs, *span) for span in zip(knots, ends, strict=True)]
        knots.extend(at for at in crossings if at is not None)
        contexts = np.array(sorted(set(knots)))
        contexts = np.append(contexts, contexts[-1] + max(decode_seqs, 1) * 1024.0)
        parts = self.parts(IterationShape(np.full(len(contexts), decode_seqs), contexts, 0, 0, 0, 0.0))
        return line_through(contexts, parts.device + parts.host)

    def _crossing(self, decode_seqs: int, low: float, high: float | None) -> float | None:
        """Where decode attention turns from memory- to compute-bound within ``(low, high)``, if it does."""
        end = low + max(decode_seqs, 1) * 1024.0 if high is None else high
        first, last = (self._gap(IterationShape(decode_seqs, at)) for at in (low, end))
        slope = (last - first) / (end - low)
        if slope == 0.0:
            return None
        at = low - first / slope
        return at if at > low and (high is None or at < high) else None

    def _gap(self, shape: IterationShape) -> float:
        work = self._seconds(shape)
        return work.decode_flops - work.decode_bytes

    def _energy_j(self, busy: Work, latency: np.ndarray) -> np.ndarray:
        """Joules, of the seconds that arithmetic and memory would each take alone."""
        return (self.idle_w or 0.0) * latency + self._dynamic_w * np.minimum(self._activity_s(busy), latency)

    def _activity_s(self, busy: Work) -> np.ndarray:
        shares = self.options.power
        return shares.compute * busy.flops + shares.memory * busy.bytes

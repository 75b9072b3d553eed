"""The cost of an iteration from a dozen physical terms, fitted to end-to-end runs (:mod:`simslm.calibration`).

Work comes from the architecture, peaks from the device, and the terms say how much of the peaks is reached and
what comes on top. An iteration takes

    host + host_per_seq · rows + max(device, launches)

``device`` is linear layers and head (the longer of arithmetic and weight traffic, see :func:`knee`), reading keys
and values, the latency of the keys one after the other, prompt attention, and a fixed time per layer. An iteration
that decodes only replays a CUDA graph, padded to the next captured batch size; one that prefills, verifies drafted
tokens, or is larger than any captured batch, is launched kernel by kernel: it takes at least ``launch`` per layer, and
on the same thread ``host_per_seq`` for each output of the iteration before, which graphs hide behind the device. These
are the rules of vLLM's V0 engine (vllm/worker/model_runner.py: ``_get_graph_batch_size``, ``async_callback``).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp
from typing import Any

import numpy as np

from simslm.catalog.architecture import Architecture
from simslm.catalog.devices import Device
from simslm.catalog.work import IterationShape, Work, work_model
from simslm.cost.decoding import decode_columns, line_through
from simslm.cost.facts import Facts
from simslm.cost.model import CostModel, Costs, DecodeLine
from simslm.cost.sharing import Demand
from simslm.errors import TraceError
from simslm.traces.files import Trace
from simslm.traces.terms import POWER, TERMS, read_terms

LARGEST_GRAPH = 256
"""Most sequences of a captured batch in vLLM 0.6.3: 1, 2, 4 and every multiple of 8 up to it."""

KNEE = 0.25
"""How much longer than either a kernel takes whose arithmetic and traffic are equal, see :func:`knee`."""

Domain = Mapping[str, tuple[float, float]]
"""Lowest and highest ``decode_seqs``, mean ``context`` and ``prefill_tokens`` of the iterations calibrated on."""


def captured(seqs: Any) -> Any:
    """The batch size a decode iteration is padded to; beyond the largest graph, its own."""
    padded = ((seqs + 7) // 8) * 8
    small = (seqs <= 1) * 1 + ((seqs > 1) & (seqs <= 2)) * 2 + ((seqs > 2) & (seqs <= 4)) * 4
    return (
        (seqs <= 4) * small + ((seqs > 4) & (seqs <= LARGEST_GRAPH)) * padded + (seqs > LARGEST_GRAPH) * seqs
    )


def knee(arithmetic: Any, traffic: Any, maximum: Any) -> Any:
    """Seconds of kernels that overlap arithmetic and traffic, but not perfectly where both take long.

    ``max · (1 + KNEE · (min / max)³)``: the roofline away from its ridge, 25 % above it on the ridge, close to the
    3-norm of both; made of multiplications only, so that scalars and arrays agree to the bit.
    """
    most = maximum(arithmetic, traffic)
    ratio = (arithmetic + traffic - most) / most
    return most * (1.0 + KNEE * (ratio * ratio * ratio))


class KernelDemand:
    """What an iteration asks of a shared device: all of it while kernels run, nothing between them.

    The terms are what kernels reach with the device to themselves, so two sets of kernels together take as long as
    one after the other, whichever resource bounds each: replicas win back host time and the gaps of launches, and
    nothing else. (Two replicas of OPT-2.7B under MPS on an H100 win 21 to 27 %, and one leaves the device idle for 19
    to 22 % of the time: Recasens et al. 2025, published raw results.)

    Args:
        cost: of the replica alone.
    """

    def __init__(self, cost: PhysicalCost) -> None:
        self._cost = cost

    def __call__(self, shape: IterationShape, device_s: float) -> Demand:
        share = min(1.0, self._cost.kernels_s(shape) / device_s)
        return Demand(share, share)


class PhysicalCost(CostModel):
    """Iteration costs from terms.

    Args:
        terms: values by name, see :data:`simslm.traces.terms.TERMS`.
        architecture, device, dtype: what is simulated.
        engine: name and version of the engine that was calibrated.
        domain: what was calibrated on; None when nothing was.
        covariance: of the logarithms of some terms: their names, and the matrix; None when unknown.
        provenance: goes into the manifest.
    """

    def __init__(
        self,
        terms: Mapping[str, float],
        architecture: Architecture,
        device: Device,
        dtype: str,
        *,
        engine: str = "",
        domain: Domain | None = None,
        covariance: tuple[tuple[str, ...], np.ndarray] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            Facts(
                source="calibrated",
                engine=engine,
                idle_w=terms.get("idle_power"),
                power_note="" if "idle_power" in terms else "the calibrated runs had no power",
                provenance=dict(provenance or {}),
                demand=KernelDemand(self),
            )
        )
        self.terms = {"key": 0.0, "startup": 0.0, **terms}
        self.covariance = covariance
        self.domain = domain
        self.architecture, self.device = architecture, device
        self._made_of = (architecture, device, dtype)
        self._work = work_model(architecture, dtype)
        self._layers = architecture.num_layers
        self._window = float(architecture.sliding_window or 0)
        peak, bandwidth = device.flops_per_s(dtype), device.memory_bandwidth_bytes_per_s
        self._flops_per_s = peak * terms["compute"]
        self._attention_flops_per_s = peak * terms["prefill_attention"]
        self._bytes_per_s = bandwidth * terms["weight_bandwidth"]
        self._kv_bytes_per_s = bandwidth * terms["kv_bandwidth"]
        self._key_s = self._layers * self.terms["key"]
        self._layer_s = self._layers * terms["layer"]
        self._launch_s = self._layers * terms["launch"]
        self._max_w = device.max_w

    def latency_s(self, shape: IterationShape) -> float:
        """Seconds of one iteration, host time included."""
        if shape.plain_decode:
            return self.decode(shape.decode_seqs).latency_s(shape.decode_ctx_tokens)
        return self._latency(shape, max)

    def host_s(self, shape: IterationShape) -> float:
        """Seconds of one iteration in which no kernel runs."""
        rows = shape.decode_seqs + shape.prefill_seqs
        return self.terms["host"] + self.terms["host_per_seq"] * rows

    def evaluate(self, shapes: IterationShape) -> Costs:
        """Costs of many iterations; energy is None when the calibrated runs had no power."""
        latency = self._latency(shapes, np.maximum)
        decode_columns(self.decode, shapes, latency)
        host = self.host_s(shapes) + np.zeros_like(latency)
        energy = self._energy(shapes, latency, host) if self.idle_w is not None else None
        return Costs(latency, host, energy, self._inside(shapes))

    def latencies_s(self, shapes: IterationShape) -> np.ndarray:
        """Latencies of many iterations by the formula itself; the lines of :meth:`evaluate` are the same to rounding.

        A fit prices shapes with new terms each time, for which it would build all lines anew.
        """
        return self._latency(shapes, np.maximum)

    def kernels_s(self, shape: IterationShape) -> float:
        """Seconds of one iteration in which kernels run, without waiting for launches."""
        return self._device(shape, max)

    def variants(self) -> tuple[tuple[PhysicalCost, PhysicalCost], ...]:
        """Along the principal axes of the covariance of the terms' logarithms; none where it is not known."""
        if self.covariance is None:
            return ()
        names, covariance = self.covariance
        variances, axes = np.linalg.eigh(covariance)
        steps = [
            axis * np.sqrt(variance) for variance, axis in zip(variances, axes.T, strict=True) if variance > 0
        ]
        return tuple((self._moved(names, -step), self._moved(names, step)) for step in steps)

    def _moved(self, names: tuple[str, ...], step: np.ndarray) -> PhysicalCost:
        """The same with the logarithms of some terms changed, as far as physics allows."""
        moved = {
            name: self.terms[name] * exp(change) for name, change in zip(names, step.tolist(), strict=True)
        }
        return self.with_terms({name: min(value, TERMS[name].high) for name, value in moved.items()})

    def with_terms(self, changed: Mapping[str, float]) -> PhysicalCost:
        """The same with some terms changed."""
        return PhysicalCost(
            {**self.terms, **changed},
            *self._made_of,
            engine=self.engine,
            domain=self.domain,
            covariance=self.covariance,
            provenance=self.provenance,
        )

    def _latency(self, shape: IterationShape, maximum: Any) -> Any:
        device = self._device(shape, maximum)
        eager = (shape.prefill_tokens + shape.draft_tokens > 0) | (shape.decode_seqs > LARGEST_GRAPH)
        unread = maximum(shape.decode_seqs, shape.unread_seqs)
        launches = eager * (self._launch_s + self.terms["host_per_seq"] * unread)
        return self.host_s(shape) + maximum(device, launches)

    def _device(self, shape: IterationShape, maximum: Any) -> Any:
        """Seconds in which kernels run."""
        work = self._work(shape)
        eager = shape.prefill_tokens + shape.draft_tokens > 0
        tokens = eager * shape.new_tokens + (1 - eager) * captured(shape.decode_seqs)
        linear = knee(
            tokens * self._work.linear_flops / self._flops_per_s,
            work.linear_bytes / self._bytes_per_s,
            maximum,
        )
        head = knee(work.head_flops / self._flops_per_s, work.head_bytes / self._bytes_per_s, maximum)
        keys = self._key_s * (shape.decode_ctx_tokens / maximum(shape.decode_seqs, 1))
        attention = work.decode_bytes / self._kv_bytes_per_s + keys
        prompts = maximum(
            work.prefill_flops / self._attention_flops_per_s, work.prefill_bytes / self._kv_bytes_per_s
        )
        return linear + head + attention + prompts + self._layer_s

    def _line(self, decode_seqs: int) -> DecodeLine:
        """Through the contexts where the slope may change: full windows, and where the device outlasts launches."""
        full = max(decode_seqs * (self._window - 1.0), 0.0)
        knots = sorted({0.0, full})
        knots += [
            crossing for at in tuple(knots) if (crossing := self._outlasts(decode_seqs, at)) is not None
        ]
        contexts = np.array(sorted(set(knots)))
        contexts = np.append(contexts, contexts[-1] + max(decode_seqs, 1) * 1024.0)
        shapes = IterationShape(np.full(len(contexts), decode_seqs), contexts, 0, 0, 0, 0.0)
        return line_through(contexts, self._latency(shapes, np.maximum))

    def _outlasts(self, decode_seqs: int, start: float) -> float | None:
        """The context beyond ``start`` from which a batch without graph is bound by the device, if there is one."""
        if decode_seqs <= LARGEST_GRAPH:
            return None
        launches = self._launch_s + self.terms["host_per_seq"] * decode_seqs
        ends = (start, start + decode_seqs * 1024.0)
        first, last = (self._device(IterationShape(decode_seqs, at), max) - launches for at in ends)
        if first >= 0 or last <= first:
            return None
        return start - first * (ends[1] - ends[0]) / (last - first)

    def _energy(self, shapes: IterationShape, latency: np.ndarray, host: np.ndarray) -> np.ndarray:
        """Idle power all the time, and what kernels, bytes and operations add; never beyond the power limit."""
        work: Work = self._work(shapes)
        terms = self.terms
        energy = terms["idle_power"] * latency + terms["active_power"] * (latency - host)
        energy = energy + terms["byte_energy"] * (work.bytes - work.decode_bytes)
        energy = energy + terms["kv_byte_energy"] * work.decode_bytes + terms["flop_energy"] * work.flops
        return np.minimum(energy, self._max_w * latency)

    def _inside(self, shapes: IterationShape) -> np.ndarray:
        seqs, tokens = np.asarray(shapes.decode_seqs), np.asarray(shapes.prefill_tokens)
        if self.domain is None:
            return np.zeros(np.broadcast(seqs, tokens).shape, dtype=bool)
        context = shapes.decode_ctx_tokens / np.maximum(seqs, 1)
        inside = (seqs <= self.domain["decode_seqs"][1]) & (tokens <= self.domain["prefill_tokens"][1])
        low, high = self.domain["context"]
        return inside & ((seqs == 0) | ((context >= low) & (context <= high)))


def physical_cost(trace: Trace, architecture: Architecture, device: Device, dtype: str) -> PhysicalCost:
    """The cost model of a calibrated trace.

    Raises:
        TraceError: its terms or its provenance are not as they must be.
    """
    terms, provenance = read_terms(trace), trace.provenance
    where = str(trace.path)
    try:
        domain = {name: (float(low), float(high)) for name, (low, high) in provenance["domain"].items()}
        names = tuple(provenance["covariance"]["terms"])
        matrix = np.array(provenance["covariance"]["log"], dtype=float)
        if set(domain) != {"decode_seqs", "context", "prefill_tokens"} or matrix.shape != (len(names),) * 2:
            raise ValueError
        if not set(names) <= set(terms) or set(names) & set(POWER) or not np.isfinite(matrix).all():
            raise ValueError
    except (KeyError, TypeError, ValueError, AttributeError):
        raise TraceError(
            "its provenance lacks the domain or the covariance of a calibration",
            where=where,
            remedy="calibrate again",
        ) from None
    return PhysicalCost(
        terms,
        architecture,
        device,
        dtype,
        engine=provenance["engine"],
        domain=domain,
        covariance=(names, matrix),
        provenance={
            "trace": where,
            "content_hash": trace.content_hash,
            "startup_s": terms.get("startup", 0.0),
            **provenance,
        },
    )

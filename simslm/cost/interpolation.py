"""The cost of an iteration interpolated from a measured trace.

Inside the measured domain the trace is interpolated. Outside it each table of the fitted surface is extrapolated with
the roofline of the same model and device (:mod:`simslm.cost.base`, :mod:`simslm.cost.attention`), continuously and
monotone, and ``in_domain`` is False (:mod:`simslm.cost.domain`).
"""

from __future__ import annotations

from math import exp

import numpy as np
import pyarrow as pa

from simslm.catalog.architecture import Architecture
from simslm.catalog.devices import Device
from simslm.catalog.work import IterationShape
from simslm.cost.base import Base, corrected, extended
from simslm.cost.decoding import decode_columns
from simslm.cost.domain import Domain, Region
from simslm.cost.facts import Facts
from simslm.cost.grid import Grid
from simslm.cost.heldout import compare
from simslm.cost.isotonic import monotone
from simslm.cost.model import CostModel, Costs, DecodeLine
from simslm.cost.roofline import Roofline
from simslm.cost.scaled import Scaled
from simslm.cost.surface import Points, RooflineShapes, Surface, by_node, fit_surface
from simslm.errors import TraceError
from simslm.traces.files import Trace
from simslm.traces.shapes import Shapes, alone, shapes, together
from simslm.transforms.weights import quantized

_LEAST_DEVICE_SHARE = 1e-6


class MeasuredCost(CostModel):
    """Iteration costs from a trace of the same model, data type and device.

    Only iterations of a replica alone on its device are used; each shape by its median over repeats.

    Args:
        trace: what was measured.
        architecture, device, dtype: what is simulated; must be what was measured.

    Raises:
        TraceError: the trace is of something else, or lacks decode-only or prefill-only iterations.
    """

    def __init__(self, trace: Trace, architecture: Architecture, device: Device, dtype: str) -> None:
        check_same(trace, {"model": architecture.name, "device": device.name, "dtype": dtype})
        measured = _measured(trace)
        work = measured.work
        points = Points.of(work, measured.median("latency_s"))
        _check_kinds(trace, points)
        held = quantized(trace.provenance)
        roofline = RooflineShapes(Roofline(architecture, device, dtype, transforms=held))
        self._domain = _domain(points)
        self._heldout = trace.heldout
        self._surface = fit_surface(points, roofline)
        self._device = _device_table(Points.of(work, _known(measured, "host_s")), self._surface, roofline)
        self._energy = _energy_surface(work, measured, roofline)
        super().__init__(_facts(trace, "" if self._energy else _power_note(trace)))

    def _line(self, decode_seqs: int) -> DecodeLine:
        return self._surface.line(decode_seqs)

    def latency_s(self, shape: IterationShape) -> float:
        """Seconds of one iteration, host time included."""
        if shape[3] or shape[7]:
            return self._surface.at(shape)
        return self.decode(shape[0]).latency_s(shape[1])

    def host_s(self, shape: IterationShape) -> float:
        """Host time of one iteration in seconds; contexts do not change it."""
        seqs, tokens = shape.decode_seqs, shape.prefill_tokens + shape.draft_tokens
        return max(self._surface.base.at(seqs, tokens) - self._device.at(seqs, tokens), 0.0)

    def evaluate(self, shapes: IterationShape) -> Costs:
        """Costs of many iterations at once."""
        seqs, tokens = shapes.decode_seqs, shapes.prefill_tokens + shapes.draft_tokens
        latency = self._surface.many(shapes)
        decode_columns(self.decode, shapes, latency)
        host = self._surface.base.many(seqs, tokens) - self._device.many(seqs, tokens)
        energy = self._energy.many(shapes) if self._energy else None
        return Costs(latency, np.maximum(host, 0.0), energy, self._domain.holds(shapes))

    def variants(self) -> tuple[tuple[CostModel, CostModel], ...]:
        """All latencies lower and higher by the root mean square error at the held-out points.

        The error is taken to be one factor for all shapes: the widest interval that these points allow.
        """
        points = [] if self._heldout is None else compare(self, self._heldout)
        if not points:
            return ()
        error = float(np.sqrt(np.mean([point.error**2 for point in points])))
        return ((Scaled(self, exp(-error)), Scaled(self, exp(error))),)


def _facts(trace: Trace, power_note: str) -> Facts:
    origin = {"trace": str(trace.path), "content_hash": trace.content_hash, **trace.provenance}
    return Facts(
        source=trace.source,
        engine=trace.provenance["engine"],
        idle_w=_idle_w(trace),
        power_note=power_note,
        provenance=origin,
        colocated=together(trace.iterations) if trace.iterations is not None else None,
    )


def check_same(trace: Trace, wanted: dict[str, str]) -> None:
    """Refuses a trace of something else.

    Args:
        trace: what is at hand.
        wanted: what its provenance must say, by key.

    Raises:
        TraceError: it says otherwise.
    """
    for key, value in wanted.items():
        found = trace.provenance[key]
        if found != value:
            raise TraceError(
                f"the trace is of {key} {found!r}, the scenario asks for {value!r}",
                where=str(trace.path),
                remedy=f"choose a trace of {value!r}, or change the scenario's {key}",
            )


def _measured(trace: Trace) -> Shapes:
    if trace.iterations is None:
        raise TraceError("the trace holds fitted terms, no iterations to interpolate", where=str(trace.path))
    return shapes(alone(trace.iterations))


def _check_kinds(trace: Trace, points: Points) -> None:
    for kind, mask in (("decode-only", points.decode_only), ("prefill-only", points.prefill_only)):
        if not mask.any():
            raise TraceError(
                f"the trace has no {kind} iterations, so they cannot be interpolated",
                where=str(trace.path / "iterations.parquet"),
                remedy="measure them: `simslm profile` does by default",
            )


def _known(measured: Shapes, column: str) -> np.ndarray:
    """Medians of a column, 0 where it is unknown."""
    return np.nan_to_num(measured.median(column), nan=0.0)


def _domain(points: Points) -> Domain:
    only, prompts, both = points.decode_only, points.prefill_only, points.mixed
    return Domain(
        decode=Region.of(points.seqs[only], points.context[only]),
        prefill=Region.of(points.tokens[prompts], points.attended[prompts]),
        mixed_seqs=float(points.seqs[both].max(initial=0.0)),
        mixed_tokens=float(points.tokens[both].max(initial=0.0)),
    )


def _device_table(host: Points, surface: Surface, roofline: RooflineShapes) -> Grid:
    """The base without host time, on the nodes of the surface's base; monotone and never above it."""
    nodes = surface.nodes
    table = nodes.values - _host_table(host, nodes)
    table = np.clip(table, _LEAST_DEVICE_SHARE * nodes.values, nodes.values)
    table = np.minimum(monotone(table, np.ones_like(table)), nodes.values)
    return extended(nodes, table, roofline.device, ceiling=surface.base)


def _host_table(host: Points, nodes: Base) -> np.ndarray:
    """Host time at every node; unmeasured mixed nodes add what decoding and prompt have beyond the least."""
    edges = [
        by_node(host.seqs[mask], host.tokens[mask], host.values[mask])
        for mask in (host.decode_only, host.prefill_only)
    ]
    column = np.interp(nodes.seqs, edges[0].seqs, edges[0].values)
    row = np.interp(nodes.tokens, edges[1].tokens, edges[1].values)
    least = min(column[0], row[0])
    estimate = np.maximum(column[:, None] + row[None, :] - least, 0.0)
    estimate[:, 0], estimate[0, :], estimate[0, 0] = column, row, least
    both = host.mixed
    mixed = by_node(host.seqs[both], host.tokens[both], host.values[both])
    floor = np.maximum(estimate, 1e-12)
    return corrected(floor, nodes.seqs, nodes.tokens, mixed)[0]


def _energy_surface(work: IterationShape, measured: Shapes, roofline: RooflineShapes) -> Surface | None:
    """The same surface for joules, when both kinds of iteration have their energy measured."""
    points = Points.of(work, measured.median("energy_j"))
    if not points.decode_only.any() or not points.prefill_only.any():
        return None
    power = float(np.nanmedian(measured.median("energy_j") / measured.median("latency_s")))
    return fit_surface(points, roofline, unit=power)


def _idle_w(trace: Trace) -> float | None:
    """Median power of the idle state, from the power table or the provenance; None when neither has it."""
    if trace.power is not None:
        states = np.array(trace.power.column("state").to_pylist())
        idle = trace.power.filter(pa.array(states == "idle")).column("power_w").to_numpy()
        if len(idle):
            return float(np.median(idle))
    return trace.provenance.get("idle_w")


def _power_note(trace: Trace) -> str:
    return trace.provenance.get("power_note") or "the trace has no energy column"

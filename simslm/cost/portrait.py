"""The portrait of a trace: what its cost model says over batch, context and prompt, and at held-out points."""

from __future__ import annotations

import numpy as np

from simslm.catalog.devices import device_names, load_device
from simslm.catalog.models import load_model, model_names
from simslm.catalog.work import IterationShape, equal_prompts
from simslm.cost.heldout import HeldoutPoint, compare, heldout_findings
from simslm.cost.interpolation import MeasuredCost
from simslm.cost.model import CostModel
from simslm.cost.physical import physical_cost
from simslm.errors import TraceError
from simslm.traces.check import check_trace
from simslm.traces.files import Trace
from simslm.traces.portrait import Decoding, Heldout, Portrait, Prefilling
from simslm.traces.shapes import Shapes, alone, shapes

NODES = 24
"""Values of an axis between its ends, beside those that were measured."""

CACHED = (0, 512, 1024)
"""Cached tokens of a prompt for which a calibrated model is drawn."""


def portrait(trace: Trace) -> Portrait:
    """What there is to see of a trace; where no cost model can be made of it, its tables and why."""
    findings = check_trace(trace)
    try:
        cost = catalogued(trace)
    except TraceError as error:
        return Portrait(trace, tuple(findings), note=str(error))
    if cost is None:
        origin = trace.provenance
        note = f"the catalogue does not know {origin['model']!r} or {origin['device']!r}"
        return Portrait(trace, tuple(findings), note=note)
    points = [] if trace.heldout is None else compare(cost, trace.heldout)
    findings += heldout_findings(points)
    if trace.iterations is not None:
        measured = shapes(alone(trace.iterations))
        decoding, prefilling = _decoding(cost, *_decoded(measured)), _prefilling(cost, *_prompted(measured))
    else:
        domain = trace.provenance["domain"]
        decoding = _decoding(cost, np.array(domain["decode_seqs"]), np.array(domain["context"]))
        prefilling = _prefilling(cost, np.array(domain["prefill_tokens"]), np.array(CACHED))
    return Portrait(trace, tuple(findings), decoding, prefilling, _heldout(points))


def catalogued(trace: Trace) -> CostModel | None:
    """The cost model of a trace; None where the catalogue does not know its model or its device.

    Raises:
        TraceError: it is damaged.
    """
    origin = trace.provenance
    if origin["model"] not in model_names() or origin["device"] not in device_names():
        return None
    model, device = load_model(origin["model"]), load_device(origin["device"])
    if trace.iterations is None:
        return physical_cost(trace, model, device, origin["dtype"])
    return MeasuredCost(trace, model, device, origin["dtype"])


def heldout_points(trace: Trace) -> list[HeldoutPoint]:
    """The held-out points of a trace against what is interpolated from the rest; none where the catalogue does not know
    its model or its device."""
    if trace.heldout is None or (cost := catalogued(trace)) is None:
        return []
    return compare(cost, trace.heldout)


def _decoded(measured: Shapes) -> tuple[np.ndarray, np.ndarray]:
    """Batch sizes and contexts of a sequence that were measured without prompts."""
    columns, mask = measured.columns, measured.decode_only
    seqs = columns["decode_seqs"][mask]
    return seqs, np.rint(columns["decode_ctx_tokens"][mask] / seqs)


def _prompted(measured: Shapes) -> tuple[np.ndarray, np.ndarray]:
    """New and cached tokens of single prompts that were measured without decoding."""
    columns = measured.columns
    mask = measured.prefill_only & (columns["prefill_seqs"] == 1)
    return columns["prefill_tokens"][mask], columns["prefill_ctx_tokens"][mask]


def _decoding(cost: CostModel, seqs: np.ndarray, context: np.ndarray) -> Decoding:
    seqs, context = _nodes(seqs), _nodes(context)
    batch, each = (axis.ravel() for axis in np.meshgrid(seqs, context, indexing="ij"))
    zeros = np.zeros(len(batch))
    costs = cost.evaluate(IterationShape(batch, batch * each, zeros, zeros, zeros, zeros, zeros, zeros))
    size = (len(seqs), len(context))
    power = None if costs.energy_j is None else (costs.energy_j / costs.latency_s).reshape(size)
    latency, host = costs.latency_s.reshape(size), np.broadcast_to(costs.host_s, batch.shape).reshape(size)
    return Decoding(seqs, context, latency, host, power, costs.in_domain.reshape(size))


def _prefilling(cost: CostModel, tokens: np.ndarray, cached: np.ndarray) -> Prefilling | None:
    if not len(tokens):
        return None
    tokens, cached = _nodes(tokens), np.unique(cached)
    new, before = (axis.ravel() for axis in np.meshgrid(tokens, cached, indexing="ij"))
    zeros, ones = np.zeros(len(new)), np.ones(len(new))
    shape = equal_prompts(zeros, zeros, ones, new, before)._replace(unread_seqs=zeros, draft_tokens=zeros)
    latency = cost.evaluate(shape).latency_s.reshape(len(tokens), len(cached))
    return Prefilling(tokens, cached, latency)


def _nodes(values: np.ndarray) -> np.ndarray:
    """The values, and whole numbers evenly between the logarithms of the smallest and the largest."""
    low, high = max(float(values.min()), 1.0), max(float(values.max()), 1.0)
    between = np.rint(np.geomspace(low, high, NODES))
    return np.unique(np.concatenate([np.maximum(values, 1.0), between])).astype(float)


def _heldout(points: list[HeldoutPoint]) -> Heldout | None:
    if not points:
        return None
    columns = zip(
        *((point.label, point.measured_s, point.predicted_s, point.in_domain) for point in points),
        strict=True,
    )
    labels, measured, predicted, inside = columns
    return Heldout(tuple(labels), np.array(measured), np.array(predicted), np.array(inside, dtype=bool))

"""Held-out points against the interpolation, on made traces and on the shipped ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from simslm.catalog.devices import load_device
from simslm.catalog.models import load_model
from simslm.catalog.work import equal_prompts
from simslm.cost.heldout import HeldoutPoint, compare, heldout_findings
from simslm.cost.interpolation import MeasuredCost
from simslm.traces.files import Trace, read_trace
from simslm.traces.tables import conform

SHIPPED = sorted((Path(__file__).parents[2] / "traces").glob("*/*/heldout.parquet"))


def test_errors_are_signed_fractions(exact, synthetic):
    builder = synthetic()
    columns = builder.columns([(8, 8 * 64, 0, 0, 0), (1, 16, 0, 0, 0)])
    columns["latency_s"] = np.where(columns["decode_seqs"] == 8, 2.0, 1.0) * columns["latency_s"]
    near, off = compare(exact, conform("heldout", columns))
    assert near.error == pytest.approx(0, abs=1e-3)
    assert off.error == pytest.approx(-0.5, abs=1e-3)
    assert off.label == "decode_seqs=8 decode_ctx_tokens=512"
    assert off.in_domain
    finding = heldout_findings([near, off])[0]
    assert (finding.severity, "-50.0%" in finding.what) == ("warning", True)


def test_good_points_are_a_note_and_no_points_are_nothing():
    finding = heldout_findings([HeldoutPoint("one", 1.0, 1.01, True)])
    assert [each.severity for each in finding] == ["note"]
    assert heldout_findings([]) == []


def test_co_located_points_are_left_out(exact, synthetic):
    columns = synthetic().columns([(8, 8 * 64, 0, 0, 0)])
    assert compare(exact, pa.table({**columns, "replicas": columns["replicas"] * 2})) == []


def shipped(directory: Path) -> tuple[Trace, MeasuredCost]:
    trace = read_trace(directory)
    from_trace = trace.provenance
    model, device = load_model(from_trace["model"]), load_device(from_trace["device"])
    return trace, MeasuredCost(trace, model, device, from_trace["dtype"])


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.parent.name)
def test_shipped_traces_predict_their_heldout_points(file):
    """Twenty or more of the points that the interpolation never saw within 10 %, and none beyond 12 %."""
    trace, cost = shipped(file.parent)
    points = compare(cost, trace.heldout)
    assert sum(point.in_domain for point in points) >= 20
    assert sum(point.in_domain and abs(point.error) <= 0.1 for point in points) >= 20
    assert {point.label: point.error for point in points if abs(point.error) > 0.12} == {}


@pytest.mark.slow
@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.parent.name)
def test_shipped_traces_are_monotone(file):
    """On random pairs of shapes of which one has more of everything, inside the domain and outside."""
    _, cost = shipped(file.parent)
    rng = np.random.default_rng(0)
    n = 20_000
    seqs, tokens = rng.integers(0, 64, n), rng.integers(0, 4096, n) * rng.integers(0, 2, n)
    seqs = np.where((seqs == 0) & (tokens == 0), 1, seqs)
    context, cached = rng.integers(1, 4096, n), rng.integers(0, 4096, n)
    axis = rng.integers(0, 4, n)
    more = rng.integers(1, 64, n)

    def shapes(*grown):
        b, c, t, m = (each + more * (axis == i) * grow for i, (each, grow) in enumerate(grown))
        prompts = (t > 0).astype(int)
        return equal_prompts(b, b * c, prompts, t, m * prompts)

    each = (seqs, context, tokens, cached)
    less = cost.evaluate(shapes(*((values, 0) for values in each))).latency_s
    grown = cost.evaluate(shapes(*((values, 1) for values in each))).latency_s
    assert (less > 0).all()
    assert (grown >= less * (1 - 1e-11)).all()

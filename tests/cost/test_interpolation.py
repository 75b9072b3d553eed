"""Interpolation of a trace: exact at its nodes, monotone, continuous, the same bits for numbers and columns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simslm.catalog.devices import load_device
from simslm.catalog.models import load_model
from simslm.catalog.work import IterationShape, equal_prompts
from simslm.cost.interpolation import MeasuredCost
from simslm.errors import TraceError
from simslm.traces.files import read_trace, write_trace

ROUNDING = 1e-11

batches = st.integers(1, 200)
contexts = st.integers(1, 20_000)
prompts = st.integers(1, 10_000)


def shape(seqs, context, tokens, cached, prompts=1) -> IterationShape:
    """One iteration of plain numbers; ``context`` and ``cached`` per sequence and prompt."""
    count = prompts if tokens else 0
    pairs = tokens * (cached + (tokens / max(count, 1) + 1) / 2)
    return IterationShape(seqs, seqs * context, count, tokens, cached * count, pairs)


def columns(shapes: list[IterationShape]) -> IterationShape:
    return IterationShape(*(np.array(values) for values in zip(*shapes, strict=True)))


any_shape = st.one_of(
    st.builds(shape, batches, contexts, st.just(0), st.just(0)),
    st.builds(shape, st.integers(0, 200), contexts, prompts, st.integers(0, 10_000), st.integers(1, 4)),
)


@pytest.fixture(scope="module", params=["exact", "noisy"])
def model(request) -> MeasuredCost:
    return request.getfixturevalue(request.param)


def test_measured_shapes_come_back(exact, synthetic):
    """Every measured median, to 0.2 %: the same tokens as one prompt or several are pooled, all else is met."""
    rows = synthetic().rows
    measured = equal_prompts(*np.array(rows).T)
    builder = synthetic()
    costs = exact.evaluate(measured)
    np.testing.assert_allclose(costs.latency_s, builder.cost(measured), rtol=2e-3)
    np.testing.assert_allclose(costs.energy_j, 60 * builder.cost(measured), rtol=2e-3)
    assert costs.in_domain.all()


def test_points_between_nodes_are_close(exact, synthetic):
    """Away from the kinks of the analytic cost, which no grid resolves."""
    cost = synthetic().cost
    for seqs, context, tokens, cached in (
        (3, 500, 0, 0),
        (12, 300, 0, 0),
        (0, 0, 700, 300),
        (24, 300, 300, 200),
    ):
        each = shape(seqs, context, tokens, cached)
        assert exact.latency_s(each) == pytest.approx(float(cost(each)), rel=0.01)


@pytest.mark.slow
@given(st.lists(any_shape, min_size=1, max_size=20))
def test_numbers_and_columns_are_bitwise_equal(model, shapes):
    assert [model.latency_s(each) for each in shapes] == model.evaluate(columns(shapes)).latency_s.tolist()


@given(batches, contexts)
def test_decode_only_is_the_decode_line(model, seqs, context):
    line = model.decode(seqs)
    assert model.latency_s(shape(seqs, context, 0, 0)) == line.latency_s(seqs * context)
    assert line.starts[0] == 0
    assert line is model.decode(seqs)


@given(batches, contexts)
def test_decode_line_agrees_with_the_surface(model, seqs, context):
    """The line is the surface without prompts; a mixed iteration of vanishing prompt tends to it."""
    surface = model._surface.many(columns([shape(seqs, context, 0, 0)]))[0]
    assert model.decode(seqs).latency_s(seqs * context) == pytest.approx(surface, rel=1e-9)


@given(any_shape, st.sampled_from(["seqs", "context", "tokens", "cached"]), st.integers(1, 5000), st.data())
def test_latency_never_falls_as_work_grows(model, each, axis, more, data):
    count = max(each.prefill_seqs, 1)
    per = {
        "seqs": each.decode_seqs,
        "context": each.decode_ctx_tokens // max(each.decode_seqs, 1),
        "tokens": each.prefill_tokens,
        "cached": each.prefill_ctx_tokens // count,
    }
    if axis == "context" and not per["seqs"]:
        axis = "seqs"
    if axis == "cached" and not per["tokens"]:
        axis = "tokens"
    less = model.latency_s(shape(*per.values(), prompts=count))
    if axis == "seqs" and not per["seqs"]:
        per["context"] = data.draw(contexts)
    per[axis] += more
    grown = model.latency_s(shape(*per.values(), prompts=count))
    assert grown >= less * (1 - ROUNDING)


@given(
    st.one_of(st.builds(shape, st.integers(1, 100), st.integers(1, 4000), st.just(0), st.just(0)), any_shape)
)
def test_nothing_jumps(model, each):
    """One more token moves latency by no more than what a token costs far out, at the border of the domain too."""
    before = model.latency_s(each)
    if each.prefill_tokens:
        after = model.latency_s(each._replace(prefill_pairs=each.prefill_pairs + 1.0))
    else:
        after = model.latency_s(each._replace(decode_ctx_tokens=each.decode_ctx_tokens + 1))
    assert abs(after - before) <= 1e-5 + ROUNDING * before


def test_the_border_of_the_domain_is_continuous(exact):
    """Just inside and just outside the largest batch, context and prompt, to the last token."""
    for inside, outside in (
        (shape(32, 1536, 0, 0), IterationShape(32, 32 * 1536 + 1)),
        (shape(0, 0, 1024, 1024), IterationShape(0, 0, 1, 1024, 1024, 1024 * 1536.5 + 1)),
        (shape(32, 16, 1024, 0), IterationShape(32, 512, 1, 1024, 0, 1024 * 512.5 + 1)),
    ):
        assert exact.latency_s(outside) == pytest.approx(exact.latency_s(inside), rel=1e-4)
    flags = exact.evaluate(columns([shape(32, 1536, 0, 0), IterationShape(32, 32 * 1536 + 1)])).in_domain
    assert flags.tolist() == [True, False]


@pytest.mark.parametrize(
    ("each", "inside"),
    [
        (shape(8, 300, 0, 0), True),
        (shape(33, 300, 0, 0), False),
        (shape(8, 8, 0, 0), False),
        (shape(8, 1600, 0, 0), False),
        (shape(0, 0, 300, 100), True),
        (shape(0, 0, 8, 0), False),
        (shape(0, 0, 300, 4000), False),
        (shape(0, 0, 1100, 0), False),
        (shape(8, 300, 300, 100), True),
        (shape(8, 300, 5, 0), True),
        (shape(8, 300, 1100, 0), False),
        (shape(33, 300, 300, 0), False),
        (shape(8, 1600, 300, 0), False),
    ],
)
def test_domain(exact, each, inside):
    assert exact.evaluate(columns([each])).in_domain.tolist() == [inside]


def test_outside_follows_the_roofline(exact):
    """Far outside, another doubling of the work costs what the roofline's shape says: attention and tokens double."""
    far = exact.decode(32)
    step = far.latency_s(32 * 64_000) - far.latency_s(32 * 32_000)
    assert far.latency_s(32 * 128_000) - far.latency_s(32 * 64_000) == pytest.approx(2 * step, rel=1e-3)
    assert exact.decode(4096).latency_s(4096) / exact.decode(2048).latency_s(2048) == pytest.approx(
        2, rel=0.05
    )


def test_attention_too_small_to_measure_still_costs_far_out(synthetic):
    """A trace of short contexts sees no attention; the roofline gives its slope, not zero."""
    flat = synthetic(
        cost=lambda work: 5e-3 + 1e-4 * (np.asarray(work.decode_seqs) + np.asarray(work.prefill_tokens)),
        rows=[(b, b * c, 0, 0, 0) for b in (1, 4) for c in (16, 32)] + [(0, 0, 1, 16, 0), (0, 0, 1, 64, 0)],
    ).model()
    line = flat.decode(4)
    assert line.latency_s(4 * 32) == pytest.approx(5.4e-3, rel=1e-3)
    assert line.latency_s(4 * 16_000) > line.latency_s(4 * 32) * 1.1


@pytest.mark.slow
@given(st.lists(any_shape, min_size=1, max_size=10))
def test_host_time_is_part_of_the_latency(model, shapes):
    costs = model.evaluate(columns(shapes))
    assert (costs.host_s >= 0).all()
    assert (costs.host_s <= costs.latency_s * (1 + ROUNDING)).all()
    for each, host in zip(shapes, costs.host_s, strict=True):
        assert model.host_s(each) == pytest.approx(host, rel=1e-9, abs=1e-12)


def test_host_time_comes_back(exact):
    """At the nodes, and between them: fixed plus per sequence."""
    for seqs in (1, 8, 24, 32):
        assert exact.host_s(shape(seqs, 300, 0, 0)) == pytest.approx(5e-4 + 2e-5 * seqs, rel=1e-6)


def test_power(exact, synthetic):
    assert exact.idle_w == 21.0
    assert exact.power_note == ""
    builder = synthetic()
    trace = builder.trace(power_note="no meter")
    bare = trace.iterations.drop_columns(["energy_j", "power_w"])
    written = write_trace(builder.directory, provenance=trace.provenance | {"idle_w": 7.0}, iterations=bare)
    cost = MeasuredCost(written, load_model("opt-125m"), load_device("cpu"), "fp32")
    assert cost.evaluate(columns([shape(1, 16, 0, 0)])).energy_j is None
    assert cost.power_note == "no meter"
    assert cost.idle_w == 7.0


def test_it_says_where_it_comes_from(exact):
    assert (exact.source, exact.engine) == ("measured", "analytic 1")
    assert exact.provenance["device"] == "cpu"
    assert len(exact.provenance["content_hash"]) == 64


@pytest.mark.parametrize(
    ("model_name", "device", "dtype", "names"),
    [
        ("opt-350m", "cpu", "fp32", ("opt-125m", "opt-350m")),
        ("opt-125m", "h200", "fp32", ("cpu", "h200")),
        ("opt-125m", "cpu", "bf16", ("fp32", "bf16")),
    ],
)
def test_a_trace_of_something_else_is_refused(synthetic, model_name, device, dtype, names):
    trace = synthetic().trace()
    with pytest.raises(TraceError) as caught:
        MeasuredCost(trace, load_model(model_name), load_device(device), dtype)
    assert caught.value.exit_code == 3
    assert all(repr(name) in str(caught.value) for name in names)


@pytest.mark.parametrize(
    ("rows", "kind"), [([(1, 16, 0, 0, 0)], "prefill-only"), ([(0, 0, 1, 16, 0)], "decode-only")]
)
def test_a_trace_without_one_kind_is_refused(synthetic, rows, kind):
    with pytest.raises(TraceError, match=f"no {kind} iterations"):
        synthetic(rows=rows).model()


def test_a_trace_of_two_points_still_answers(synthetic):
    model = synthetic(rows=[(4, 4 * 100, 0, 0, 0), (0, 0, 1, 128, 0)]).model()
    assert model.latency_s(shape(4, 100, 0, 0)) == pytest.approx(float(synthetic().cost(shape(4, 100, 0, 0))))
    assert model.latency_s(shape(8, 100, 64, 0)) > model.latency_s(shape(8, 100, 0, 0)) > 0


def test_mixed_iterations_nobody_measured_are_estimated(synthetic):
    """Weights are read once for all tokens, and each decoding sequence adds its head and host time."""
    rows = [row for row in synthetic().rows if not (row[0] and row[3])]
    model, cost = synthetic(rows=rows).model(), synthetic().cost
    for seqs, tokens in ((4, 64), (32, 64), (32, 256), (16, 1024)):
        each = shape(seqs, 16, tokens, 0)
        assert model.latency_s(each) == pytest.approx(float(cost(each)), rel=0.03)
        assert not model.evaluate(columns([each])).in_domain.any()


def test_mixed_domain_ends_where_mixed_iterations_end(synthetic):
    rows = [row for row in synthetic().rows if not (row[3] and (row[0] > 16 or (row[0] and row[3] > 256)))]
    model = synthetic(rows=rows).model()
    shapes = [shape(16, 64, 256, 0), shape(17, 64, 256, 0), shape(16, 64, 257, 0), shape(32, 64, 0, 0)]
    assert model.evaluate(columns(shapes)).in_domain.tolist() == [True, False, False, True]


def test_one_bad_mixed_measurement_does_not_pull_the_edges(synthetic):
    """Decode-only iterations were measured at five contexts; a mixed one that is half as long is outvoted."""
    builder = synthetic()
    rows = builder.columns(builder.rows)
    bad = (rows["decode_seqs"] == 32) & (rows["prefill_tokens"] == 16)
    rows["latency_s"] = np.where(bad, 0.4, 1.0) * rows["latency_s"]
    trace = write_trace(builder.directory, provenance=builder.trace().provenance, iterations=rows)
    cost = MeasuredCost(trace, load_model("opt-125m"), load_device("cpu"), "fp32")
    each = shape(32, 64, 0, 0)
    assert cost.latency_s(each) == pytest.approx(float(builder.cost(each)), rel=0.1)


def test_co_located_rows_are_left_out(synthetic):
    builder = synthetic()
    columns_ = builder.columns(builder.rows)
    slow = {**columns_, "latency_s": columns_["latency_s"] * 3, "replicas": columns_["replicas"] * 2}
    both = {name: np.concatenate([columns_[name], slow[name]]) for name in columns_}
    trace = write_trace(builder.directory, provenance=builder.trace().provenance, iterations=both)
    cost = MeasuredCost(trace, load_model("opt-125m"), load_device("cpu"), "fp32")
    assert cost.latency_s(shape(8, 64, 0, 0)) == builder.model().latency_s(shape(8, 64, 0, 0))


def test_reading_back_changes_nothing(exact, synthetic):
    builder = synthetic()
    builder.trace()
    again = MeasuredCost(read_trace(builder.directory), load_model("opt-125m"), load_device("cpu"), "fp32")
    assert again.provenance["content_hash"] == exact.provenance["content_hash"]
    assert again.decode(7) == exact.decode(7)

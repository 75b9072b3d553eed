"""Transforms by hand, on every kind of cost: what they divide, what they add, how they compose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simslm.api import load_scenario, prepare, simulate
from simslm.calibration.prior import medians
from simslm.catalog.devices import load_device
from simslm.catalog.models import load_model
from simslm.catalog.work import IterationShape, WorkModel, equal_prompts
from simslm.cost.load import changed, load_cost
from simslm.cost.physical import PhysicalCost
from simslm.cost.retimed import Retimed
from simslm.cost.reworked import Reworked
from simslm.cost.roofline import Roofline
from simslm.errors import ScenarioError, UsageError
from simslm.preparation.memory import plan_memory
from simslm.scenario.cost import Cost
from simslm.transforms.lserve import LServe
from simslm.transforms.registry import Served, ShapeTransform, footprint, registered, summary
from simslm.transforms.weights import Weights
from simslm.transforms.work import TransformedWork
from simslm.transforms.xgrammar import XGrammar
from simslm.transforms.xquant import XQuant

LLAMA, H100 = load_model("llama-2-7b"), load_device("h100-80gb")
SERVED = Served.on(LLAMA, "fp16", H100)
DEVICE_PARTS = (
    LServe(),
    LServe(streaming_share=1.0),
    XQuant(),
    Weights(bits=4),
    Weights(bits=2, compute=4.0),
)

each_row = st.tuples(
    st.integers(0, 64), st.integers(0, 9000), st.integers(0, 3), st.integers(1, 900), st.integers(0, 5000)
)


def shapes_of(rows) -> IterationShape:
    """Columns of shapes, none of them empty."""
    seqs, context, prompts, tokens, cached = np.array(rows).T
    seqs = np.where(prompts == 0, np.maximum(seqs, 1), seqs)
    return equal_prompts(seqs, seqs * context, prompts, prompts * tokens, prompts * cached)


def one_by_one(shapes: IterationShape) -> list[IterationShape]:
    columns = [np.broadcast_to(column, len(shapes.decode_seqs)).tolist() for column in shapes]
    return [IterationShape(*row) for row in zip(*columns, strict=True)]


@pytest.fixture(scope="module")
def calibrated() -> PhysicalCost:
    covariance = (("host", "kv_bandwidth"), np.diag([0.01, 0.04]))
    return PhysicalCost(medians(), LLAMA, H100, "fp16", engine="vllm 0.6.3", covariance=covariance)


@pytest.fixture(scope="module", params=["measured", "calibrated", "roofline"])
def source(request, noisy, calibrated):
    """A cost of each kind, and how transforms are put to it."""
    if request.param == "measured":
        parts = (load_model("opt-125m"), load_device("cpu"), "fp32")
        return lambda *transforms: changed(noisy, transforms, *parts)
    if request.param == "calibrated":
        return lambda *transforms: changed(calibrated, transforms, LLAMA, H100, "fp16")
    return lambda *transforms: Roofline(LLAMA, H100, "fp16", transforms=transforms)


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(rows=st.lists(each_row, min_size=1, max_size=12), chosen=st.permutations(DEVICE_PARTS))
def test_numbers_and_columns_are_bitwise_equal(source, rows, chosen):
    cost = Retimed(Retimed(source(*chosen[:2]), XGrammar(per_seq_s=1e-3)), XGrammar(overlapped=False))
    shapes = shapes_of(rows)
    costs = cost.evaluate(shapes)
    assert [cost.latency_s(shape) for shape in one_by_one(shapes)] == costs.latency_s.tolist()
    assert (costs.latency_s > costs.host_s).all()
    assert np.isfinite(costs.latency_s).all()


@settings(deadline=None)
@given(rows=st.lists(each_row, min_size=1, max_size=8), first=st.sampled_from(DEVICE_PARTS))
def test_a_cost_changed_by_ratios_is_the_roofline_changed(rows, first):
    """A cost that is the roofline itself, changed by the ratio of two rooflines, is the changed roofline."""
    before = Roofline(LLAMA, H100, "fp16")
    for second in (XQuant(bits=2), Weights(bits=3)):
        if isinstance(first, ShapeTransform) or type(first) is type(second):
            continue
        after = Roofline(LLAMA, H100, "fp16", transforms=(first, second))
        by_ratio = changed(before, (first, second), LLAMA, H100, "fp16")
        wanted, found = after.evaluate(shapes_of(rows)), by_ratio.evaluate(shapes_of(rows))
        np.testing.assert_allclose(found.latency_s, wanted.latency_s, rtol=1e-9)
        np.testing.assert_array_equal(found.host_s, wanted.host_s)


@pytest.mark.parametrize("transform", DEVICE_PARTS)
def test_what_is_changed_is_no_longer_measured_and_says_so(exact, transform):
    cost = changed(exact, (transform,), load_model("opt-125m"), load_device("cpu"), "fp32")
    inside = equal_prompts(np.array([8]), np.array([800]), np.array([0]), np.array([0]), np.array([0]))
    assert exact.evaluate(inside).in_domain.all()
    assert not cost.evaluate(inside).in_domain.any()
    assert transform.key in cost.engine
    assert cost.provenance[transform.key] == transform.model_dump()
    assert cost.source == "measured"


def test_variants_carry_on(calibrated):
    shape = IterationShape(8, 16_000)
    for transform in DEVICE_PARTS:
        cost = changed(calibrated, (transform,), LLAMA, H100, "fp16")
        pairs, inner = cost.variants(), calibrated.variants()
        assert len(pairs) == len(inner) == 2
        for (low, high), (_, dearer) in zip(pairs, inner, strict=True):
            below, above = (each.latency_s(shape) - cost.latency_s(shape) for each in (low, high))
            assert below * above < 0
            assert high.latency_s(shape) != dearer.latency_s(shape)


@pytest.mark.parametrize(
    "neutral",
    [
        {"xgrammar": {"per_seq_s": 0}},
        {"xgrammar": {"constrained": 0, "overlapped": False}},
        {"lserve": {"streaming_share": 0, "budget_tokens": None}},
        {"weights": {"bits": 16, "group_size": None, "dequantize_ops": 0}},
    ],
)
def test_options_that_change_nothing_leave_the_same_bits(neutral):
    plain = load_cost(Cost.model_validate({"roofline": {}}), LLAMA, H100, "fp16")
    spec = Cost.model_validate({"roofline": {}, "transforms": [neutral]})
    cost = load_cost(spec, LLAMA, H100, "fp16")
    shapes = shapes_of([(5, 100, 0, 1, 0), (7, 5000, 2, 100, 8), (0, 0, 1, 700, 0)])
    for name in ("latency_s", "host_s", "energy_j"):
        np.testing.assert_array_equal(
            getattr(cost.evaluate(shapes), name), getattr(plain.evaluate(shapes), name)
        )
    assert footprint(SERVED, spec.changes) == footprint(SERVED, ())


def test_the_device_comes_before_what_waits_for_it():
    """Whatever the order in the scenario: a mask waits for the device as it is."""
    texts = [{"xgrammar": {"per_seq_s": 1e-3}}, {"weights": {"bits": 4}}, {"xquant": {}}]
    costs = [
        load_cost(Cost.model_validate({"roofline": {}, "transforms": order}), LLAMA, H100, "fp16")
        for order in (texts, texts[::-1])
    ]
    assert costs[0].latency_s(IterationShape(4, 4000)) == costs[1].latency_s(IterationShape(4, 4000))


def test_a_mask_waits_for_all_devices_of_a_split_model_and_is_not_split():
    def served(size, *transforms):
        spec = Cost.model_validate({"roofline": {}, "transforms": transforms})
        return load_cost(spec, LLAMA, H100, "fp16", tensor_parallel_size=size)

    shape, mask = IterationShape(4, 400), {"xgrammar": {"per_seq_s": 0.1}}
    assert served(2, mask).latency_s(shape) == pytest.approx(0.4 + served(2).host_s(shape))
    assert served(2).latency_s(shape) < served(1).latency_s(shape)


def test_time_transforms_compose_in_order():
    """The user's host time replaces all there is, a mask's included; a mask after it comes on top."""
    mask, host = (
        {"xgrammar": {"per_seq_s": 1e-3, "overlapped": False}},
        {"host": {"fixed_s": 0, "per_seq_s": 0}},
    )
    first, second = (
        load_cost(Cost.model_validate({"roofline": {}, "transforms": order}), LLAMA, H100, "fp16")
        for order in ([mask, host], [host, mask])
    )
    assert first.host_s(IterationShape(4, 400)) == 0
    assert second.host_s(IterationShape(4, 400)) == pytest.approx(4e-3)


# ---- XQuant ---------------------------------------------------------------------------------------------------


def test_xquant_at_a_factor_fits_so_many_times_the_tokens():
    limits = {
        "gpu_memory_utilization": 0.9, "replicas_per_device": 1, "max_num_seqs": 64, "max_num_batched_tokens": 2048,
        "block_size": 16, "num_gpu_blocks": None,
    }  # fmt: skip
    plain = plan_memory(LLAMA, H100, "fp16", **limits)
    for bits in (8, 4, 2):
        transform = XQuant(bits=bits)
        found = plan_memory(LLAMA, H100, "fp16", held=footprint(SERVED, [transform]), **limits)
        assert transform.factor(SERVED) == pytest.approx(2 * 16 / (bits + 16 / 128))
        assert found.num_gpu_blocks == pytest.approx(
            transform.factor(SERVED) * plain.num_gpu_blocks, rel=1e-3
        )
        assert found.weights == plain.weights


def test_xquant_meets_the_factor_of_the_paper():
    """4 bits, multi-head attention: "up to ~7.7x" (abstract)."""
    assert XQuant().factor(SERVED) == pytest.approx(7.7, rel=0.01)


def test_xquant_of_grouped_queries_caches_the_projections():
    """Llama-3.1-8B: keys and values are 2 · 1024 wide, its inputs 4096; so only bits are saved."""
    served = Served(load_model("llama-3.1-8b"), "bf16")
    assert XQuant(bits=4, group_size=None).factor(served) == 4
    assert XQuant(bits=4).recomputation(served) == 32 * 4 * 1024**2


def test_xquant_divides_traffic_and_computes_again_what_is_cached():
    work, transform = WorkModel(LLAMA, "fp16"), XQuant()
    shape = equal_prompts(3, 3000, 2, 100, 700)
    before, after = work(shape), TransformedWork(work, [transform], SERVED)(shape)
    factor = transform.factor(SERVED)
    assert after.decode_bytes == before.decode_bytes / factor
    assert after.prefill_bytes == before.prefill_bytes / factor
    each = 32 * 2 * 4096 * 8192
    assert after.decode_flops - before.decode_flops == pytest.approx(3000 * each)
    assert after.prefill_flops - before.prefill_flops == pytest.approx(700 * each)
    assert after.linear_flops == before.linear_flops
    assert after.linear_bytes == before.linear_bytes


# ---- weights --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 6, 4, 1.58])
def test_weights_of_so_many_bits(bits):
    transform, work = Weights(bits=bits, group_size=None), WorkModel(LLAMA, "fp16")
    shape = IterationShape(1, 100)
    before, after = work(shape), TransformedWork(work, [transform], SERVED)(shape)
    matrices = 32 * LLAMA.layer_matrix_parameters()
    rest = before.linear_bytes - 2 * matrices
    assert after.linear_bytes == pytest.approx(matrices * bits / 8 + rest, rel=1e-12)
    assert after.head_bytes == before.head_bytes
    scalar = 989.4e12 / H100.compute_flops["fp32"]
    assert after.linear_flops - before.linear_flops == pytest.approx(2 * matrices * scalar, rel=1e-3)
    held = footprint(SERVED, [transform])
    assert held.weight_bytes == pytest.approx(LLAMA.weight_bytes("fp16") - matrices * (2 - bits / 8), abs=1)


def test_scales_take_room():
    assert Weights(bits=4, group_size=128).stored_bits == 4.125
    assert Weights(bits=4, group_size=64, scale_bits=32).stored_bits == 4.5


def test_weight_bound_decoding_gains_what_the_bits_say_and_long_prompts_do_not():
    plain, quantised = (
        Roofline(LLAMA, H100, "fp16", transforms=transforms) for transforms in ((), (Weights(bits=4),))
    )
    linear = [cost.parts(shapes_of([(1, 0, 0, 1, 0)])).linear[0] for cost in (plain, quantised)]
    assert linear[0] / linear[1] == pytest.approx(16 / 4.125, rel=1e-3)
    prompt = shapes_of([(0, 0, 1, 8000, 0)])
    assert quantised.evaluate(prompt).latency_s > plain.evaluate(prompt).latency_s


def test_a_lookup_has_its_own_rate():
    transform = Weights(bits=2, dequantize_ops=0, compute=4.0)
    plain, fast = (Roofline(LLAMA, H100, "fp16", transforms=each) for each in ((), (transform,)))
    prompt = shapes_of([(0, 0, 1, 8000, 0)])
    assert plain.parts(prompt).linear[0] == pytest.approx(4 * fast.parts(prompt).linear[0], rel=1e-12)


# ---- XGrammar -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(rows=st.lists(each_row, min_size=1, max_size=12), per_seq=st.sampled_from([1e-6, 4e-5, 1e-3, 0.1]))
def test_masks_are_a_maximum_or_a_sum(source, rows, per_seq):
    plain, shapes = source(), shapes_of(rows)
    before = plain.evaluate(shapes)
    mask = 1e-4 + per_seq * (0.5 * (shapes.decode_seqs + shapes.prefill_seqs))
    device = before.latency_s - before.host_s
    for overlapped, wanted in ((True, np.maximum(device, mask)), (False, device + mask)):
        transform = XGrammar(fixed_s=1e-4, per_seq_s=per_seq, constrained=0.5, overlapped=overlapped)
        found = Retimed(plain, transform).evaluate(shapes)
        np.testing.assert_allclose(found.latency_s, before.host_s + wanted, rtol=1e-9)


# ---- LServe ---------------------------------------------------------------------------------------------------


@given(
    st.integers(1, 64),
    st.integers(0, 300_000),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from([None, 4096]),
)
def test_what_lserve_reads(seqs, context, share, budget):
    """Sequences of one length: the formula of one sequence, times their number."""
    transform = LServe(streaming_share=share, budget_tokens=budget)
    near, bound = min(context, 128 + 256), budget or context
    dense = min(context, bound) + max(context - bound, 0) / (16 * 4)
    found = transform.shape(IterationShape(seqs, seqs * context)).decode_ctx_tokens
    assert found == pytest.approx(seqs * (share * near + (1 - share) * dense))


def test_lserve_attends_within_the_window_in_half_of_the_heads():
    shape = LServe().shape(equal_prompts(0, 0, 2, 80_000, 0))
    full = 80_000 * 40_001 / 2
    assert shape.prefill_pairs == pytest.approx(0.5 * 80_000 * (128 + 8192) + 0.5 * full)
    assert shape.prefill_tokens == 80_000


def test_lserve_lines_bend_where_the_bounds_are(source):
    cost = source(LServe(budget_tokens=512))
    slopes = [
        (cost.decode(4).latency_s(at + 4) - cost.decode(4).latency_s(at)) / 4 for at in (400, 1600, 9000)
    ]
    assert slopes[0] > 1.5 * slopes[1] > 7 * slopes[2] > 0
    line = cost.decode(4)
    jumps = [
        line.latency_s(start) - (line.intercepts[i] + line.slopes[i] * start)
        for i, start in enumerate(line.starts[1:])
    ]
    np.testing.assert_allclose(jumps, 0, atol=1e-9)


def test_lserve_sets_the_windows_of_its_streaming_heads_aside():
    held = footprint(SERVED, [LServe()])
    assert held.kv_bytes_per_token == LLAMA.kv_bytes_per_token("fp16") // 2
    assert held.kv_bytes_per_seq == 384 * held.kv_bytes_per_token
    limits = {
        "gpu_memory_utilization": 0.9, "replicas_per_device": 1, "max_num_seqs": 64, "max_num_batched_tokens": 2048,
        "block_size": 16, "num_gpu_blocks": None,
    }  # fmt: skip
    plan, plain = (plan_memory(LLAMA, H100, "fp16", held=each, **limits) for each in (held, None))
    assert plan.windows == 64 * held.kv_bytes_per_seq
    used = plan.num_gpu_blocks * plan.block + plan.windows
    assert used == pytest.approx(plain.num_gpu_blocks * plain.block, rel=1e-3)


def test_windows_shrink_with_what_is_kept_in_them():
    """Whichever of the two is stated first."""
    held = [footprint(SERVED, each) for each in ((LServe(), XQuant()), (XQuant(), LServe()), (LServe(),))]
    assert held[0].kv_bytes_per_seq == pytest.approx(held[1].kv_bytes_per_seq, rel=1e-3)
    shrunk = held[0].kv_bytes_per_seq * XQuant().factor(SERVED)
    assert held[2].kv_bytes_per_seq == pytest.approx(shrunk, rel=1e-3)


def test_lserve_is_refused_for_models_with_windows_of_their_own():
    spec = Cost.model_validate({"roofline": {}, "transforms": [{"lserve": {}}]})
    with pytest.raises(UsageError, match="window of their own"):
        load_cost(spec, load_model("gemma-2-2b"), H100, "bf16")


# ---- in a scenario --------------------------------------------------------------------------------------------


def test_a_transform_twice_is_refused(small):
    small["cost"]["transforms"] = [{"xquant": {}}, {"xquant": {"bits": 2}}]
    with pytest.raises(ScenarioError, match="'xquant' is stated twice"):
        load_scenario(small)


@pytest.mark.parametrize(("key", "cls"), registered().items())
def test_every_transform_says_what_it_does_and_whose_it_is(key, cls):
    assert cls.key == key
    assert key == "host" or "arXiv:" in summary(cls)
    assert all(option.description for option in cls.model_fields.values())
    assert len(summary(cls)) < 130


def test_every_transform_runs_in_a_scenario(small):
    """Each by itself, and all together: memory, costs and the manifest's model follow."""
    options = {"host": {"fixed_s": 1e-4, "per_seq_s": 1e-6}, "weights": {"bits": 4}}
    lists = [[{key: options.get(key, {})}] for key in registered()]
    lists.append([each for single in lists for each in single])
    for transforms in lists:
        small["cost"] = {"roofline": {}, "transforms": transforms}
        scenario = load_scenario(small)
        assert load_scenario(small | {"cost": scenario.cost.model_dump(mode="json")}).cost == scenario.cost
        result = simulate(scenario)
        assert result.summary["requests"]["finished"] == 50
    plain = replace(prepare(load_scenario(small | {"cost": {"roofline": {}}})).groups[0])
    group = prepare(scenario).groups[0]
    assert group.held.weight_bytes < plain.held.weight_bytes
    assert group.memory.num_gpu_blocks > plain.memory.num_gpu_blocks
    assert not isinstance(group.cost, Reworked)

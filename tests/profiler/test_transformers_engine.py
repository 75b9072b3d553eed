"""The continuous batching of transformers, measured: it computes what the own engine does, and its trace is whole."""

import numpy as np
import pytest
import tiny_campaigns
import torch

from profiler.engine.batch import Chunk
from profiler.engine.engine import Engine
from profiler.engine.weights import random_weights
from profiler.engines import transformers_engine
from profiler.engines.transformers_engine import TransformersEngine, loaded, model_of
from profiler.grid import Shape, measured_shapes
from profiler.measure.meters import ReplayMeter
from simslm.catalog.devices import load_device
from simslm.cost.interpolation import MeasuredCost
from simslm.errors import DeviceError, InfeasibleError, UsageError
from simslm.traces.check import check_trace
from simslm.traces.files import read_trace
from simslm.traces.shapes import shapes as gathered

pytest.importorskip("transformers", reason="pip install 'simslm[transformers]'")
pytest.importorskip("psutil", reason="pip install 'simslm[transformers]'")

PROMPTS = ([5, 17, 3, 88, 41, 9, 60], [2] * 19, [31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21], [96])
COUNT = 6


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def paged_by_it(architecture):
    """The families that its continuous batching runs on a CPU."""
    if architecture.attention_softcap:
        pytest.skip("it caps scores with flash attention only")
    return architecture


def build(architecture, **options):
    weights = random_weights(architecture, torch.float32, seed=0)
    options = {"dtype": "fp32", "device": "cpu", "pages": 8, "rows": 64, "seqs": 8} | options
    return TransformersEngine(architecture, weights, **options)


def theirs(architecture, **options):
    """What its own scheduler, cache and loop make of the prompts, all together."""
    engine = build(architecture, **options)
    scheduler = engine.processor.scheduler
    states = [loaded()[1].RequestState(str(i), list(p), max_new_tokens=COUNT) for i, p in enumerate(PROMPTS)]
    for state in states:
        scheduler.add_waiting_request(state)
    while scheduler.has_pending_requests():
        engine.step()
    return [state.generated_tokens for state in states]


def ours(architecture):
    engine = Engine(architecture, dtype="fp32", num_blocks=40, block_size=4)
    sequences, cached = [list(p) for p in PROMPTS], [0] * len(PROMPTS)
    blocks = np.arange(40).reshape(4, 10)
    for _ in range(COUNT):
        batch = [Chunk(s[c:], c, b) for s, c, b in zip(sequences, cached, blocks, strict=True)]
        cached = [len(s) for s in sequences]
        for sequence, token in zip(sequences, engine.iterate(batch), strict=True):
            sequence.append(token)
    return [s[len(p) :] for s, p in zip(sequences, PROMPTS, strict=True)]


def test_its_greedy_tokens_are_the_own_engines(paged_by_it):
    assert theirs(paged_by_it) == ours(paged_by_it)


def test_the_capped_one_equals_its_plain_forward_pass(make_tiny):
    """Its continuous batching caps scores with flash attention only; its eager attention always does."""
    capped = make_tiny("gemma2")
    weights = random_weights(capped, torch.float32, seed=0)
    model = model_of(loaded()[0], capped, weights, torch.float32, torch.device("cpu"), "eager")
    found = []
    for prompt in PROMPTS:
        tokens = list(prompt)
        with torch.inference_mode():
            for _ in range(COUNT):
                tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
        found.append(tokens[len(prompt) :])
    assert found == ours(capped)
    with pytest.raises(DeviceError, match="with flash attention only"):
        build(capped)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("llama", {"rope_theta": 500.0, "norm_eps": 1e-2}),
        ("qwen3", {"rope_theta": 1e6, "head_dim": 24}),
        ("phi", {"rotary_dim": 8, "norm_eps": 1e-2}),
        ("mistral", {"sliding_window": 12}),
        ("qwen2-windowed", {"sliding_window_layers": 2}),
        ("qwen3-windowed", {"sliding_window": 7}),
        ("qwen3-moe", {"norm_topk_prob": False, "num_experts_per_tok": 3}),
        ("olmoe", {"norm_topk_prob": True, "rope_theta": 500.0}),
    ],
)
def test_what_a_configuration_says_reaches_it(make_tiny, name, changes):
    changed = make_tiny(name, **changes)
    assert theirs(changed) == ours(changed)
    assert theirs(changed) != theirs(make_tiny(name))


def test_prompts_in_pieces_give_the_same_tokens(llama):
    """No more than eight tokens fit into one turn of its loop."""
    assert theirs(llama, rows=8) == ours(llama)


SHAPES = (
    Shape(3, 20),
    Shape(0, 0, 2, 10),
    Shape(0, 0, 1, 10, 30),
    Shape(2, 8, 1, 16),
    Shape(3, 40, 2, 8, 16),
)


@pytest.mark.parametrize("shape", SHAPES, ids=Shape.label)
def test_a_stage_runs_its_shape_again_and_again(llama, shape):
    engine = TransformersEngine.open(llama, dtype="fp32", device="cpu", shapes=SHAPES, seed=0)
    stage = engine.stage(shape, np.random.default_rng(1))
    ios = engine.processor.inputs_and_outputs
    for _ in range(3):
        timing = stage.time()
        assert 0 < timing.host_s < timing.latency_s
        starts = shape.contexts(llama.max_position_embeddings)
        for _ in range(shape.prefill_seqs):
            starts += range(shape.prefill_ctx, shape.prefill_ctx + shape.prefill_new)
        assert ios.position_ids[: len(starts)].tolist() == starts
        keys = shape.decode_seqs * (shape.decode_ctx + 1)
        keys += shape.prefill_seqs * (shape.prefill_ctx + shape.prefill_new)
        assert ios.total_seqlen_k["full_attention"] == keys


def test_a_windowed_model_is_staged_with_what_its_windows_hold(make_tiny):
    """Two kinds of layers share the cache: there is room for both, and windowed ones read no more than their window."""
    windowed = make_tiny("qwen2-windowed", num_layers=11, sliding_window_layers=5)
    for shape in (Shape(1, 20), *SHAPES):
        engine = TransformersEngine.open(windowed, dtype="fp32", device="cpu", shapes=[shape], seed=0)
        engine.stage(shape, np.random.default_rng(1)).time()
        read = engine.processor.inputs_and_outputs.total_seqlen_k
        decodes = sum(min(cached, 8) + 1 for cached in shape.contexts(windowed.max_position_embeddings))
        assert read["sliding_attention"] == decodes + shape.prefill_seqs * (
            min(shape.prefill_ctx, 8) + shape.prefill_new
        )


def test_a_new_prompt_gets_its_pages_within_the_iteration(llama):
    engine = TransformersEngine.open(llama, dtype="fp32", device="cpu", shapes=SHAPES, seed=0)
    stage = engine.stage(Shape(0, 0, 2, 10), np.random.default_rng(1))
    for _ in range(2):
        assert engine.processor.cache.compute_free_capacity() == 1.0
        stage.time()


def test_a_stage_leaves_nothing_to_the_next(llama):
    engine = TransformersEngine.open(llama, dtype="fp32", device="cpu", shapes=SHAPES, seed=0)
    rng = np.random.default_rng(1)
    free = engine.processor.cache.compute_free_capacity()
    for shape in SHAPES * 2:
        engine.stage(shape, rng).time()
    engine.processor.reset()
    assert engine.processor.cache.compute_free_capacity() == free == 1.0


def test_weights_and_cache_are_not_zeros(paged_by_it):
    engine = build(paged_by_it)
    assert all(bool((weight != 0).any()) for weight in engine.model.parameters())
    cache = engine.processor.cache.cache_tensor.view(torch.float32)
    assert bool(cache.isfinite().all())
    assert (cache != 0).float().mean() > 0.99


def test_a_scheduler_that_does_otherwise_is_found(llama):
    engine = TransformersEngine.open(llama, dtype="fp32", device="cpu", shapes=SHAPES, seed=0)
    stage = engine.stage(Shape(3, 20), np.random.default_rng(1))
    engine.processor.scheduler.max_requests_per_batch = 2
    with pytest.raises(DeviceError, match="ran 2 sequences and 2 tokens for decode 3×20"):
        stage.time()
    engine.processor.reset()
    with pytest.raises(DeviceError, match="nothing to run"):
        engine.step()


def test_a_cache_that_does_not_fit_is_an_answer(llama):
    with pytest.raises(InfeasibleError, match="--reach"):
        build(llama, pages=10**8)


def test_another_version_is_refused_in_one_sentence(llama, monkeypatch):
    def older(*, block_size=32):
        return None

    monkeypatch.setattr(loaded()[0], "ContinuousBatchingConfig", older)
    with pytest.raises(DeviceError, match=r"not as the one this was written for .*simslm\[transformers\]"):
        build(llama)


def measure(tmp_path, **options):
    return tiny_campaigns.measure(tmp_path, engine="transformers", **options)


def test_a_campaign_writes_a_trace_like_any_other(tmp_path, quick_campaign, llama):
    trace = read_trace(measure(tmp_path))
    version = loaded()[0].__version__
    assert trace.provenance["engine"] == f"transformers {version} continuous batching"
    assert trace.provenance["attention"] == "sdpa"
    assert trace.provenance["block_size"] == 256
    settings = trace.provenance["engine_settings"]
    assert (settings["async_batching"], settings["prefix_sharing"]) == (False, False)
    assert "own engine's only" in trace.provenance["kernels_note"]
    assert trace.kernels is None
    rows = trace.iterations.to_pandas()
    shapes = measured_shapes(llama, "cpu", "quick", 10**6, 256)
    names = ["decode_seqs", "decode_ctx_tokens", "prefill_seqs", "prefill_tokens", "prefill_ctx_tokens"]
    measured = gathered(trace.iterations)
    assert {tuple(row) for row in rows[names].to_numpy()} >= {tuple(s.columns().values()) for s in shapes}
    assert any(s.prefill_ctx for s in shapes)
    assert trace.heldout is not None
    assert (rows.host_s > 0).all()
    assert (rows.host_s < rows.latency_s).all()
    assert not [finding for finding in check_trace(trace) if finding.severity == "error"]
    cost = MeasuredCost(trace, llama, load_device("cpu"), "fp32")
    assert cost.engine == trace.provenance["engine"]
    costs = cost.evaluate(measured.work)
    assert costs.in_domain.all()
    assert (costs.host_s > 0).all()


def test_power_is_read_under_its_load(tmp_path, quick_campaign):
    readings = (2.0 * i for i in range(10**6))
    trace = read_trace(measure(tmp_path, repeats=1, meter=ReplayMeter(readings, window_s=1e-3)))
    assert set(trace.power.to_pandas().state) == {"idle", "decode", "prefill"}
    assert (trace.iterations.to_pandas().power_w > 0).all()


def test_replicas_are_refused(tmp_path, quick_campaign):
    with pytest.raises(UsageError, match="engine simslm only, not with transformers"):
        measure(tmp_path, replicas=[1, 2])


@pytest.mark.parametrize("part", ["transformers", "psutil"])
def test_without_the_package_it_says_what_to_install(monkeypatch, part):
    real = transformers_engine.importlib.import_module

    def lacking(name):
        if name == part:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name)

    monkeypatch.setattr(transformers_engine.importlib, "import_module", lacking)
    with pytest.raises(DeviceError, match=rf"{part} is not installed.*simslm\[transformers\]"):
        TransformersEngine.label()


def test_a_version_without_a_part_is_refused(monkeypatch):
    monkeypatch.delattr(loaded()[2], "WorkloadHints")
    with pytest.raises(DeviceError, match="has no WorkloadHints"):
        TransformersEngine.label()

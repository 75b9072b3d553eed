"""vLLM measured, on a stand-in of its interface: every shape is forced, and the trace is whole."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_campaigns
import torch

from profiler.engines.vllm_engine import BLOCK, VllmEngine
from profiler.grid import Shape, heldout_shapes, measured_shapes
from simslm.catalog.devices import load_device
from simslm.catalog.families import from_config
from simslm.cost.interpolation import MeasuredCost
from simslm.errors import DeviceError, InfeasibleError, UsageError
from simslm.traces.check import check_trace
from simslm.traces.files import read_trace
from simslm.traces.shapes import shapes as gathered


@pytest.fixture
def vllm(monkeypatch):
    """The stand-in, fresh, in the place of the package."""
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    spec = importlib.util.spec_from_file_location("vllm", Path(__file__).with_name("vllm_stand_in.py"))
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "vllm", module)
    spec.loader.exec_module(module)
    return module


SHAPES = (
    Shape(3, 20),
    Shape(4, 95),
    Shape(0, 0, 2, 10),
    Shape(0, 0, 1, 10, 32),
    Shape(2, 8, 1, 16),
    Shape(3, 41, 2, 8, 16),
)


@pytest.mark.parametrize("shape", SHAPES, ids=Shape.label)
def test_every_timed_step_has_the_shape(vllm, llama, shape):
    engine = VllmEngine.open(llama, dtype="bf16", device="cpu", shapes=SHAPES, seed=0)
    stage = engine.stage(shape, np.random.default_rng(1))
    expected = [(cached, 1) for cached in shape.contexts(llama.max_position_embeddings)]
    expected += [(shape.prefill_ctx, shape.prefill_new)] * shape.prefill_seqs
    served_before = list(engine.engine.ended)
    for _ in range(3):
        timing = stage.time()
        assert timing.latency_s > 0
        assert timing.host_s is None
        assert engine.engine.steps[-1] == expected
        assert not engine.engine.has_unfinished_requests()
    assert engine.engine.ended == served_before, "a timed step also put an end to a request"


def test_the_model_is_the_catalogues_with_room_for_the_last_token(vllm, llama):
    VllmEngine.open(llama, dtype="bf16", device="cpu", shapes=SHAPES, seed=0)
    (built,) = vllm.BUILT
    config = built.config | {"max_position_embeddings": llama.max_position_embeddings}
    assert from_config(config, llama.name) == llama
    assert built.dtype == "bfloat16"


def test_contexts_before_a_chunk_are_whole_blocks():
    shapes = [Shape(2, 9, 1, 8, cached) for cached in (0, 15, 16, 520, 1032)]
    assert [VllmEngine.possible(s).prefill_ctx for s in shapes] == [0, 0, 16, 512, 1024]
    assert all(VllmEngine.possible(s)._replace(prefill_ctx=0) == s._replace(prefill_ctx=0) for s in shapes)


def measure(tmp_path, **options):
    return tiny_campaigns.measure(tmp_path, engine="vllm", **{"threads": torch.get_num_threads()} | options)


def test_a_campaign_writes_a_trace_like_any_other(vllm, tmp_path, quick_campaign, llama):
    trace = read_trace(measure(tmp_path))
    assert trace.provenance["engine"] == "vllm 0.0.stand-in"
    assert trace.provenance["num_gpu_blocks"] == 10_000
    assert trace.kernels is None
    assert trace.heldout is not None
    rows = trace.iterations.to_pandas()
    assert rows.host_s.isna().all()
    names = ["decode_seqs", "decode_ctx_tokens", "prefill_seqs", "prefill_tokens", "prefill_ctx_tokens"]
    grid = measured_shapes(llama, "cpu", "quick", 10**6, BLOCK)
    possible = {tuple(VllmEngine.possible(s).columns().values()) for s in grid}
    found = {tuple(row) for row in rows[names].to_numpy()}
    assert found >= possible
    assert not any(row[-1] % BLOCK for row in found if row[2] == 1)
    assert (
        len(heldout_shapes(llama, 10**6, BLOCK))
        >= trace.heldout.to_pandas()[names].drop_duplicates().shape[0]
    )
    assert not [finding for finding in check_trace(trace) if finding.severity == "error"]
    costs = MeasuredCost(trace, llama, load_device("cpu"), "fp32").evaluate(gathered(trace.iterations).work)
    assert costs.in_domain.all()
    assert (costs.host_s < 1e-9).all()


def test_a_cache_that_is_too_small_is_an_answer(vllm, llama):
    vllm.ROOM["num_gpu_blocks"] = 5
    with pytest.raises(InfeasibleError, match="room for 5 KV blocks"):
        VllmEngine.open(llama, dtype="fp32", device="cpu", shapes=SHAPES, seed=0)


def test_a_prefix_that_was_evicted_is_found(vllm, llama):
    engine = VllmEngine.open(llama, dtype="fp32", device="cpu", shapes=SHAPES, seed=0)
    stage = engine.stage(Shape(0, 0, 1, 10, 32), np.random.default_rng(1))
    engine.engine.known.clear()
    with pytest.raises(DeviceError, match=r"had \[0\] tokens cached"):
        stage.time()


def test_a_scheduler_that_does_otherwise_is_found(vllm, llama):
    engine = VllmEngine.open(llama, dtype="fp32", device="cpu", shapes=SHAPES, seed=0)
    stage = engine.stage(Shape(3, 20), np.random.default_rng(1))
    engine.engine.seqs = 2
    with pytest.raises(DeviceError, match="served 2 sequences instead of 3"):
        stage.time()


def test_what_does_not_start_says_why(vllm, llama, monkeypatch):
    def refuse(**_):
        raise RuntimeError("no GPU")

    monkeypatch.setattr(vllm, "LLM", refuse)
    with pytest.raises(DeviceError, match=r"vllm 0.0.stand-in did not start \(no GPU\)"):
        VllmEngine.open(llama, dtype="fp32", device="cpu", shapes=SHAPES, seed=0)


def test_another_gpu_is_chosen_outside(vllm, llama):
    with pytest.raises(UsageError, match="CUDA_VISIBLE_DEVICES=3"):
        VllmEngine.open(llama, dtype="fp32", device="cuda:3", shapes=SHAPES, seed=0)


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(DeviceError, match=r"vllm is not installed.*pip install vllm"):
        VllmEngine.label()

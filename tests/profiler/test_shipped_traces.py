"""What the CPU traces in ``traces/`` promise: their domain, their repeats, and no hint of where they were made."""

import json
from pathlib import Path

import pytest

from profiler.grid import measured_shapes
from simslm.catalog.models import load_model
from simslm.traces.files import read_trace

SHAPE = ["decode_seqs", "decode_ctx_tokens", "prefill_seqs", "prefill_tokens", "prefill_ctx_tokens"]
TRACES = sorted(f.parent for f in (Path(__file__).parents[2] / "traces" / "cpu").glob("*/iterations.parquet"))


@pytest.fixture(params=TRACES, ids=lambda path: path.name)
def trace(request):
    return read_trace(request.param)


def test_two_models_are_shipped():
    assert {path.name for path in TRACES} >= {"opt-125m-bf16", "smollm2-135m-bf16"}


def test_every_shape_of_the_full_grid_has_five_repeats(trace):
    rows = trace.iterations.to_pandas()
    found = {shape: len(group) for shape, group in rows.groupby(SHAPE)}
    shapes = measured_shapes(load_model(trace.provenance["model"]), "cpu", "full", 10**9, 16)
    assert set(found) == {tuple(shape.columns().values()) for shape in shapes}
    assert min(found.values()) >= 5


def test_batches_reach_32_and_contexts_the_models_limit(trace):
    rows = trace.iterations.to_pandas()
    limit = load_model(trace.provenance["model"]).max_position_embeddings
    decode = rows[rows.prefill_seqs == 0]
    assert set(decode.decode_seqs) == {1, 2, 4, 8, 12, 16, 24, 32}
    longest = decode[decode.decode_ctx_tokens == decode.decode_seqs * (limit - 1)]
    assert set(longest.decode_seqs) == {1, 2, 4, 8, 12, 16, 24, 32}
    assert ((rows.prefill_seqs > 0) & (rows.decode_seqs > 0)).any()


def test_provenance_names_the_processor_and_no_place(trace):
    provenance = trace.provenance
    assert provenance["threads"] == 2
    assert "avx512_bf16" in provenance["cpu"]
    assert provenance["power_note"]
    assert "/" not in provenance["command"]
    assert not {"host", "hostname", "user", "path"} & set(provenance)
    assert "/home" not in json.dumps(provenance)

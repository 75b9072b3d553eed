"""Decode iterations replayed over one buffer: the same tokens, at any lengths, and padding that leaves no trace."""

import gc
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.engine.batch import Chunk
from profiler.engine.engine import Engine
from profiler.engine.graphs import SIZES, rerun
from profiler.engine.sampler import Sampling
from profiler.engine.weights import random_weights
from profiler.engines.own import OwnEngine
from profiler.measure.meters import NoMeter
from profiler.provenance import setting
from simslm.catalog.families import architecture_from_mapping

pytest.importorskip("triton", reason="Triton is not installed")

BLOCKS = 60
SPARE = np.arange(24)
ENGINES = {}
SIZES_OF_ONE = {
    "family": "llama",
    "num_layers": 1,
    "hidden_size": 32,
    "num_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 97,
    "max_position_embeddings": 96,
}
PROMPTS = ([5, 17, 3, 88, 41], [2] * 10, [96])


class CountingRecorder:
    """Records by rerunning, and counts."""

    def __init__(self):
        self.recorded = 0

    def __call__(self, iteration):
        self.recorded += 1
        return rerun(iteration)


def build(architecture, kind=Engine, **options):
    options = {"dtype": "fp32", "num_blocks": BLOCKS, "block_size": 4, "attention": "paged"} | options
    return kind(architecture, **options)


def tables(lengths, order):
    pages = [-(-length // 4) for length in lengths]
    return np.split(order, np.cumsum(pages))[:-1]


def decode(engine, prompts, count):
    """The ``count`` tokens that the engine appends to each prompt; prompts are run together."""
    order = np.random.default_rng(1).permutation(BLOCKS)
    blocks = tables([len(prompt) + count for prompt in prompts], order)
    sequences, cached = [list(prompt) for prompt in prompts], [0] * len(prompts)
    for _ in range(count):
        batch = [Chunk(s[c:], c, b) for s, c, b in zip(sequences, cached, blocks, strict=True)]
        cached = [len(sequence) for sequence in sequences]
        for sequence, token in zip(sequences, engine.iterate(batch), strict=True):
            sequence.append(token)
    return [sequence[len(prompt) :] for sequence, prompt in zip(sequences, prompts, strict=True)]


def test_replayed_tokens_equal_the_dense_pass(architecture, reference):
    """Three sequences, padded to four: one recording serves all their lengths, and one more their prompts."""
    recorder = CountingRecorder()
    engine = build(architecture, recorder=recorder)
    found = decode(engine, PROMPTS, 3)
    weights = random_weights(architecture, torch.float32, seed=0)
    assert found == [reference.reference_greedy(architecture, weights, prompt, 3) for prompt in PROMPTS]
    assert recorder.recorded == 2
    assert engine.graphs.sizes == [4]
    assert engine.graphs.mixed_sizes == [(16, 8)]


def test_replayed_tokens_equal_those_of_eager_iterations(make_tiny):
    recorder, thin = CountingRecorder(), make_tiny("llama-grouped-tied", num_layers=1)
    graphed, eager = build(thin, recorder=recorder), build(thin)
    for seqs, size in ((5, 8), (1, 1), (2, 2), (5, 8), (3, 4)):
        prompts = [[(7 * i + seqs) % 97 for i in range(1 + 3 * j)] for j in range(seqs)]
        assert decode(graphed, prompts, 2) == decode(eager, prompts, 2)
        assert size in graphed.graphs.sizes
    assert graphed.graphs.sizes == [1, 2, 4, 8]
    assert recorder.recorded == 4 + len(graphed.graphs.mixed_sizes)


def test_the_same_tokens_are_drawn(llama):
    sampling = Sampling(temperature=1.0, top_p=0.9)
    engines = (build(llama, sampling=sampling, recorder=rerun), build(llama, sampling=sampling))
    graphed, eager = (decode(engine, PROMPTS, 3) for engine in engines)
    assert graphed == eager


def test_padding_writes_to_the_spare_block_alone(llama):
    engine = build(llama, recorder=rerun)
    before = [keys.clone() for keys in engine.cache.keys]
    engine.iterate([Chunk([3], cached, np.array([block])) for cached, block in ((0, 7), (2, 11), (3, 5))])
    changed = {
        tuple(place)
        for old, new in zip(before, engine.cache.keys, strict=True)
        for place in (old != new).flatten(2).any(-1).nonzero().tolist()
    }
    assert changed == {(7, 0), (11, 2), (5, 3), (BLOCKS, 0)}


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("opt", {"num_layers": 1}),
        ("llama-grouped-tied", {"num_layers": 1}),
        ("gemma2", {"num_layers": 2, "sliding_window_layers": 1}),
    ],
)
def test_mixed_batches_are_replayed_as_they_run_eagerly(make_tiny, name, layers):
    """One recording serves any prompts and decodes of its size, and what pads it changes no result."""
    recorder, thin = CountingRecorder(), make_tiny(name, **layers)
    graphed, eager = build(thin, recorder=recorder), build(thin)
    order = np.random.default_rng(1).permutation(BLOCKS)
    prompt, other, decoding = (list(range(n, n + size)) for n, size in ((3, 13), (20, 2), (40, 1)))
    batches = [
        [Chunk(decoding, 9, order[:3]), Chunk(prompt, 2, order[3:8])],
        [Chunk(other, 0, order[8:9]), Chunk(decoding, 17, order[9:14]), Chunk(other, 5, order[14:16])],
        [Chunk(prompt[:5], 30, order[20:30])],
    ]
    for batch in (*batches, batches[0]):
        assert graphed.iterate(batch) == eager.iterate(batch)
    for mine, theirs in zip(graphed.cache.keys, eager.cache.keys, strict=True):
        assert torch.allclose(mine[:BLOCKS], theirs[:BLOCKS], atol=1e-5)
    assert graphed.graphs.mixed_sizes == [(16, 8)]
    assert graphed.graphs.sizes == []
    assert recorder.recorded == 1


def test_large_batches_run_eagerly(llama):
    engine = build(llama, recorder=rerun)
    token, table = Chunk([3], 0, np.array([1])), np.array([2])
    assert engine.graphs.size([token] * SIZES[-1]) == (512, 512, 0)
    assert engine.graphs.size([token] * (SIZES[-1] + 1)) is None
    assert engine.graphs.size([Chunk([3] * 513, 0, table)]) is None
    assert engine.graphs.size([token] * 511 + [Chunk([3, 4], 0, table)]) is None
    assert engine.graphs.size([token] * 300 + [Chunk([3, 4], 0, table)])[:2] == (320, 512)


@settings(max_examples=200, deadline=None)
@given(lengths=st.lists(st.integers(1, 96), min_size=1, max_size=40), kv_heads=st.sampled_from([1, 4]))
def test_a_recording_has_room_for_the_tiles_of_any_batch_of_its_size(lengths, kv_heads):
    if kv_heads not in ENGINES:
        thin = architecture_from_mapping(SIZES_OF_ONE | {"num_kv_heads": kv_heads}, name="thin")
        ENGINES[kv_heads] = build(thin, recorder=rerun)
    engine = ENGINES[kv_heads]
    batch = [Chunk(np.zeros(length, dtype=np.int64), 0, SPARE) for length in lengths]
    if (size := engine.graphs.size(batch)) is not None:
        assert engine.graphs.prepare(batch, size).integers.numel() == size.integers


def test_sizes_are_the_usual_ones():
    assert len(SIZES) == 3 + 32 + 16
    assert SIZES[:5] == (1, 2, 4, 8, 16)
    assert SIZES[-17:-14] == (256, 272, 288)
    assert SIZES[-1] == 512


def test_the_provenance_tells_what_was_recorded(llama):
    engine = build(llama, kind=OwnEngine, recorder=rerun)
    decode(engine, PROMPTS, 2)
    assert setting(engine, NoMeter("none"), 0)["graph_sizes"] == [4]
    eager = build(llama, kind=OwnEngine, recorder=rerun, enforce_eager=True)
    assert setting(eager, NoMeter("none"), 0)["graph_sizes"] is None


def test_a_recording_is_of_the_buffer_not_of_the_batch(llama):
    """The recording, run again after the buffer changed, gives what the buffer says now."""
    kept = []

    def recorder(iteration):
        kept.append(iteration)
        return iteration

    engine = build(llama, recorder=recorder)
    first, second = (engine.prepare([Chunk([token], 0, np.array([3]))]) for token in (5, 60))
    found = [int(engine.run(rows)) for rows in (first, second, first)]
    with torch.inference_mode():
        assert int(kept[0]()) == found[2] == found[0] != found[1]
    assert len(kept) == 1


def test_buffers_that_a_recording_writes_to_live_as_long_as_it(make_tiny):
    """A CUDA graph knows addresses only: nothing else keeps the parts of split contexts."""
    made = []

    class Forgetful:
        def __call__(self, iteration):
            result = iteration()
            return lambda: result

    engine = build(make_tiny("llama-grouped-tied", max_position_embeddings=512), recorder=Forgetful())
    planned = engine.attention.plan

    def plan(*args):
        found = planned(*args)
        made.append([weakref.ref(launch.partial) for launch in found.launches if launch.partial is not None])
        return found

    engine.attention.plan = plan
    engine.run(engine.prepare([Chunk([5], 0, np.array([3]))]))
    gc.collect()
    assert made[-1]
    assert all(partial() is not None for partial in made[-1])

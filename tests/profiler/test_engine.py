"""The engine's logits and greedy tokens against the dense float64 pass, for every family and layout."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from profiler.engine.batch import Chunk
from profiler.engine.engine import Engine, open_device, torch_dtype
from profiler.engine.sampler import Sampling, sample
from profiler.engine.weights import random_weights
from simslm.errors import DeviceError, UsageError

BLOCKS = 40
PROMPTS = ([5, 17, 3, 88, 41, 9, 60], [2] * 19, [31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21], [96])


def build(architecture, **options):
    options = {"dtype": "fp32", "num_blocks": BLOCKS, "block_size": 4} | options
    return Engine(architecture, **options)


def weights_of(architecture, kind=torch.float32):
    return random_weights(architecture, kind, seed=0)


def tables(engine, lengths, order=None):
    """A block table for each length, taken from ``order`` (by default every block in a row)."""
    order = np.arange(BLOCKS) if order is None else order
    size, out = engine.cache.block_size, []
    for length in lengths:
        pages = -(-length // size)
        out.append(order[:pages])
        order = order[pages:]
    return out


def close(found, expected, tolerance=2e-4):
    expected = expected.to(torch.float64)
    scale = expected.abs().max()
    return bool((found.double() - expected).abs().max() <= tolerance * scale)


def test_prompt_logits_equal_the_dense_pass(architecture, reference, attention):
    engine = build(architecture, attention=attention)
    blocks = tables(engine, [len(p) for p in PROMPTS])
    batch = [Chunk(p, 0, b) for p, b in zip(PROMPTS, blocks, strict=True)]
    found = engine.logits(batch)
    weights = weights_of(architecture)
    for row, prompt in zip(found, PROMPTS, strict=True):
        assert close(row, reference.reference_logits(architecture, weights, prompt)[-1])


def test_greedy_tokens_equal_the_dense_pass(architecture, reference, attention):
    engine = build(architecture, attention=attention)
    count = 4
    blocks = tables(engine, [len(p) + count for p in PROMPTS])
    sequences = [list(p) for p in PROMPTS]
    cached = [0] * len(sequences)
    for _ in range(count):
        batch = [Chunk(s[c:], c, b) for s, c, b in zip(sequences, cached, blocks, strict=True)]
        cached = [len(s) for s in sequences]
        for sequence, token in zip(sequences, engine.iterate(batch), strict=True):
            sequence.append(token)
    weights = weights_of(architecture)
    for sequence, prompt in zip(sequences, PROMPTS, strict=True):
        assert sequence[len(prompt) :] == reference.reference_greedy(architecture, weights, prompt, count)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_stays_near_the_dense_pass(architecture, reference, attention, dtype):
    """All experts are passed: where two are nearly as good, rounding decides, and nothing is near."""
    architecture = replace(architecture, num_experts_per_tok=architecture.num_experts)
    kind = torch_dtype(dtype)
    engine = build(architecture, dtype=dtype, attention=attention)
    prompt = PROMPTS[0]
    found = engine.logits([Chunk(prompt, 0, np.arange(8))])[0]
    expected = reference.reference_logits(architecture, weights_of(architecture, kind), prompt)[-1]
    assert close(found, expected, tolerance=0.06)


def test_shuffled_blocks_equal_contiguous_blocks(llama, attention):
    prompt = list(range(40))
    results = []
    for order in (np.arange(BLOCKS), np.random.default_rng(3).permutation(BLOCKS)):
        engine = build(llama, attention=attention)
        blocks = tables(engine, [41], order)[0]
        first = engine.logits([Chunk(prompt, 0, blocks)])
        second = engine.logits([Chunk([7], 40, blocks)])
        results.append(torch.cat([first, second]))
    assert torch.equal(*results)


@pytest.mark.parametrize("sizes", [(40,), (1,) * 40, (16, 16, 8), (3, 30, 7)])
def test_chunked_prompt_equals_whole_prompt(architecture, reference, attention, sizes):
    if attention == "paged" and len(sizes) == 40:
        pytest.skip("40 iterations take long in Triton's interpreter")
    engine = build(architecture, attention=attention)
    prompt = [(7 * i) % 97 for i in range(40)]
    blocks, start = np.random.default_rng(1).permutation(BLOCKS)[:10], 0
    for size in sizes:
        logits = engine.logits([Chunk(prompt[start : start + size], start, blocks)])
        start += size
    expected = reference.reference_logits(architecture, weights_of(architecture), prompt)[-1]
    assert close(logits[0], expected)


@pytest.mark.parametrize("new", [1, 8])
def test_what_lies_before_a_window_is_not_read(make_tiny, attention, new):
    """Where it would be read, not a number would come of it. The kernel reads 32 keys at a time, the others a page."""
    engine = build(make_tiny("mistral"), attention=attention)
    prompt, blocks = [(7 * i) % 97 for i in range(48)], np.random.default_rng(1).permutation(BLOCKS)[:12]
    chunk = Chunk(prompt[40 : 40 + new], 40, blocks)
    engine.logits([Chunk(prompt[:40], 0, blocks)])
    before = engine.logits([chunk])
    for layer in (*engine.cache.keys, *engine.cache.values):
        layer[torch.from_numpy(blocks[:8])] = float("nan")
    assert torch.equal(engine.logits([chunk]), before)
    engine.cache.values[0][int(blocks[9])] += 1.0
    assert not torch.equal(engine.logits([chunk]), before)


@pytest.mark.parametrize("attention", ["tiled", "fused"])
def test_a_plan_serves_all_layers_while_windows_hide_nothing(make_tiny, attention):
    engine = build(make_tiny("gemma2"), attention=attention)
    short, long = (engine.lay_out([Chunk([1], cached, np.arange(3))]).spans for cached in (5, 6))
    assert short[6] is short[None]
    assert long[6] is not long[None]


def test_embeddings_are_scaled_by_a_rounded_root(make_tiny):
    """As in the reference, where the square root of 32 is 5.65625 in bf16."""
    gemma = make_tiny("gemma2")
    engine = build(gemma, dtype="bf16")
    found = engine.model.embed(engine.lay_out([Chunk([5, 96], 0, np.arange(1))]))
    assert torch.equal(
        found, weights_of(gemma, torch.bfloat16)["embedding"][[5, 96]] * torch.tensor(5.65625).bfloat16()
    )


@pytest.mark.parametrize("name", ["llama-grouped-tied", "gemma2"])
@pytest.mark.parametrize("attention", ["tiled", "fused"])
def test_long_prompts_are_tiled_correctly(make_tiny, reference, name, attention):
    long = make_tiny(name, max_position_embeddings=700)
    engine = build(long, num_blocks=200, attention=attention)
    prompt = [(11 * i) % 97 for i in range(600)]
    blocks = np.random.default_rng(1).permutation(200)[:150]
    engine.logits([Chunk(prompt[:70], 0, blocks)])
    found = engine.logits([Chunk(prompt[70:], 70, blocks)])[0]
    expected = reference.reference_logits(long, weights_of(long), prompt)[-1]
    assert close(found, expected)
    plans = engine.lay_out([Chunk(prompt, 0, blocks)]).spans.values()
    assert (attention, name) == ("fused", "llama-grouped-tied") or all(
        len(spans[0].tiles) > 1 for spans in plans
    )


def test_company_does_not_change_a_sequence(architecture, attention):
    """A mixed batch of chunks and decodes gives each sequence what it gets alone."""
    lengths = [(12, 0), (5, 9), (1, 30), (1, 3), (1, 17), (1, 18), (20, 0)]

    def logits(together):
        engine = build(architecture, attention=attention)
        order = np.random.default_rng(5).permutation(BLOCKS)
        blocks = tables(engine, [new + cached for new, cached in lengths], order)
        chunks = []
        for (new, cached), table in zip(lengths, blocks, strict=True):
            tokens = [(5 * i + cached) % 97 for i in range(cached + new)]
            if cached:
                engine.logits([Chunk(tokens[:cached], 0, table)])
            chunks.append(Chunk(tokens[cached:], cached, table))
        if together:
            return engine.logits(chunks)
        return torch.cat([engine.logits([chunk]) for chunk in chunks])

    assert close(logits(together=True), logits(together=False), tolerance=1e-5)


def test_unread_cache_is_not_zero(llama):
    engine = build(llama)
    assert all((keys != 0).float().mean() > 0.99 for keys in (*engine.cache.keys, *engine.cache.values))


def test_weights_are_as_many_as_the_catalogue_counts(architecture):
    assert sum(w.numel() for w in weights_of(architecture).values()) == architecture.parameters()


def test_blocks_have_one_owner_and_come_back(llama):
    pool = build(llama).pool
    first, second = pool.allocate(15), pool.allocate(25)
    assert sorted([*first, *second]) == list(range(BLOCKS))
    with pytest.raises(DeviceError, match="0 free blocks of 40"):
        pool.allocate(1)
    pool.release(first)
    assert sorted(pool.allocate(15)) == sorted(first)


def test_nucleus_sampling_draws_inside_the_nucleus_in_proportion():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().repeat(20_000, 1)
    generator = torch.Generator().manual_seed(0)
    drawn = sample(logits, Sampling(temperature=1.0, top_p=0.7), generator)
    shares = torch.bincount(drawn, minlength=4) / len(drawn)
    assert shares[2:].sum() == 0
    assert float(shares[0]) == pytest.approx(0.5 / 0.8, abs=0.02)


def test_greedy_takes_the_largest_logit():
    assert sample(torch.tensor([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0]])).tolist() == [1, 0]


@pytest.mark.parametrize(
    "changes",
    [
        {"norm_offset": True, "qk_norm": True},
        {"post_norms": True, "parallel_block": True},
        {"family": "gemma2", "sliding_window": 8, "sliding_window_layers": 2},
        {"num_experts": 4, "activation": "gelu"},
        {"num_experts": 4, "mlp_bias": True},
    ],
)
def test_a_model_the_engine_lacks_is_refused(make_tiny, changes):
    with pytest.raises(UsageError, match="the measured engine has no"):
        build(make_tiny("llama", **changes))


def test_dtype_and_device_are_refused_with_a_remedy():
    with pytest.raises(UsageError, match="did you mean 'bf16'"):
        torch_dtype("bf6")
    with pytest.raises(UsageError, match="neither cpu nor cuda"):
        open_device("tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_cuda_device_is_an_answer():
    with pytest.raises(DeviceError, match="not there"):
        open_device("cuda:0")

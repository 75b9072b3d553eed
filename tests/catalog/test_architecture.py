"""Parameter counts, weights and KV cache from the architecture alone."""

import pytest

from simslm.catalog.models import load_model, model_entry, model_names
from simslm.errors import ScenarioError, UsageError

CONTRACT_MODELS = [
    "opt-125m",
    "opt-350m",
    "opt-1.3b",
    "opt-2.7b",
    "opt-6.7b",
    "llama-2-7b",
    "llama-2-13b",
    "llama-3.1-8b",
    "llama-3.2-1b",
    "llama-3.2-3b",
    "qwen2.5-0.5b",
    "qwen2.5-1.5b",
    "qwen2.5-3b",
    "qwen2.5-7b",
    "qwen3-0.6b",
    "qwen3-1.7b",
    "qwen3-4b",
    "qwen3-8b",
    "smollm2-135m",
    "smollm2-360m",
    "smollm2-1.7b",
    "tinyllama-1.1b",
    "phi-2",
    "gemma-2-2b",
]


def test_the_catalogue_holds_the_contract_s_models():
    assert set(CONTRACT_MODELS) <= set(model_names())


@pytest.mark.parametrize("name", model_names())
def test_parameters_match_the_published_count(name):
    entry = model_entry(name)
    assert entry.architecture.parameters() == pytest.approx(entry.published_parameters, rel=0.01)
    assert entry.source.startswith("https://")
    assert entry.published_parameters_source


MIXTURES = [name for name in model_names() if model_entry(name).architecture.num_experts > 1]


@pytest.mark.parametrize("name", MIXTURES)
def test_active_parameters_match_the_published_count(name):
    entry = model_entry(name)
    assert entry.published_active_parameters is not None
    assert entry.architecture.active_parameters() == pytest.approx(
        entry.published_active_parameters, rel=0.02
    )
    assert entry.architecture.parameters() == entry.published_parameters
    assert entry.published_active_parameters_source


def test_a_dense_model_is_all_active():
    for name in set(model_names()) - set(MIXTURES):
        entry = model_entry(name)
        assert entry.architecture.active_parameters() == entry.architecture.parameters()
        assert entry.published_active_parameters is None


def test_the_catalogue_has_two_mixtures_of_experts():
    assert {"qwen3-30b-a3b", "olmoe-1b-7b"} <= set(MIXTURES)


def test_olmoe_counted_by_hand():
    """A router and 64 experts per layer; one norm over all query heads, one over all key heads."""
    hidden, wide, vocab, layers, experts = 2048, 1024, 50304, 16, 64
    layer = 4 * hidden * hidden + hidden * experts + experts * 3 * hidden * wide + 4 * hidden
    model = load_model("olmoe-1b-7b")
    assert model.parameters() == 2 * vocab * hidden + layers * layer + hidden
    assert model.parameters() - model.active_parameters() == layers * 56 * 3 * hidden * wide


def test_a_token_passes_at_most_all_experts():
    from dataclasses import replace

    with pytest.raises(ScenarioError, match=r"num_experts_per_tok \(65\) is more than num_experts \(64\)"):
        replace(load_model("olmoe-1b-7b"), num_experts_per_tok=65)
    with pytest.raises(ScenarioError, match="num_experts: expected a whole number of at least 1"):
        replace(load_model("olmoe-1b-7b"), num_experts=0)


def test_opt_350m_counted_by_hand():
    """Norm after each sub-layer, none at the end, embeddings of 512 projected to 1024 and back."""
    hidden, layers, vocab, narrow = 1024, 24, 50272, 512
    layer = 4 * (hidden * hidden + hidden) + 2 * 4 * hidden * hidden + 5 * hidden + 2 * 2 * hidden
    expected = vocab * narrow + 2 * narrow * hidden + (2048 + 2) * hidden + layers * layer
    model = load_model("opt-350m")
    assert model.parameters() == expected
    assert (model.norm_first, model.final_norm, model.embedding_size) == (False, False, 512)


def test_gemma_2_counted_by_hand():
    """Heads wider than the hidden size, four norms per layer, tied table."""
    hidden, heads, kv, dim, wide, vocab, layers = 2304, 8, 4, 256, 9216, 256000, 26
    layer = 2 * hidden * heads * dim + 2 * hidden * kv * dim + 3 * hidden * wide + 4 * hidden
    assert load_model("gemma-2-2b").parameters() == vocab * hidden + layers * layer + hidden


@pytest.mark.parametrize(
    ("name", "kv_bytes"),
    [
        ("opt-1.3b", 2 * 24 * 2048 * 2),
        ("llama-2-7b", 2 * 32 * 4096 * 2),
        ("llama-3.1-8b", 2 * 32 * 8 * 128 * 2),
        ("qwen3-0.6b", 2 * 28 * 8 * 128 * 2),
        ("gemma-2-2b", 2 * 26 * 4 * 256 * 2),
    ],
)
def test_kv_bytes_per_token(name, kv_bytes):
    model = load_model(name)
    assert model.kv_bytes_per_token("bf16") == kv_bytes
    assert model.kv_bytes_per_token("fp32") == 2 * kv_bytes
    assert model.kv_bytes_per_token("fp8") == kv_bytes // 2


def test_weight_bytes_follow_the_data_type():
    model = load_model("opt-125m")
    assert model.weight_bytes("fp16") == 2 * 125_239_296
    with pytest.raises(UsageError, match=r"unknown dtype 'bf61' .did you mean 'bf16'"):
        model.weight_bytes("bf61")


def test_heads_must_share_the_kv_heads_evenly():
    from dataclasses import replace

    with pytest.raises(ScenarioError, match="multiple of num_kv_heads"):
        replace(load_model("llama-3.1-8b"), num_kv_heads=5)
    with pytest.raises(ScenarioError, match="num_layers: expected a whole number of at least 1, found 0"):
        replace(load_model("llama-3.1-8b"), num_layers=0)


def test_the_architecture_needs_no_pandas_or_pyarrow():
    import subprocess
    import sys

    code = (
        "import sys; from simslm.catalog.models import load_model; load_model('opt-125m');"
        "import simslm.catalog.work, simslm.catalog.devices;"
        "sys.exit(bool({'pandas', 'pyarrow', 'torch', 'scipy', 'pydantic'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

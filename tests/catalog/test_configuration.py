"""Architectures written as ``config.json`` and read again."""

import pytest

from simslm.catalog.configuration import to_config
from simslm.catalog.families import architecture_from_mapping, from_config
from simslm.catalog.models import load_model, model_names
from simslm.errors import ScenarioError

CLASSES = {
    "opt": "OPT",
    "llama": "Llama",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "qwen3_moe": "Qwen3Moe",
    "olmoe": "Olmoe",
    "phi": "Phi",
    "gemma2": "Gemma2",
}
NAMES = [name for name in model_names() if load_model(name).family in CLASSES]
SIZES = {
    "num_layers": 2,
    "hidden_size": 32,
    "num_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 97,
    "max_position_embeddings": 96,
}


def test_every_family_has_models_to_try():
    assert {load_model(name).family for name in NAMES} == set(CLASSES)
    assert len(NAMES) >= 20


@pytest.mark.parametrize("name", NAMES)
def test_a_model_of_the_catalogue_comes_back_as_it_was(name):
    model = load_model(name)
    config = to_config(model)
    assert from_config(config, name) == model
    mistral = model.family == "llama" and model.sliding_window
    assert config["architectures"] == [("Mistral" if mistral else CLASSES[model.family]) + "ForCausalLM"]


@pytest.mark.parametrize(
    "changes",
    [
        {"family": "llama", "sliding_window": 8, "sliding_window_layers": 2},
        {"family": "qwen2", "sliding_window": 8, "sliding_window_layers": 1},
        {"family": "qwen3", "sliding_window": 8, "sliding_window_layers": 2},
        {"family": "gemma2", "sliding_window": 8, "sliding_window_layers": 1, "query_pre_attn_scalar": 5},
        {"family": "gemma2", "attention_softcap": 20.0, "logit_softcap": 7.0},
    ],
)
def test_windows_caps_and_scales_come_back(changes):
    model = architecture_from_mapping(SIZES | changes, name="odd")
    assert from_config(to_config(model), "odd") == model


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"family": "llama", "sliding_window": 8, "sliding_window_layers": 1}, "sliding_window_layers"),
        ({"family": "llama", "qkv_bias": True}, "qkv_bias"),
        ({"family": "opt", "head_dim": 16}, "head_dim"),
        ({"family": "qwen2", "norm_first": False}, "norm_first"),
        ({"family": "llama", "num_experts": 4}, "num_experts"),
        ({"family": "olmoe", "head_dim": 16}, "head_dim"),
    ],
)
def test_what_a_config_cannot_say_is_refused(changes, word):
    model = architecture_from_mapping(SIZES | changes, name="odd")
    with pytest.raises(ScenarioError, match=word):
        to_config(model)

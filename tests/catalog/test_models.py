"""Models by name, by Hugging Face configuration, and inline."""

import json
from dataclasses import asdict

import pytest

from simslm.catalog.files import read_entry, read_mapping
from simslm.catalog.models import architecture_from_mapping, load_model, model_names, named_model
from simslm.errors import ScenarioError, UsageError

MISTRAL = {
    "_name_or_path": "mistralai/Mistral-7B-v0.1",
    "model_type": "mistral",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 32000,
    "max_position_embeddings": 32768,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "sliding_window": 4096,
    "tie_word_embeddings": False,
}


def write_config(folder, config, name="config.json"):
    path = folder / name
    path.write_text(json.dumps(config))
    return path


@pytest.mark.parametrize("name", model_names())
def test_a_configuration_file_gives_the_catalogue_s_architecture(name, tmp_path):
    config = read_entry("models", name)["config"] | {"architectures": ["X"], "torch_dtype": "float16"}
    path = write_config(tmp_path, config | {"_name_or_path": f"somewhere/{name.upper()}"})
    assert load_model(path) == load_model(name)
    assert load_model(tmp_path) == load_model(name)


@pytest.mark.parametrize("name", model_names())
def test_an_inline_architecture_gives_it_too(name):
    model = load_model(name)
    assert architecture_from_mapping(asdict(model)) == model


def test_an_inline_architecture_needs_only_what_its_family_leaves_open():
    given = {
        "family": "llama",
        "num_layers": 4,
        "hidden_size": 256,
        "num_heads": 4,
        "intermediate_size": 512,
        "vocab_size": 1000,
        "max_position_embeddings": 512,
    }
    model = architecture_from_mapping(given)
    assert (model.name, model.num_kv_heads, model.head_dim, model.rotary_dim) == ("inline", 4, 64, 64)
    assert model.parameters() == 2 * 1000 * 256 + 4 * (4 * 256**2 + 3 * 256 * 512 + 2 * 256) + 256
    assert architecture_from_mapping(given | {"head_dim": 32}).query_size == 128


def test_a_mistral_like_model_is_a_llama_with_a_window(tmp_path):
    model = load_model(write_config(tmp_path, MISTRAL))
    assert (model.name, model.family) == ("mistral-7b-v0.1", "llama")
    assert model.parameters() == pytest.approx(7_241_732_096, rel=1e-9)
    assert (model.sliding_window, model.sliding_window_layers) == (4096, 32)
    unwindowed = load_model(write_config(tmp_path, MISTRAL | {"sliding_window": None}))
    assert (unwindowed.sliding_window, unwindowed.sliding_window_layers) == (None, 0)


def test_a_null_cap_is_no_cap(tmp_path):
    config = read_entry("models", "gemma-2-2b")["config"] | {"attn_logit_softcapping": None}
    model = load_model(write_config(tmp_path, config))
    assert (model.attention_softcap, model.logit_softcap) == (None, 30.0)


def test_gemma_2_27b_scales_its_scores_by_what_it_says(tmp_path):
    assert load_model("gemma-2-2b").query_pre_attn_scalar == load_model("gemma-2-2b").head_dim == 256
    config = read_entry("models", "gemma-2-2b")["config"] | {"query_pre_attn_scalar": 144, "head_dim": 128}
    assert load_model(write_config(tmp_path, config)).query_pre_attn_scalar == 144
    assert load_model("opt-125m").query_pre_attn_scalar == 64


def test_keys_left_out_have_the_defaults_of_transformers(tmp_path):
    config = read_entry("models", "qwen3-0.6b")["config"]
    short = {key: value for key, value in config.items() if key not in ("head_dim", "hidden_act")}
    assert load_model(write_config(tmp_path, short)).head_dim == 128


def test_qwen_windows_its_last_layers_when_told_to(tmp_path):
    config = read_entry("models", "qwen2.5-7b")["config"]
    config |= {"use_sliding_window": True, "sliding_window": 1024, "max_window_layers": 20}
    assert load_model(write_config(tmp_path, config)).sliding_window_layers == 8


@pytest.mark.parametrize("change", [{"decoder_sparse_step": 2}, {"mlp_only_layers": [0, 1]}])
def test_experts_in_some_blocks_only_are_refused(change, tmp_path):
    config = read_entry("models", "qwen3-30b-a3b")["config"] | change
    with pytest.raises(ScenarioError, match="only some of the model's blocks have experts"):
        load_model(write_config(tmp_path, config))


@pytest.mark.parametrize(
    ("changes", "windows"),
    [
        ({"family": "gemma2", "sliding_window": 8, "sliding_window_layers": 3}, (8, None, 8, None, 8)),
        ({"family": "llama", "sliding_window": 8, "sliding_window_layers": 5}, (8,) * 5),
        ({"family": "qwen2", "sliding_window": 8, "sliding_window_layers": 2}, (None, None, None, 8, 8)),
        ({"family": "qwen3", "sliding_window": 64, "sliding_window_layers": 5}, (None,) * 5),
        ({"family": "llama"}, (None,) * 5),
    ],
)
def test_each_family_windows_its_own_layers(changes, windows):
    """A window as long as the longest context hides nothing."""
    sizes = {"num_layers": 5, "hidden_size": 32, "num_heads": 4, "intermediate_size": 48}
    sizes |= {"vocab_size": 97, "max_position_embeddings": 64}
    assert architecture_from_mapping(sizes | changes).windows() == windows


def test_shares_of_experts_sum_to_one_where_the_configuration_says_so(tmp_path):
    """The checkpoints of Qwen3-MoE say so; the classes of transformers do not."""
    assert load_model("qwen3-30b-a3b").norm_topk_prob
    assert not load_model("olmoe-1b-7b").norm_topk_prob
    config = read_entry("models", "qwen3-30b-a3b")["config"]
    del config["norm_topk_prob"]
    assert not load_model(write_config(tmp_path, config)).norm_topk_prob


def test_a_windowed_mixture_windows_every_layer(tmp_path):
    config = read_entry("models", "qwen3-30b-a3b")["config"] | {
        "use_sliding_window": True,
        "sliding_window": 64,
    }
    assert load_model(write_config(tmp_path, config)).sliding_window_layers == 48
    assert load_model("qwen3-30b-a3b").sliding_window is None


def test_newer_configurations_keep_theta_in_rope_parameters(tmp_path):
    config = read_entry("models", "llama-3.2-1b")["config"]
    del config["rope_theta"]
    path = write_config(tmp_path, config | {"rope_parameters": {"rope_theta": 5e5, "rope_type": "llama3"}})
    assert load_model(path).rope_theta == 5e5


def test_a_relative_path_is_taken_from_the_given_folder(tmp_path):
    write_config(tmp_path, MISTRAL, "mistral.json")
    assert load_model("mistral.json", base_dir=tmp_path).num_layers == 32


def test_an_unknown_name_names_the_nearest():
    with pytest.raises(UsageError, match=r"no model 'opt-1\.3' in the catalogue .did you mean 'opt-1.3b'"):
        load_model("opt-1.3")
    with pytest.raises(UsageError, match="simslm list models"):
        load_model("facebook/nothing-like-it")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "mixtral"}, "model_type 'mixtral' is not supported"),
        ({"model_type": None}, "model_type None is not supported"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"num_hidden_layers": "many"}, "num_layers: expected a whole number of at least 1, found 'many'"),
        ({"hidden_act": "swish2"}, "activation 'swish2' is not supported"),
        ({"num_attention_heads": 7}, "must divide hidden_size"),
        ({"num_attention_heads": 0}, "must divide hidden_size"),
    ],
)
def test_a_wrong_configuration_names_file_and_fault(change, message, tmp_path):
    path = write_config(tmp_path, MISTRAL | {"sliding_window": None} | change)
    with pytest.raises(ScenarioError, match=message) as caught:
        load_model(path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize("text", ["{", "[1, 2]", "", "a: b: c"])
def test_a_damaged_configuration_is_one_clear_error(text, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ScenarioError) as caught:
        load_model(path)
    assert caught.value.where.startswith(str(path))


def test_a_missing_configuration_is_one_clear_error(tmp_path):
    with pytest.raises(ScenarioError, match="No such file"):
        load_model(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"family": "llama", "num_layer": 3}, "unknown key 'num_layer' .did you mean 'num_layers'"),
        ({"family": "lama"}, "found 'lama' .did you mean 'llama'"),
        ({}, "model.family: expected one of opt"),
        ({"family": "opt", "num_heads": 2, "hidden_size": 4}, "num_layers is missing"),
    ],
)
def test_a_wrong_inline_architecture_is_one_clear_error(mapping, message):
    with pytest.raises(ScenarioError, match=message):
        architecture_from_mapping(mapping)


def test_a_configuration_may_be_indented_with_tabs(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(MISTRAL, indent="\t"))
    assert load_model(path).norm_eps == 1e-5


def test_a_damaged_data_file_names_its_line(tmp_path):
    path = tmp_path / "entry.yaml"
    path.write_text("a: 1\nb: c: 2\n")
    with pytest.raises(ScenarioError, match="not valid YAML") as caught:
        read_mapping(path)
    assert caught.value.where == f"{path}:2"


@pytest.mark.parametrize("name", model_names())
def test_every_model_goes_by_its_repository_too(name):
    """By the one it was read from, of any owner, in any case, instruct and chat ones, as a folder and in the cache."""
    repository = read_entry("models", name)["source"].partition(".co/")[2].partition("/blob/")[0]
    owner, base = repository.split("/")
    for known in (
        name, repository, f"someone/{base.lower()}", f"{name}-Instruct", f"{repository}-chat", f"/data/{base}/",
        f"/hub/models--{owner}--{base}/snapshots/0123abc",
    ):  # fmt: skip
        assert named_model(known) == name, known
    assert load_model(repository).name == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "my-model",
        "Qwen/Qwen2.5-0.5B-Instruct-AWQ",
        "Qwen/Qwen3-8B-FP8",
        "Qwen/Qwen2.5-14B",
        "acme/R1-Qwen-7B",
    ],
)
def test_other_models_are_not_taken_for_one_of_the_catalogue(name):
    assert named_model(name) is None


def test_tuning_in_the_middle_of_a_name_does_not_count():
    assert named_model("mistralai/Mistral-7B-Instruct-v0.3") == "mistral-7b-v0.3"
    assert named_model("meta-llama/Llama-2-7b-chat-hf") == "llama-2-7b"
    assert named_model("meta-llama/Meta-Llama-3.1-8B-Instruct") == "llama-3.1-8b"
    assert named_model("google/gemma-2-2b-it") == "gemma-2-2b"

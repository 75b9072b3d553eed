"""What each family of models fixes, and which keys of its Hugging Face ``config.json`` have the rest.

The structure comes from the reference implementations in ``transformers``
(``models/{opt,llama,mistral,qwen2,qwen3,phi,gemma2,qwen3_moe,olmoe}/modeling_*.py``), the defaults from their
``configuration_*.py``: a key that a configuration file leaves out has the value given there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simslm.catalog.architecture import FAMILIES, FIELD_NAMES, Architecture
from simslm.errors import ScenarioError, nearest
from simslm.plain import is_section, section_of

_PLAIN: dict[str, Any] = {
    "norm": "rmsnorm",
    "norm_eps": 1e-6,
    "norm_offset": False,
    "norm_first": True,
    "positions": "rotary",
    "position_offset": 0,
    "rope_theta": 10000.0,
    "gated_mlp": True,
    "activation": "silu",
    "tied_embeddings": False,
    "qkv_bias": False,
    "attention_out_bias": False,
    "mlp_bias": False,
    "lm_head_bias": False,
    "num_experts": 1,
    "num_experts_per_tok": 1,
    "norm_topk_prob": False,
    "qk_norm": False,
    "qk_norm_across_heads": False,
    "parallel_block": False,
    "final_norm": True,
    "post_norms": False,
    "scale_embeddings": False,
    "sliding_window": None,
    "sliding_window_layers": 0,
    "attention_softcap": None,
    "logit_softcap": None,
}
STRUCTURE: dict[str, dict[str, Any]] = {
    "llama": _PLAIN,
    "qwen2": _PLAIN | {"qkv_bias": True},
    "qwen3": _PLAIN | {"qk_norm": True},
    "qwen3_moe": _PLAIN | {"qk_norm": True, "norm_topk_prob": True},
    "olmoe": _PLAIN | {"qk_norm": True, "qk_norm_across_heads": True},
    "opt": _PLAIN
    | {
        "norm": "layernorm",
        "norm_eps": 1e-5,
        "positions": "learned",
        "position_offset": 2,
        "gated_mlp": False,
        "activation": "relu",
        "tied_embeddings": True,
        "qkv_bias": True,
        "attention_out_bias": True,
        "mlp_bias": True,
    },
    "phi": _PLAIN
    | {
        "norm": "layernorm",
        "norm_eps": 1e-5,
        "gated_mlp": False,
        "activation": "gelu",
        "qkv_bias": True,
        "attention_out_bias": True,
        "mlp_bias": True,
        "lm_head_bias": True,
        "parallel_block": True,
    },
    "gemma2": _PLAIN
    | {
        "activation": "gelu",
        "tied_embeddings": True,
        "norm_offset": True,
        "post_norms": True,
        "scale_embeddings": True,
    },
}
"""The fields a family fixes or has a default for; dimensions always come from the model."""

_ACTIVATIONS = {
    "relu": "relu",
    "silu": "silu",
    "gelu_new": "gelu",
    "gelu_pytorch_tanh": "gelu",
}
_LLAMA_DEFAULTS: dict[str, Any] = {"rms_norm_eps": 1e-6, "hidden_act": "silu", "tie_word_embeddings": False}
_CONFIG_DEFAULTS: dict[str, dict[str, Any]] = {
    "opt": {"activation_function": "relu", "tie_word_embeddings": True, "enable_bias": True},
    "llama": _LLAMA_DEFAULTS,
    "mistral": _LLAMA_DEFAULTS | {"num_key_value_heads": 8, "sliding_window": 4096},
    "qwen2": _LLAMA_DEFAULTS | {"num_key_value_heads": 32, "sliding_window": 4096, "max_window_layers": 28},
    "qwen3": _LLAMA_DEFAULTS
    | {"num_key_value_heads": 32, "head_dim": 128, "sliding_window": 4096, "max_window_layers": 28},
    "qwen3_moe": _LLAMA_DEFAULTS
    | {
        "num_key_value_heads": 4,
        "sliding_window": 4096,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
        "decoder_sparse_step": 1,
        "norm_topk_prob": False,
    },
    "olmoe": _LLAMA_DEFAULTS
    | {"rms_norm_eps": 1e-5, "num_experts": 64, "num_experts_per_tok": 8, "norm_topk_prob": False},
    "phi": {"hidden_act": "gelu_new", "tie_word_embeddings": False, "partial_rotary_factor": 0.5},
    "gemma2": {
        "rms_norm_eps": 1e-6,
        "hidden_activation": "gelu_pytorch_tanh",
        "tie_word_embeddings": True,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    },
}
"""By ``model_type``: the class defaults in ``transformers`` of the keys read here."""


def from_config(config: Mapping[str, Any], name: str) -> Architecture:
    """The architecture a Hugging Face ``config.json`` describes.

    Rotary scaling (``rope_scaling``) is left out: it moves frequencies, and costs nothing. So is clipping of queries,
    keys and values (``clip_qkv``), which moves no more bytes than the norm before it.

    Args:
        config: the file's content.
        name: what to call the model.

    Raises:
        ScenarioError: when the model type is not supported, or a key it needs is missing or wrong.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in _CONFIG_DEFAULTS:
        hint = nearest(str(model_type), list(_CONFIG_DEFAULTS))
        raise ScenarioError(
            f"model_type {model_type!r} is not supported{hint}",
            remedy=f"supported are {', '.join(_CONFIG_DEFAULTS)}; or give an inline architecture",
        )
    known = _CONFIG_DEFAULTS[model_type] | {k: v for k, v in config.items() if v is not None}
    for key in _NULLABLE:
        if key in config and config[key] is None:
            known.pop(key, None)
    _check_kinds(known)
    family = "llama" if model_type == "mistral" else model_type
    given = _dimensions(known) | _experts(known) | _variants(known, family) | _windows(known, model_type)
    return _build(STRUCTURE[family] | given, name, family)


def architecture_from_mapping(mapping: Mapping[str, Any], name: str = "inline") -> Architecture:
    """The architecture an inline mapping describes.

    Args:
        mapping: either the keys of a Hugging Face ``config.json`` (it then has ``model_type``), or the fields
            of :class:`Architecture`: ``family``, the dimensions, and the fields that differ from the family.
        name: what to call the model where the mapping has no ``name``.

    Raises:
        ScenarioError: when a key is unknown, missing or wrong.
    """
    if "model_type" in mapping:
        return from_config(mapping, str(mapping.get("name", name)))
    for key in mapping:
        if key not in FIELD_NAMES:
            raise ScenarioError(f"model: unknown key {key!r}{nearest(key, FIELD_NAMES)}")
    family = mapping.get("family")
    if family not in FAMILIES:
        known, hint = ", ".join(FAMILIES), nearest(str(family), FAMILIES)
        raise ScenarioError(f"model.family: expected one of {known}, found {family!r}{hint}")
    given = {key: value for key, value in mapping.items() if key not in ("name", "family")}
    return _build(STRUCTURE[family] | given, str(mapping.get("name", name)), family)


_NULLABLE = ("sliding_window", "attn_logit_softcapping", "final_logit_softcapping")
"""Keys whose null is not their default, but says that the model has none."""

_REAL = ("rope_theta", "rms_norm_eps", "layer_norm_eps", "partial_rotary_factor")
_KINDS = dict.fromkeys(_REAL, ((int, float), "a number")) | {
    "max_window_layers": ((int,), "a whole number"),
    "rope_parameters": ((dict,), "a section of keys"),
}
"""What the keys hold that are reckoned with here; :class:`Architecture` checks the others."""


def _check_kinds(config: Mapping[str, Any]) -> None:
    rope = config.get("rope_parameters")
    for section in (config, rope if is_section(rope) else {}):
        for key, (kinds, expected) in _KINDS.items():
            if key in section and type(section[key]) not in kinds:
                raise ScenarioError(f"the model's {key}: expected {expected}, found {section[key]!r}")


def _dimensions(config: Mapping[str, Any]) -> dict[str, Any]:
    heads = "num_attention_heads"
    return {
        "num_layers": _need(config, "num_hidden_layers"),
        "hidden_size": _need(config, "hidden_size"),
        "num_heads": _need(config, heads),
        "num_kv_heads": config.get("num_key_value_heads", config[heads]),
        "intermediate_size": _need(config, "ffn_dim" if "ffn_dim" in config else "intermediate_size"),
        "vocab_size": _need(config, "vocab_size"),
        "max_position_embeddings": _need(config, "max_position_embeddings"),
    } | ({"head_dim": config["head_dim"]} if "head_dim" in config else {})


def _experts(config: Mapping[str, Any]) -> dict[str, Any]:
    """The experts of a model all of whose blocks have them; nothing for a dense one.

    Raises:
        ScenarioError: some of its blocks have a plain MLP.
    """
    if config.get("decoder_sparse_step", 1) != 1 or config.get("mlp_only_layers"):
        raise ScenarioError(
            "only some of the model's blocks have experts (decoder_sparse_step, mlp_only_layers)",
            remedy="models with experts in every block are supported",
        )
    keys = ("num_experts", "num_experts_per_tok", "norm_topk_prob")
    found = {key: config[key] for key in keys if key in config}
    width = config.get("moe_intermediate_size")
    return found if width is None else found | {"intermediate_size": width}


def _variants(config: Mapping[str, Any], family: str) -> dict[str, Any]:
    if family == "opt":
        return _opt_variants(config)
    rope = section_of(config, "rope_parameters")
    found: dict[str, Any] = {
        "tied_embeddings": config["tie_word_embeddings"],
        "activation": _activation(config.get("hidden_activation") or config.get("hidden_act")),
        "rope_theta": float(config.get("rope_theta") or rope.get("rope_theta") or 10000.0),
        "norm_eps": float(config.get("rms_norm_eps") or config.get("layer_norm_eps") or 1e-5),
    }
    if family == "phi":
        found["partial_rotary_factor"] = config["partial_rotary_factor"]
        found["qk_norm"] = bool(config.get("qk_layernorm", False))
    if family == "gemma2":
        found["query_pre_attn_scalar"] = config["query_pre_attn_scalar"]
        found["attention_softcap"] = config.get("attn_logit_softcapping")
        found["logit_softcap"] = config.get("final_logit_softcapping")
    if family != "phi" and "attention_bias" in config:
        found["qkv_bias"] = found["attention_out_bias"] = bool(config["attention_bias"])
    if "mlp_bias" in config:
        found["mlp_bias"] = bool(config["mlp_bias"])
    return found


def _opt_variants(config: Mapping[str, Any]) -> dict[str, Any]:
    bias = bool(config["enable_bias"])
    norm_first = bool(config.get("do_layer_norm_before", True))
    return {
        "activation": _activation(config["activation_function"]),
        "tied_embeddings": config["tie_word_embeddings"],
        "embedding_size": config.get("word_embed_proj_dim", config["hidden_size"]),
        "norm_first": norm_first,
        "final_norm": norm_first and not config.get("_remove_final_layer_norm", False),
        "qkv_bias": bias,
        "attention_out_bias": bias,
        "mlp_bias": bias,
    }


def _windows(config: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    """Sliding-window layers: Gemma 2 alternates, Mistral windows all, Qwen the last ones (MoE: all) when told to."""
    window = config.get("sliding_window")
    layers = config["num_hidden_layers"]
    windowed = 0
    if not isinstance(layers, int):
        return {}
    if model_type == "gemma2":
        windowed = (layers + 1) // 2
    elif model_type == "mistral" or (model_type == "qwen3_moe" and config.get("use_sliding_window", False)):
        windowed = layers
    elif model_type in ("qwen2", "qwen3") and config.get("use_sliding_window", False):
        windowed = max(0, layers - config["max_window_layers"])
    if window is None or windowed == 0:
        return {}
    return {"sliding_window": window, "sliding_window_layers": windowed}


def _build(values: dict[str, Any], name: str, family: Any) -> Architecture:
    """Fill in what follows from the other dimensions, and construct."""
    heads, hidden = _need(values, "num_heads"), _need(values, "hidden_size")
    values.setdefault("num_kv_heads", heads)
    values.setdefault("embedding_size", hidden)
    if "head_dim" not in values:
        if not (isinstance(heads, int) and isinstance(hidden, int) and heads > 0 and hidden % heads == 0):
            raise ScenarioError(f"num_heads ({heads!r}) must divide hidden_size ({hidden!r})")
        values["head_dim"] = hidden // heads
    values.setdefault("query_pre_attn_scalar", values["head_dim"])
    fraction = values.pop("partial_rotary_factor", 1.0) if values["positions"] == "rotary" else 0.0
    if "rotary_dim" not in values:
        values["rotary_dim"] = _rotary_dim(values["head_dim"], fraction)
    for key in FIELD_NAMES:
        if key not in ("name", "family"):
            _need(values, key)
    return Architecture(name=name, family=family, **values)


def _rotary_dim(head_dim: Any, fraction: float) -> int:
    if type(head_dim) is not int or not 0 <= fraction <= 1:
        raise ScenarioError(f"head_dim ({head_dim!r}) must be whole, and of it 0 to 1 rotate ({fraction!r})")
    return int(fraction * head_dim)


def _activation(name: Any) -> str:
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        raise ScenarioError(
            f"activation {name!r} is not supported", remedy=f"supported are {', '.join(_ACTIVATIONS)}"
        )
    return _ACTIVATIONS[name]


def _need(mapping: Mapping[str, Any], key: str) -> Any:
    if key not in mapping:
        raise ScenarioError(f"the model's {key} is missing", remedy=f"add {key}")
    return mapping[key]

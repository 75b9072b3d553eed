"""From an architecture back to a Hugging Face ``config.json``, from which another engine builds the model.

What is written is read again by :func:`simslm.catalog.families.from_config` and has to give the same architecture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from simslm.catalog.architecture import Architecture
from simslm.catalog.families import from_config
from simslm.errors import ScenarioError


def to_config(architecture: Architecture) -> dict[str, Any]:
    """The content of a ``config.json`` that describes an architecture, its class for checkpoints included.

    Raises:
        ScenarioError: when no such file can describe it: the family is not one of those here, or it has a part that
            its family's configuration has no key for.
    """
    a = architecture
    if a.family not in _FAMILIES:
        raise ScenarioError(
            f"no config.json can be written for the family {a.family!r}",
            where=f"model {a.name}",
            remedy=f"written are those of {', '.join(_FAMILIES)}",
        )
    model_type = "mistral" if a.family == "llama" and a.sliding_window else a.family
    kind, own = _FAMILIES[model_type]
    config = {"model_type": model_type, "architectures": [kind]} | _dimensions(a) | own(a)
    written = from_config(config, a.name)
    lost = [name for name in vars(a) if getattr(a, name) != getattr(written, name)]
    if lost:
        raise ScenarioError(
            f"a config.json of the family {a.family!r} cannot say its {', '.join(lost)}",
            where=f"model {a.name}",
        )
    return config


def _dimensions(a: Architecture) -> dict[str, Any]:
    return {
        "num_hidden_layers": a.num_layers,
        "hidden_size": a.hidden_size,
        "num_attention_heads": a.num_heads,
        "vocab_size": a.vocab_size,
        "max_position_embeddings": a.max_position_embeddings,
        "tie_word_embeddings": a.tied_embeddings,
    }


def _opt(a: Architecture) -> dict[str, Any]:
    return {
        "ffn_dim": a.intermediate_size,
        "word_embed_proj_dim": a.embedding_size,
        "do_layer_norm_before": a.norm_first,
        "_remove_final_layer_norm": a.norm_first and not a.final_norm,
        "activation_function": _ACTIVATIONS[a.activation],
        "enable_bias": a.mlp_bias,
    }


def _rotary(a: Architecture) -> dict[str, Any]:
    return {
        "num_key_value_heads": a.num_kv_heads,
        "intermediate_size": a.intermediate_size,
        "hidden_act": _ACTIVATIONS[a.activation],
        "rope_theta": a.rope_theta,
    }


def _llama(a: Architecture) -> dict[str, Any]:
    said = {"head_dim": a.head_dim, "attention_bias": a.attention_out_bias, "mlp_bias": a.mlp_bias}
    return _rotary(a) | said | {"rms_norm_eps": a.norm_eps}


def _mistral(a: Architecture) -> dict[str, Any]:
    said = {"head_dim": a.head_dim, "sliding_window": a.sliding_window}
    return _rotary(a) | said | {"rms_norm_eps": a.norm_eps}


def _qwen2(a: Architecture) -> dict[str, Any]:
    return _rotary(a) | _last_windowed(a) | {"rms_norm_eps": a.norm_eps}


def _qwen3(a: Architecture) -> dict[str, Any]:
    said = {"head_dim": a.head_dim, "attention_bias": a.attention_out_bias}
    return _rotary(a) | said | _last_windowed(a) | {"rms_norm_eps": a.norm_eps}


def _last_windowed(a: Architecture) -> dict[str, Any]:
    if not a.sliding_window:
        return {}
    first = a.num_layers - a.sliding_window_layers
    return {"use_sliding_window": True, "sliding_window": a.sliding_window, "max_window_layers": first}


def _gemma2(a: Architecture) -> dict[str, Any]:
    return _rotary(a) | {
        "head_dim": a.head_dim,
        "attention_bias": a.attention_out_bias,
        "hidden_activation": _GELU_TANH if a.activation == "gelu" else _ACTIVATIONS[a.activation],
        "rms_norm_eps": a.norm_eps,
        "query_pre_attn_scalar": a.query_pre_attn_scalar,
        "sliding_window": a.sliding_window,
        "attn_logit_softcapping": a.attention_softcap,
        "final_logit_softcapping": a.logit_softcap,
    }


def _experts(a: Architecture) -> dict[str, Any]:
    return {
        "num_experts": a.num_experts,
        "num_experts_per_tok": a.num_experts_per_tok,
        "norm_topk_prob": a.norm_topk_prob,
    }


def _qwen3_moe(a: Architecture) -> dict[str, Any]:
    return _qwen3(a) | _experts(a) | {"moe_intermediate_size": a.intermediate_size}


def _olmoe(a: Architecture) -> dict[str, Any]:
    said = {"attention_bias": a.attention_out_bias, "rms_norm_eps": a.norm_eps}
    return _rotary(a) | _experts(a) | said


def _phi(a: Architecture) -> dict[str, Any]:
    said = {"partial_rotary_factor": a.rotary_dim / a.head_dim, "qk_layernorm": a.qk_norm}
    return _rotary(a) | said | {"layer_norm_eps": a.norm_eps}


_GELU_TANH = "gelu_pytorch_tanh"
_ACTIVATIONS = {"relu": "relu", "silu": "silu", "gelu": "gelu_new"}

_FAMILIES: dict[str, tuple[str, Callable[[Architecture], dict[str, Any]]]] = {
    "opt": ("OPTForCausalLM", _opt),
    "llama": ("LlamaForCausalLM", _llama),
    "mistral": ("MistralForCausalLM", _mistral),
    "qwen2": ("Qwen2ForCausalLM", _qwen2),
    "qwen3": ("Qwen3ForCausalLM", _qwen3),
    "qwen3_moe": ("Qwen3MoeForCausalLM", _qwen3_moe),
    "olmoe": ("OlmoeForCausalLM", _olmoe),
    "phi": ("PhiForCausalLM", _phi),
    "gemma2": ("Gemma2ForCausalLM", _gemma2),
}
"""By ``model_type``: the class of its checkpoints, and the keys that are its own."""

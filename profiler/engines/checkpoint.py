"""Names of weights in Hugging Face checkpoints, for the names that :mod:`profiler.engine.weights` gives them.

So the same random weights run in two engines. Sources: the modules of ``transformers``
(``models/{opt,llama,mistral,qwen2,qwen3,phi,gemma2,qwen3_moe,olmoe}/modeling_*.py``).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from simslm.catalog.architecture import Architecture

_LLAMA = {
    "embedding": "model.embed_tokens.weight",
    "final_norm": "model.norm",
    "head": "lm_head",
    "layers": "model.layers",
    "norm1": "input_layernorm",
    "norm2": "post_attention_layernorm",
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "q_norm": "self_attn.q_norm",
    "k_norm": "self_attn.k_norm",
    "out": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
    "router": "mlp.gate",
    "experts_gate_up": "mlp.experts.gate_up_proj",
    "experts_down": "mlp.experts.down_proj",
}
_OPT = _LLAMA | {
    "embedding": "model.decoder.embed_tokens.weight",
    "positions": "model.decoder.embed_positions.weight",
    "project_in": "model.decoder.project_in.weight",
    "project_out": "model.decoder.project_out.weight",
    "final_norm": "model.decoder.final_layer_norm",
    "layers": "model.decoder.layers",
    "norm1": "self_attn_layer_norm",
    "norm2": "final_layer_norm",
    "out": "self_attn.out_proj",
    "up": "fc1",
    "down": "fc2",
}
_PHI = _LLAMA | {
    "final_norm": "model.final_layernorm",
    "out": "self_attn.dense",
    "up": "mlp.fc1",
    "down": "mlp.fc2",
}
_GEMMA2 = _LLAMA | {
    "post_norm1": "post_attention_layernorm",
    "norm2": "pre_feedforward_layernorm",
    "post_norm2": "post_feedforward_layernorm",
}
_NAMES: dict[str, dict[str, str]] = {
    "opt": _OPT,
    "llama": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "qwen3_moe": _LLAMA,
    "olmoe": _LLAMA,
    "phi": _PHI,
    "gemma2": _GEMMA2,
}


def checkpoint(architecture: Architecture, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under their checkpoint names; the tensors are the same."""
    names = _NAMES[architecture.family]
    return {_translated(name, names): value for name, value in weights.items()}


def _translated(name: str, names: Mapping[str, str]) -> str:
    """``layers.3.q.bias`` is ``model.layers.3.self_attn.q_proj.bias``; parts that need no change stay."""
    return ".".join(names.get(part, part) for part in name.split("."))

"""Architectures small enough for tests, with every part of their families; needs no pytest."""

from simslm.catalog.families import architecture_from_mapping

SIZES = {
    "num_layers": 2,
    "hidden_size": 32,
    "num_heads": 4,
    "num_kv_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 97,
    "max_position_embeddings": 96,
}
EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2}
TINY = {
    "opt": {"family": "opt"},
    "opt-350m": {"family": "opt", "embedding_size": 16, "norm_first": False, "final_norm": False},
    "llama": {"family": "llama"},
    "llama-grouped-tied": {"family": "llama", "num_kv_heads": 2, "tied_embeddings": True},
    "llama-biased": {"family": "llama", "mlp_bias": True, "attention_out_bias": True, "qkv_bias": True},
    "qwen2": {"family": "qwen2", "num_kv_heads": 1, "tied_embeddings": True},
    "qwen3": {"family": "qwen3", "num_kv_heads": 2, "head_dim": 16},
    "phi": {"family": "phi", "rotary_dim": 4},
    "gemma2": {
        "family": "gemma2",
        "num_layers": 3,
        "num_kv_heads": 2,
        "head_dim": 16,
        "query_pre_attn_scalar": 12,
        "sliding_window": 6,
        "sliding_window_layers": 2,
        "attention_softcap": 0.8,
        "logit_softcap": 0.1,
    },
    "mistral": {"family": "llama", "num_kv_heads": 2, "sliding_window": 5, "sliding_window_layers": 2},
    "qwen2-windowed": {"family": "qwen2", "num_kv_heads": 2, "sliding_window": 9, "sliding_window_layers": 1},
    "qwen3-windowed": {"family": "qwen3", "head_dim": 16, "sliding_window": 3, "sliding_window_layers": 1},
    "qwen3-moe": {"family": "qwen3_moe", "num_kv_heads": 2, "head_dim": 16, **EXPERTS},
    "olmoe": {"family": "olmoe", **EXPERTS},
}


def tiny(name, **changes):
    """A small architecture that has every part of its family."""
    return architecture_from_mapping(SIZES | TINY[name] | changes, name=f"tiny-{name}")

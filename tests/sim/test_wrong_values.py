"""Any value in any place of a scenario: an answer, or one clear error."""

from __future__ import annotations

import math
from typing import Any

import pytest
from support.hostile import answer, counts, never_hangs, scenario

from simslm.errors import SimslmError

__all__ = ["never_hangs"]

FULL: dict = scenario(
    schema_version=1,
    seed=1,
    dtype="bf16",
    max_model_len=1024,
    slo={"ttft_s": 0.5, "tpot_s": 0.05, "e2e_s": 9.0, "attainment": 0.9},
    workload={
        "num_requests": 20,
        "duration_s": 50.0,
        "max_tokens": 64,
        "arrivals": {"process": "gamma", "rate_rps": 20.0, "cv": 2.0},
        "prompt_tokens": {"dist": "lognormal", "mean": 100.0, "p95": 300.0, "min": 2, "max": 500},
        "output_tokens": {"dist": "weibull", "shape": 1.5, "scale": 30.0},
        "priorities": [{"value": 1, "share": 0.5}, {"value": 2, "share": 0.5}],
        "timeout_s": 20.0,
        "cancellations": {"share": 0.1, "mean_after_s": 3.0},
        "prefixes": {"count": 2, "tokens": 64, "share": 0.5},
    },
    deployment={
        "num_devices": 2,
        "replicas_per_device": 2,
        "sharing": "mps",
        "tensor_parallel_size": 1,
        "router": {"policy": "least-outstanding"},
        "engine": {
            "batching": {"policy": "chunked-prefill", "max_partial_prompts": 2},
            "admission": {"policy": "limits", "max_queue": 50, "max_kv_utilization": 0.9},
            "scheduling_policy": "priority",
            "max_num_seqs": 16,
            "max_num_batched_tokens": 256,
            "block_size": 16,
            "gpu_memory_utilization": 0.9,
            "num_gpu_blocks": 200,
            "watermark": 0.01,
            "prefix_caching": True,
            "preemption": "swap",
            "swap_space": 1.0,
        },
    },
)
"""Every kind of key at once."""


CONFIG = {
    "model_type": "gemma2",
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "vocab_size": 1000,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "sliding_window": 100,
    "query_pre_attn_scalar": 64,
    "tie_word_embeddings": True,
    "rope_parameters": {"rope_theta": 1e4},
}
FIELDS = {
    "family": "phi",
    "num_layers": 4,
    "hidden_size": 512,
    "num_heads": 8,
    "intermediate_size": 1024,
    "vocab_size": 1000,
    "max_position_embeddings": 2048,
    "activation": "gelu",
    "norm_eps": 1e-5,
    "rope_theta": 1e4,
    "rotary_dim": 16,
    "tied_embeddings": True,
    "sliding_window": None,
}
HARDWARE: dict = scenario(
    model=CONFIG,
    device={
        "memory_bytes": 80_000_000_000,
        "memory_bandwidth_bytes_per_s": 4.8e12,
        "compute_flops": {"bf16": 9e14},
        "idle_w": 75.0,
        "max_w": 700.0,
        "sm_count": 132,
        "sm_clock_mhz": 1980.0,
        "host_link_bytes_per_s": 6.4e10,
        "peer_link_bytes_per_s": 4.5e11,
    },
    cost={
        "roofline": {
            "efficiency": {"compute": 0.6, "bandwidth": 0.8},
            "host": {"fixed_s": 5e-4, "per_seq_s": 3e-5},
            "power": {"compute": 1.0, "memory": 0.5},
        },
        "transforms": [{"host": {"fixed_s": 1e-4, "per_seq_s": 1e-6}}],
        "all_reduce": {"latency_s": 1e-5, "bandwidth_efficiency": 0.8},
    },
    deployment={
        "num_devices": 4,
        "sharing": "streams",
        "groups": [
            {
                "name": "wide",
                "share": 1.0,
                "devices": [0, 1],
                "tensor_parallel_size": 2,
                "max_model_len": 1000,
                "engine": {"max_num_seqs": 8, "num_gpu_blocks": 300},
            },
            {
                "name": "many",
                "share": 2.0,
                "model": FIELDS,
                "devices": [2, 3],
                "replicas_per_device": 2,
                "router": {"policy": "power-of-two"},
                "engine": {"max_num_seqs": 8, "batching": {"policy": "prefill-first"}},
            },
        ],
    },
)
"""A model and a device of one's own, and groups of replicas."""


def leaves(node: Any, path: tuple = ()) -> list[tuple]:
    """The path of every value."""
    if not isinstance(node, dict | list):
        return [path]
    items = node.items() if isinstance(node, dict) else enumerate(node)
    return [leaf for key, value in items for leaf in leaves(value, (*path, key))]


def replaced(node: Any, path: tuple, value: Any) -> Any:
    """The same tree with another value in one place."""
    if not path:
        return value
    copy = node.copy()
    copy[path[0]] = replaced(node[path[0]], path[1:], value)
    return copy


def failure(given: dict) -> SimslmError | None:
    """The error that a scenario ends in; None where it is answered."""
    try:
        counts(answer(given))
    except SimslmError as error:
        return error
    return None


WRONG = [
    math.inf,
    -math.inf,
    math.nan,
    "x",
    "",
    -1,
    0,
    1e308,
    5e-324,
    10**30,
    True,
    None,
    [],
    {},
    "\x00\ud800",
]


def test_the_full_scenarios_are_sound():
    assert sum(counts(answer(FULL))) == 20
    assert counts(answer(HARDWARE)) == (40, 0, 0)


PLACES = [(FULL, path) for path in leaves(FULL)]
PLACES += [(HARDWARE, path) for path in leaves(HARDWARE) if path[0] != "workload"]


@pytest.mark.slow
@pytest.mark.parametrize(("given", "path"), PLACES, ids=[".".join(map(str, path)) for _, path in PLACES])
def test_any_value_in_any_place_is_an_answer_or_one_clear_error(given, path):
    for value in WRONG:
        error = failure(replaced(given, path, value))
        assert error is None or (error.exit_code in (2, 3, 4) and len(error.message) > 10)
        if isinstance(value, float) and not math.isfinite(value):
            assert error is not None

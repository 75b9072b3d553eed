"""KV blocks from weights, activations and memory."""

from __future__ import annotations

import csv

import pytest

from simslm.catalog.devices import load_device
from simslm.catalog.models import load_model
from simslm.errors import InfeasibleError
from simslm.preparation.memory import plan_memory


def plan(model: str, device: str, dtype: str = "fp16", **changes):
    options = {
        "gpu_memory_utilization": 0.9,
        "replicas_per_device": 1,
        "max_num_seqs": 256,
        "max_num_batched_tokens": 2048,
        "block_size": 16,
        "num_gpu_blocks": None,
    }
    return plan_memory(load_model(model), load_device(device), dtype, **(options | changes))


@pytest.mark.slow
def test_block_counts_of_real_runs(truth):
    """vLLM 0.6.3 printed its block count for 109 runs of two models: all met within 1 %."""
    with open(truth / "h100-vllm" / "runs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 109
    for row in rows:
        found = plan(
            row["model"],
            row["device"],
            replicas_per_device=int(row["replicas"]),
            max_num_seqs=int(row["max_num_seqs"]),
            max_num_batched_tokens=int(row["max_num_batched_tokens"]),
        )
        assert found.num_gpu_blocks == pytest.approx(int(row["num_gpu_blocks"]), rel=0.01)


def test_the_parts_fill_the_share_up_to_one_block():
    found = plan("llama-3.2-1b", "l4", "bf16")
    left = (
        found.share - found.weights - found.activations - found.process - found.num_gpu_blocks * found.block
    )
    assert 0 <= left < found.block


def test_what_does_not_fit_is_infeasible():
    with pytest.raises(InfeasibleError, match="does not fit"):
        plan("llama-2-13b", "l4")
    with pytest.raises(InfeasibleError, match="10,000,000 KV blocks"):
        plan("opt-125m", "h200", num_gpu_blocks=10_000_000)


def test_a_stated_number_of_blocks_is_taken():
    assert plan("opt-125m", "h200", num_gpu_blocks=7).num_gpu_blocks == 7

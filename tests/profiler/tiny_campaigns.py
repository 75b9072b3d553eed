"""Campaigns at tiny size, for tests: of the fixture ``quick_campaign``'s model, with few passes and no meter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from profiler.campaign import profile
from profiler.grid import measured_shapes
from profiler.measure.meters import NoMeter
from profiler.specification import Specification
from profiler.visits import Visits

TINY_LLAMA = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2, "hidden_size": 32,
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48, "vocab_size": 97,
    "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": True,
    "rope_theta": 10000.0,
}  # fmt: skip
SHAPE = ["decode_seqs", "decode_ctx_tokens", "prefill_seqs", "prefill_tokens", "prefill_ctx_tokens"]

TO_THE_CAMPAIGN = ("budget_s", "command", "progress", "meter", "turns")
"""Options that do not belong to the specification."""


def measured(**options: Any) -> Path:
    """The trace of a campaign in fp32 on a CPU, unless stated otherwise."""
    rest = {name: options.pop(name) for name in TO_THE_CAMPAIGN if name in options}
    return profile(Specification(**({"model": "tiny", "dtype": "fp32"} | options)), **rest)


def measure(tmp_path: Path, **options: Any) -> Path:
    """The same with three passes, one thread and no meter, in ``tmp_path / "trace"``."""
    options = {"repeats": 3, "threads": 1, "meter": NoMeter("no meter in this test")} | options
    return measured(**{"output": tmp_path / "trace"} | options)


def journal_of(tmp_path):
    return tmp_path / "trace.journal.partial"


def grid_of(architecture):
    return measured_shapes(architecture, "cpu", "quick", 10**6, 16)


def refusing(monkeypatch, refuses):
    """Has visits fail of which ``refuses(shape, number)`` is an error; the shapes that were visited."""
    original, visited = Visits.iteration, []

    def visit(self, shape):
        visited.append(shape)
        error = refuses(shape, len(visited))
        if error is not None:
            raise error
        return original(self, shape)

    monkeypatch.setattr(Visits, "iteration", visit)
    return visited

"""Every Triton kernel compiles for GPUs that are not there, and fits their shared memory."""

import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

SCRIPT, ROOT = Path(__file__).with_name("compiling.py"), Path(__file__).parents[2]
FAMILIES = (
    "opt-1.3b",
    "opt-6.7b",
    "phi-2",
    "llama-3.1-8b",
    "qwen2.5-0.5b",
    "qwen3-0.6b",
    "gemma-2-2b",
    "mistral-7b-v0.3",
    "olmoe-1b-7b",
)
"""One model of each family, with heads of 64, 80, 128 and 256 elements, alone and in groups of 2, 4 and 7."""

TARGETS = (80, 86, 89, 90, 120)
COVER = {
    80: ("opt-1.3b:bf16", "gemma-2-2b:fp16"),
    86: ("llama-3.1-8b:fp16", "qwen2.5-0.5b:bf16"),
    89: ("gemma-2-2b:bf16", "phi-2:fp16"),
    90: ("llama-3.1-8b:bf16", "olmoe-1b-7b:bf16"),
    120: ("phi-2:bf16", "qwen3-0.6b:fp16", "opt-1.3b:fp32"),
}
"""Every target, family, width and data type, but not each with each: that takes minutes on two cores, wide heads in
fp32 above all."""

EVERY = {target: tuple(map(":".join, product(FAMILIES, ("bf16", "fp16", "fp32")))) for target in TARGETS}


@pytest.mark.parametrize("target", TARGETS)
def test_kernels_compile_and_fit(target):
    """In a process of its own, as this one interprets kernels; what was compiled once is read from pytest's cache."""
    cases = (EVERY if os.environ.get("SIMSLM_WHOLE") else COVER)[target]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    environment["TRITON_CACHE_DIR"] = str(ROOT / ".pytest_cache" / "triton")
    command = [sys.executable, SCRIPT, str(target), *cases]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr

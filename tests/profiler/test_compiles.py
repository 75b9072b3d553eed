"""Every Triton kernel compiles for GPUs that are not there, and fits their shared memory.

A test takes some 20 s of processor time when no cache has what it compiles, and 4 s when one has.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

from compiling import covers, every, variants

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


@pytest.mark.parametrize("target", TARGETS)
def test_kernels_compile_and_fit(target):
    """In a process of its own, as this one interprets kernels; what was compiled once is read from pytest's cache."""
    cases = every(target, FAMILIES) if os.environ.get("SIMSLM_WHOLE") else covers(TARGETS, FAMILIES)[target]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    environment["TRITON_CACHE_DIR"] = str(ROOT / ".pytest_cache" / "triton")
    command = [sys.executable, SCRIPT, str(target), *cases]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_head_and_family_comes_on_every_target_and_no_case_comes_twice():
    cover = covers(TARGETS, FAMILIES)
    features = {case: found for name in FAMILIES for case, found in variants(name)}
    for target, cases in cover.items():
        assert len(cases) == len(set(cases))
        assert set(cases) <= set(every(target, FAMILIES))
        prompts = [features[case] for case in cases if case.startswith("prompts:")]
        assert {each["heads"] for each in prompts} == {64, 80, 128, 256}
        assert {each["group"] for each in prompts} == {1, 2, 4, 7}
        assert {each["dtype"] for each in prompts} == {"bf16", "fp16", "fp32"}
        assert any("fp8" in case for case in cases) == (target >= 89)

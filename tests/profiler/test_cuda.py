"""What only a GPU can show: kernels compile, graphs record, and both compute what the CPU does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("on_device.py")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_the_engine_on_a_gpu_equals_the_engine_on_a_cpu():
    """In a process of its own, for this one interprets the kernels."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, SCRIPT, "cuda:0"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr

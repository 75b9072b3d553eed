"""What a GPU does without a C compiler, headers or a folder for kernels."""

import os
import subprocess

import pytest
import torch

from profiler.engine import engine, support
from profiler.engine.support import kernels_lack
from simslm.errors import DeviceError

pytest.importorskip("triton", reason="Triton is not installed")

GPU = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "kernels"))
    kernels_lack.cache_clear()
    yield
    kernels_lack.cache_clear()


@pytest.fixture
def failing(monkeypatch):
    def fail(error):
        def run(device):
            raise error

        monkeypatch.setattr(support, "_run_kernel", run)

    return fail


def test_what_triton_finds_missing_is_said_with_the_remedy(failing, monkeypatch, tmp_path):
    failing(RuntimeError("Failed to find C compiler. Please specify via CC environment variable"))
    assert kernels_lack(GPU) == "Triton finds no C compiler (install gcc, or set CC)"
    kernels_lack.cache_clear()
    monkeypatch.setattr(support.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    failing(subprocess.CalledProcessError(1, ["gcc"]))
    assert "python3-dev" in kernels_lack(GPU)
    kernels_lack.cache_clear()
    failing(ValueError("first\nno such target"))
    assert kernels_lack(GPU) == "Triton cannot run a kernel, ValueError: no such target"


def test_a_gpu_without_kernels_attends_with_torch(failing):
    failing(RuntimeError("Failed to find C compiler"))
    assert engine._fastest(GPU) == "fused"
    engine._check_kernels("fused", experts=False, quantization=None, device=GPU)


@pytest.mark.parametrize(
    ("kind", "experts", "quantization", "named"),
    [
        ("paged", False, None, "paged attention"),
        ("fused", True, None, "experts"),
        ("fused", False, "int8", "weights of eight bits"),
    ],
)
def test_what_needs_kernels_is_refused_without(failing, kind, experts, quantization, named):
    failing(RuntimeError("Failed to find C compiler"))
    with pytest.raises(DeviceError, match=f"{named} need kernels on cuda:0: Triton finds no C compiler"):
        engine._check_kernels(kind, experts, quantization, GPU)


def test_kernels_that_run_are_used(monkeypatch):
    monkeypatch.setattr(support, "_run_kernel", lambda device: None)
    assert kernels_lack(GPU) == ""
    assert engine._fastest(GPU) == "paged"


def test_a_folder_that_cannot_be_written_to_is_replaced(monkeypatch, tmp_path):
    """A file is where its parent should be, which not even root can write to."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "file" / "kernels"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(support.tempfile, "tempdir", None)
    monkeypatch.setattr(support, "_run_kernel", lambda device: None)
    assert kernels_lack(GPU) == ""
    assert os.path.isdir(os.environ["TRITON_CACHE_DIR"])
    assert os.path.dirname(os.environ["TRITON_CACHE_DIR"]) == str(tmp_path)

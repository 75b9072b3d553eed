"""What a provenance says of the machine and the command: catalogue names, the processor, no absolute paths."""

import pytest

from profiler.provenance import cpu_model, match_device, shown_command


@pytest.mark.parametrize(
    ("name", "gib", "entry"),
    [
        ("NVIDIA H200", 139.8, "h200"),
        ("NVIDIA H100 80GB HBM3", 79.1, "h100-80gb"),
        ("NVIDIA A100-SXM4-40GB", 39.5, "a100-40gb"),
        ("NVIDIA A100-SXM4-80GB", 79.2, "a100-80gb"),
        ("NVIDIA GeForce RTX 4090", 23.6, "rtx-4090"),
        ("NVIDIA RTX A6000", 47.5, "rtx-a6000"),
        ("NVIDIA L4", 22.2, "l4"),
        ("NVIDIA L40S", 44.4, "l40s"),
        ("NVIDIA Z9000", 10.0, "z9000"),
    ],
)
def test_gpus_are_known_by_model_and_memory(name, gib, entry):
    assert match_device(name, int(gib * 2**30)) == entry


def test_the_processor_is_named_from_cpuinfo():
    text = "processor\t: 0\nmodel name\t: Acme 9 Xyz\nflags\t\t: fpu avx2 avx512f avx512_bf16\n"
    assert cpu_model(text) == "Acme 9 Xyz (avx2, avx512f, avx512_bf16)"


def test_commands_are_shown_without_absolute_paths():
    assert shown_command(["/opt/env/bin/simslm", "profile", "-o", "/data/x"]) == "simslm profile -o x"

"""``simslm roofline``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

QUICKSTART = str(Path(__file__).parents[2] / "scenarios" / "quickstart.yaml")
ARGUMENTS = ("roofline", QUICKSTART, "--batch", "16", "--context", "512")


def test_every_operator_has_its_line(simslm):
    shown = simslm(*ARGUMENTS)
    assert shown.code == 0
    assert "decode: 16 sequences with 512 tokens each in the cache" in shown.out
    assert "ridge   9.38 FLOP/byte" in shown.out
    lines = [line.split() for line in shown.out.splitlines()]
    assert sum(line[:1] == ["attention"] for line in lines) == 3
    shares = [float(line[-1].rstrip("%")) for line in lines if line and line[-1].endswith("%")]
    assert sum(shares) == pytest.approx(300, abs=2)


def test_as_json_with_the_scores_in_memory(simslm):
    (found,) = json.loads(simslm(*ARGUMENTS, "--attention", "eager", "--prompt", "64", "--json").out)
    assert found["model"] == "opt-125m"
    prefill, one, full = found["phases"]
    assert (prefill["tokens"], one["seqs"], full["seqs"]) == (64, 1, 16)
    by_name = {each["name"]: each for each in full["operators"]}
    assert {"qk_matmul", "softmax", "sv_matmul"} <= by_name.keys()
    (q,) = [each for each in prefill["operators"] if each["name"] == "q_proj"]
    assert q["flops"] == 2 * 64 * 768 * 768
    assert q["intensity"] == q["flops"] / q["bytes"]
    assert q["seconds"] == pytest.approx(
        max(q["flops"] / found["flops_per_s"], q["bytes"] / found["bytes_per_s"])
    )


def test_transforms_are_in_it(simslm):
    few = ("--set", "cost.transforms=[{weights: {bits: 4, group_size: null}}]", "--json")
    plain, changed = (json.loads(simslm(*ARGUMENTS, *more).out)[0] for more in (("--json",), few))
    read = [
        next(each["weight_bytes"] for each in found["phases"][1]["operators"] if each["name"] == "up_proj")
        for found in (plain, changed)
    ]
    assert read[0] / read[1] == pytest.approx(4, rel=1e-2)

"""A shell completes names of the catalogue, figures, and the keys of a scenario with what they may be."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from simslm.cli.completion import devices, metrics, models, settings


def completed(*words: str) -> list[str]:
    """What the console script answers a bash that completes the last of these words."""
    environment = os.environ | {
        "_SIMSLM_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(("simslm", *words)),
        "COMP_CWORD": str(len(words)),
    }
    code = "from simslm.cli import main; main()"
    ended = subprocess.run(
        (sys.executable, "-c", code), env=environment, capture_output=True, text=True, check=False
    )
    return ended.stdout.split()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("sim",), ["simulate"]),
        (("profile", "--model", "opt-1.3"), ["opt-1.3b"]),
        (("init", "--device", "l40"), ["l40s"]),
        (("explain", "ttft_s.p9"), ["ttft_s.p90", "ttft_s.p95", "ttft_s.p99"]),
        (
            ("simulate", "s.yaml", "--set", "deployment.router"),
            ["deployment.router=", "deployment.router.policy="],
        ),
        (("list", "pol"), ["policies"]),
    ],
)
def test_the_shell_is_answered(words, expected):
    assert [answer for answer in completed(*words) if answer in expected] == expected


def test_names_begin_as_typed():
    assert models("opt-125") == ["opt-125m"]
    assert devices("h100") == ["h100-64gb", "h100-80gb"]
    assert metrics("energy.j_per") == ["energy.j_per_output_token", "energy.j_per_total_token"]
    assert models("nothing") == devices("nothing") == metrics("nothing") == settings("nothing") == []


def test_every_key_is_one_that_can_be_set(small):
    import simslm

    keys = [key.removesuffix("=") for key in settings("")]
    assert len(keys) > 60
    assert len(set(keys)) == len(keys)
    for key in ("seed", "slo.ttft_s", "workload.arrivals.rate_rps", "deployment.engine.block_size"):
        assert key in keys
        assert simslm.load_scenario(small, {key: 1})


@pytest.mark.slow
@pytest.mark.parametrize(
    "key",
    ["deployment.router", "deployment.router.policy", "deployment.engine.batching", "deployment.sharing"],
)
def test_every_choice_is_one_that_can_be_made(small, key):
    import simslm

    choices = [text.partition("=")[2] for text in settings(f"{key}=")]
    assert len(choices) > 3
    for choice in choices:
        assert simslm.load_scenario(small, {key: choice})
    begun = choices[0][:3]
    assert settings(f"{key}={begun}") == [f"{key}={choice}" for choice in choices if choice.startswith(begun)]

"""The example of ``docs/add-a-policy.md`` is a whole policy: dropped into its folder, it serves and conforms."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "add-a-policy.md"

PROGRAM = """
import sys
import simslm
from simslm.policies.registry import lookup
assert simslm.__file__.startswith(sys.argv[1]), simslm.__file__
print(lookup("batching", "one-prompt").summary)
result = simslm.simulate(simslm.load_scenario(sys.argv[2]))
print(result.summary["requests"]["finished"], int(result.iterations["prefill_seqs"].max()))
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the package and its tests with the example in place."""
    for folder in ("simslm", "tests/support", "tests/policies"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    page = PAGE.read_text(encoding="utf-8")
    named = re.search(r"This is `(\S+)`", page)
    assert named
    code, scenario = (re.search(rf"```{kind}\n(.*?)```", page, re.DOTALL) for kind in ("python", "yml"))
    assert code
    assert scenario
    assert len(code[1].splitlines()) <= 30
    (tmp_path / named[1]).write_text(code[1], encoding="utf-8")
    (tmp_path / "scenario.yaml").write_text(scenario[1], encoding="utf-8")
    return tmp_path


def python(checkout: Path, *arguments: str) -> str:
    environment = dict(os.environ, PYTHONPATH=f"{checkout}{os.pathsep}{checkout / 'tests'}")
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_example_serves_a_scenario_that_names_it(checkout):
    said = python(checkout, "-c", PROGRAM, str(checkout), "scenario.yaml").splitlines()
    assert said[0].startswith("Every decode, and whole prompts up to a number")
    assert said[1] == "200 2"


@pytest.mark.slow
def test_the_example_is_picked_up_by_the_conformance_suite(checkout):
    said = python(
        checkout,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "tests/policies/test_conformance.py",
        "-k",
        "one-prompt",
    )
    assert re.search(r"\b11 passed", said), said

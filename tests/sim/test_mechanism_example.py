"""The example of ``docs/add-a-mechanism.md`` is a whole mechanism: put in place, it serves and combines with others."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.examples import python

from simslm.sim.parts.part import MOMENTS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "add-a-mechanism.md").read_text(encoding="utf-8")

PROGRAM = """
import sys
import simslm
assert simslm.__file__.startswith(sys.argv[1]), simslm.__file__
def run(every):
    scenario = simslm.load_scenario("scenario.yaml", {"deployment.engine.pause_every": every})
    return simslm.simulate(scenario, with_intervals=False).iterations
paused, plain = run(100), run(0)
print((paused["duration_s"] > 0.05).sum(), (len(paused) - 1) // 100, (plain["duration_s"] > 0.05).sum())
"""


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found, language
    return found[1]


def additions(text: str) -> Iterator[tuple[str, str, list[str]]]:
    """Of a diff without line numbers: file, the line below which something is added, and what."""
    file, below, added = "", "", list[str]()
    for line in [*text.splitlines(), "--- "]:
        if not line.startswith("+") and added:
            yield file, below, added
            added = []
        if line.startswith("--- "):
            file = line.removeprefix("--- ")
        elif line.startswith("+"):
            added.append(line[1:])
        else:
            below = line[1:]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the package and its tests with the example in place."""
    for folder in ("simslm", "tests/support", "tests/sim"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    named = re.search(r"This is `(\S+)`", PAGE)
    assert named
    assert len(block("python").splitlines()) <= 40
    (tmp_path / named[1]).write_text(block("python"), encoding="utf-8")
    for file, below, added in additions(block("diff")):
        text = (tmp_path / file).read_text(encoding="utf-8")
        assert text.count(f"\n{below}\n") == 1, (file, below)
        text = text.replace(f"\n{below}\n", "\n" + "\n".join([below, *added]) + "\n")
        (tmp_path / file).write_text(text, encoding="utf-8")
    (tmp_path / "scenario.yaml").write_text(block("yml"), encoding="utf-8")
    return tmp_path


def test_the_example_pauses_as_often_as_it_says(checkout):
    pauses, expected, without = map(int, python(checkout, "-c", PROGRAM, str(checkout)).split())
    assert pauses == expected > 3
    assert without == 0


def test_the_example_combines_with_every_other_mechanism(checkout):
    tests = ("-m", "pytest", "-p", "no:cacheprovider", "tests/sim/test_combinations.py", "-k", "pauses")
    passed = re.search(r"(\d+) passed", python(checkout, *tests))
    assert passed
    assert int(passed[1]) >= 10


def test_the_page_names_every_moment():
    asked = set(re.findall(r"`(\w+)\(", PAGE[: PAGE.index("## A complete example")]))
    assert asked == set(MOMENTS)

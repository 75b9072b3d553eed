"""The example of a page of documentation, put in place in a copy of the package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def put_in_place(page: str, checkout: Path, most_lines: int) -> None:
    """Copies the package and the tests of policies, and writes the page's example file and its scenario there.

    Args:
        page: name of a page in ``docs``, which says ``This is `PATH``` before its Python block.
        checkout: the copy.
        most_lines: of the example.
    """
    for folder in ("simslm", "tests/support", "tests/policies"):
        shutil.copytree(ROOT / folder, checkout / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", checkout)
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    named = re.search(r"This is\s`(\S+)`", text)
    assert named
    code, scenario = (re.search(rf"```{kind}\n(.*?)```", text, re.DOTALL) for kind in ("python", "yml"))
    assert code
    assert scenario
    assert len(code[1].splitlines()) <= most_lines
    (checkout / named[1]).write_text(code[1], encoding="utf-8")
    (checkout / "scenario.yaml").write_text(scenario[1], encoding="utf-8")


def python(checkout: Path, *arguments: str) -> str:
    """What Python prints in such a copy."""
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

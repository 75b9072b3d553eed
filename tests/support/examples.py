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
    """Copies the package and the tests of policies, and writes the page's example files and its scenario there.

    Args:
        page: name of a page in ``docs``, which says ``This is `PATH``` before each of its Python blocks.
        checkout: the copy.
        most_lines: of each example.
    """
    for folder in ("simslm", "tests/support", "tests/policies"):
        shutil.copytree(ROOT / folder, checkout / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", checkout)
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    names, codes = re.findall(r"This is\s`(\S+)`", text), re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    scenario = re.search(r"```yml\n(.*?)```", text, re.DOTALL)
    assert names
    assert scenario
    for name, code in zip(names, codes, strict=True):
        assert len(code.splitlines()) <= most_lines
        (checkout / name).write_text(code, encoding="utf-8")
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

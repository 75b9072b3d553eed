"""The examples of ``reports/`` are listed with the commands that make them; what those make can be shown anywhere."""

from __future__ import annotations

import re
import subprocess

import pytest

pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install '.[dev]')")

from cli.transcript import furnish
from examples.pages import EXAMPLES, MOST_BYTES, ROOT, index, make

REPORTS = ROOT / "reports"
LARGEST_PAGE = 3_000_000
QUICK = [example for example in EXAMPLES if example.name in ("run", "profile")]
"""Examples that take a few seconds and need no data from elsewhere."""


def test_the_list_is_that_of_the_examples():
    assert (REPORTS / "README.md").read_text(encoding="utf-8") == index()


@pytest.mark.slow
@pytest.mark.parametrize("example", QUICK, ids=lambda example: example.name)
def test_the_commands_make_a_page_without_a_trace_of_this_machine(example, tmp_path):
    (tmp_path / "place").mkdir()
    furnish(tmp_path / "place")
    made = make(example, tmp_path / "place", tmp_path)
    assert made is not None
    page = made.read_text(encoding="utf-8")
    assert len(page.encode()) < LARGEST_PAGE
    assert page.startswith("<!doctype html>")
    assert not re.search(r"(?<![\w.])/(?:home|root|Users|work|tmp/tmp)/?", page)


@pytest.mark.parametrize("example", [each for each in EXAMPLES if each.picture], ids=lambda each: each.name)
def test_the_pictures_of_the_readme_are_small(example):
    assert (REPORTS / f"{example.name}.png").stat().st_size < MOST_BYTES


def test_no_generated_page_is_kept():
    if not (ROOT / ".git").exists():
        pytest.skip("no repository")
    kept = subprocess.run(
        ("git", "ls-files", "*.html"), cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert not kept

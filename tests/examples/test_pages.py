"""The examples in ``reports/`` are there, small, of nobody's machine, and listed with the commands that make them."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install '.[dev]')")

from examples.pages import EXAMPLES, MOST_BYTES, ROOT, index

REPORTS = ROOT / "reports"
LARGEST_PAGE, ALL_PAGES = 8_000_000, 12_000_000


def test_the_list_is_that_of_the_examples():
    assert (REPORTS / "README.md").read_text(encoding="utf-8") == index()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_a_page_of_each_kind_is_there(example):
    page = (REPORTS / f"{example.name}.html").read_text(encoding="utf-8")
    assert len(page.encode()) < LARGEST_PAGE
    assert page.startswith("<!doctype html>")
    assert not re.search(r"(?<![\w.])/(?:home|root|Users|work|tmp/tmp)/?", page)
    if example.picture:
        assert (REPORTS / f"{example.name}.png").stat().st_size < MOST_BYTES


def test_they_are_small_enough_to_live_here():
    assert sum((REPORTS / f"{example.name}.html").stat().st_size for example in EXAMPLES) < ALL_PAGES

"""``docs/how-it-works.md`` names the functions of the main path, and each is called by the one it says."""

from __future__ import annotations

import ast
import re
import sys
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from simslm.cli.app import app

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-it-works.md"
ROW = re.compile(
    r"^\| (?P<number>\d+) \| `(?P<name>[\w.]+)` \| (?P<caller>\d+|–)(?P<clock> \(clock\))? \|", re.MULTILINE
)
TEST = re.compile(r"`(?P<file>tests/[\w/]+\.py)::(?P<name>\w+)`")
MOST_STOPS = 30


class Stop(NamedTuple):
    number: int
    name: str
    caller: int | None


def stops() -> list[Stop]:
    """The rows of the page's table."""
    text = PAGE.read_text(encoding="utf-8")
    return [
        Stop(int(row["number"]), row["name"], None if row["caller"] == "–" else int(row["caller"]))
        for row in ROW.finditer(text)
    ]


def resolved(name: str) -> Any:
    """The object that a dotted name stands for."""
    words = name.split(".")
    for count in range(len(words) - 1, 0, -1):
        try:
            found: Any = import_module(".".join(words[:count]))
        except ModuleNotFoundError:
            continue
        for word in words[count:]:
            found = getattr(found, word)
        return found
    raise AssertionError(name)


def callers(
    codes: dict[CodeType, int], monkeypatch: pytest.MonkeyPatch, directory: Path
) -> dict[int, set[int]]:
    """By stop, the stops found next above it on the stack, while a command runs; 0 where there is none."""
    found: dict[int, set[int]] = {}

    def called(frame: FrameType, event: str, _argument: Any) -> None:
        number = codes.get(frame.f_code) if event == "call" else None
        if number is None:
            return
        above = frame.f_back
        while above is not None and codes.get(above.f_code, number) == number:
            above = above.f_back
        found.setdefault(number, set()).add(0 if above is None else codes[above.f_code])

    monkeypatch.chdir(directory)
    words = [str(ROOT / "scenarios/quickstart.yaml"), "--set", "workload.num_requests=30", "-o", "run"]
    before = sys.getprofile()
    sys.setprofile(called)
    try:
        ended = CliRunner().invoke(app, ["simulate", *words])
    finally:
        sys.setprofile(before)
    assert ended.exit_code == 0, ended.output
    return found


@pytest.mark.slow
def test_the_main_path_is_as_the_page_has_it(monkeypatch, tmp_path):
    """At most 30 functions, numbered in order, each called by the one that the page says."""
    path = stops()
    assert [stop.number for stop in path] == list(range(1, len(path) + 1))
    assert len(path) <= MOST_STOPS
    codes = {resolved(stop.name).__code__: stop.number for stop in path}
    assert len(codes) == len(path)
    found = callers(codes, monkeypatch, tmp_path)
    wrong = [stop for stop in path if (stop.caller or 0) not in found.get(stop.number, set())]
    assert not wrong, [(stop.name, sorted(found.get(stop.number, set()))) for stop in wrong]


def test_the_stops_are_in_the_order_of_their_callers():
    """A reader meets a function after the one that calls it."""
    for stop in stops():
        assert (stop.caller or 0) < stop.number


def test_each_invariant_is_kept_by_a_test_that_is_there():
    text = PAGE.read_text(encoding="utf-8")
    invariants = text.partition("## What always holds")[2].partition("\n## ")[0]
    rows = [line for line in invariants.splitlines() if line.startswith("|")][2:]
    assert len(rows) == 9
    for row in rows:
        named = list(TEST.finditer(row))
        assert named, row
        for test in named:
            tree = ast.parse((ROOT / test["file"]).read_text(encoding="utf-8"))
            names = {each.name for each in tree.body if isinstance(each, ast.FunctionDef | ast.ClassDef)}
            assert test["name"] in names, test[0]


def test_the_page_shows_the_calls_of_the_code():
    """The three lines of the summary are the calls of ``simslm.api``."""
    block = PAGE.read_text(encoding="utf-8").partition("```python\n")[2]
    lines = list(takewhile(lambda line: line != "```", block.splitlines()))
    tree = ast.parse("\n".join(lines))
    shown = [
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    code = ast.parse((ROOT / "simslm/api.py").read_text(encoding="utf-8"))
    called = {
        node.func.id
        for node in ast.walk(code)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert len(shown) == 3
    assert set(shown) <= called

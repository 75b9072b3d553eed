"""docs/workloads.md: its commands run, its scenarios are valid, its tables are those that are made."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from workload.tables import BEGIN, DOCUMENT, END, tables

from simslm.cli import main
from simslm.scenario.load import load_scenario
from simslm.workload import requests_of
from simslm.workload.readers import FORMATS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL)
TEXT = DOCUMENT.read_text(encoding="utf-8")
NAMED = {f"AzureLLMInferenceTrace_{part}.csv": f"azure2023_{part}.csv" for part in ("conv", "code")}


def blocks(language):
    return [match["text"] for match in BLOCK.finditer(TEXT) if match["language"] == language]


COMMANDS = [line for text in blocks("sh") for line in text.splitlines() if line.startswith("simslm ")]


@pytest.fixture
def there(tmp_path, workloads, monkeypatch):
    """A directory with what the document names."""
    for name, slice_ in NAMED.items():
        shutil.copy(workloads / slice_, tmp_path / name)
    for name in ("scenarios", "traces"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_that_is_shown_runs(line, there, monkeypatch, capsys):
    arguments = shlex.split(line, comments=True)
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    assert not ended.value.code, printed.err
    assert printed.out
    if "-o" in arguments:
        assert (there / arguments[arguments.index("-o") + 1]).stat().st_size > 0


def test_there_are_commands():
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("text", blocks("yaml"))
def test_a_scenario_that_is_shown_has_requests(text, there):
    (there / "shown.yaml").write_text(text, encoding="utf-8")
    scenario = load_scenario(there / "shown.yaml")
    assert len(requests_of(scenario.workload, 0, 8192, there)) > 100


def test_every_format_is_in_the_document():
    rows = "\n".join(line for line in TEXT.splitlines() if line.startswith("| `"))
    assert set(FORMATS) <= set(re.findall(r"`([\w-]+)`", rows))


def test_the_tables_are_those_that_are_made(workloads):
    for name, table in tables(workloads).items():
        begin, end = BEGIN.format(name=name), END.format(name=name)
        made = TEXT.partition(begin)[2].partition(end)[0]
        assert made.strip() == table.strip(), "run python -m workload.tables"

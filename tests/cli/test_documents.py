"""What the documents and the help tell people to type is accepted, and the files it names are there."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
from cli.test_help import COMMANDS, ROOT_COMMAND, example, parse

from simslm.scenario.load import load_scenario

ROOT = Path(__file__).parents[2]
TYPED = re.compile(r"^\s*(?:\.venv/bin/)?simslm (?P<arguments>.+)$", re.MULTILINE)
BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")

README = ROOT / "README.md"
DOCUMENTS = (README, *sorted(ROOT.glob("*/README.md")), *sorted((ROOT / "docs").rglob("*.md")))


WRITTEN = sorted({*DOCUMENTS, *ROOT.glob("*.md"), *(ROOT / "reports").rglob("*.md")})


def links(text: str) -> list[str]:
    """The files that a document links to, as it names them, without places inside them."""
    targets = [match["target"] for match in LINK.finditer(BLOCK.sub("", text))]
    files = [target.partition("#")[0] for target in targets if not re.match(r"[a-z]+:", target)]
    return [file for file in files if file]


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_that_is_linked_is_there(path):
    missing = [file for file in links(path.read_text(encoding="utf-8")) if not (path.parent / file).exists()]
    assert not missing


def test_links_are_seen():
    text = "[a](docs/a.md#top) [b](https://x.org/y) [c](#here)\n```sh\n[d](no/link)\n```\n![e](e.png)"
    assert links(text) == ["docs/a.md", "e.png"]
    assert "profiler/README.md" in links(README.read_text(encoding="utf-8"))


def blocks(language: str, *documents: Path) -> list[str]:
    """The code blocks of one language in documents."""
    found = [match for path in documents for match in BLOCK.finditer(path.read_text(encoding="utf-8"))]
    return [match["text"] for match in found if match["language"] == language]


def typed() -> list[str]:
    """Every ``simslm`` command line in the documents and in the help."""
    lines = [match["arguments"] for text in blocks("sh", *DOCUMENTS) for match in TYPED.finditer(text)]
    return lines + [shlex.join(example(words)[1:]) for words in COMMANDS]


@pytest.mark.parametrize("line", typed())
def test_a_command_line_that_is_shown_parses(line):
    arguments = shlex.split(line, comments=True)
    parse(ROOT_COMMAND, arguments[: arguments.index(">")] if ">" in arguments else arguments)


@pytest.mark.parametrize("line", [line for line in typed() if "scenarios/" in line])
def test_the_scenario_it_names_is_shipped_and_its_overrides_fit(line):
    arguments = shlex.split(line, comments=True)
    scenarios = [argument for argument in arguments if argument.startswith("scenarios/")]
    settings = [after for word, after in pairwise(arguments) if word == "--set"]
    for scenario in scenarios:
        assert load_scenario(ROOT / scenario, settings).name


def test_the_documents_show_commands_and_scenarios():
    assert len(typed()) > len(COMMANDS)
    assert blocks("yaml", README)


@pytest.mark.parametrize("text", blocks("yaml", README))
def test_a_scenario_that_is_shown_is_valid(text, tmp_path):
    path = tmp_path / "shown.yaml"
    path.write_text(text, encoding="utf-8")
    assert load_scenario(path).model

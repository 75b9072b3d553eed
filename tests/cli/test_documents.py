"""What the documents and the help tell people to type is accepted, and the files it names are there."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
from cli import transcript
from cli.test_help import COMMANDS, ROOT_COMMAND, example, parse
from cli.transcript import furnish

from simslm.scenario.load import load_scenario

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TYPED = re.compile(r"^\s*(?:\.venv/bin/)?simslm (?P<arguments>.+)$", re.MULTILINE)
BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")

README = ROOT / "README.md"
DOCUMENTS = (README, *sorted({*ROOT.glob("*/README.md"), *(ROOT / "docs").rglob("*.md")}))


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


INDEX = ROOT / "docs" / "README.md"


def test_the_index_names_every_page():
    pages = {path.name for path in INDEX.parent.glob("*.md")} - {INDEX.name}
    assert pages <= set(links(INDEX.read_text(encoding="utf-8")))


def test_the_places_that_the_index_names_are_there():
    named = re.findall(r"`([\w/.-]+/[\w.-]*)`", INDEX.read_text(encoding="utf-8"))
    assert len(named) > 15
    assert not [place for place in named if not (ROOT / place).exists()]


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


ELSEWHERE = (
    r"\bprofile\b",  # measures this machine
    r"\bvalidate live\b",
    r"RUNS\.csv|results/|AzureLLM|burstgpt|mooncake|requests\.csv",  # data that does not ship
    r"traces/h200/|-bf16-transformers",
    r"scenarios/paper|--resume|--executor ray|your|--install-completion",
    r"^init [^-]*$",  # asks
)
"""Commands that need data or devices from elsewhere, or answers at a prompt."""

SMALL = {
    "simulate": ("--set", "workload.num_requests=40"),
    "search": ("--set", "workload.num_requests=10"),
    "plan": (
        "--set",
        "search={space: {deployment.engine.max_num_seqs: [64]}, objectives: {tpot_s.p50: min}}",
    ),
}
"""What makes a command quick to try, whatever the document says."""


def tried(document: Path) -> list[list[str]]:
    """The commands of a document's ``sh`` blocks that can be run anywhere, each made small."""
    lines = [match["arguments"] for text in blocks("sh", document) for match in TYPED.finditer(text)]
    commands = [shlex.split(line, comments=True) for line in lines if not line.endswith("\\")]
    found = []
    for words in commands:
        if any(re.search(pattern, shlex.join(words)) for pattern in ELSEWHERE):
            continue
        words = words[: words.index(">")] if ">" in words else words
        if "manifest.json" not in "".join(words[1:2]):
            words = [*words, *SMALL.get(words[0], ())]
        found.append([*words, "--jobs", "1"] if words[0] == "search" and "--jobs" not in words else words)
    return found


@pytest.mark.parametrize(
    "document", [path for path in DOCUMENTS if tried(path)], ids=lambda path: str(path.relative_to(ROOT))
)
def test_the_commands_of_a_document_run_one_after_another(document, simslm, here):
    furnish(here)
    for words in tried(document):
        ended = simslm(*words)
        assert ended.code == 0, (words, ended.err)


def test_most_commands_are_tried():
    every = [line for text in blocks("sh", *DOCUMENTS) for line in TYPED.findall(text)]
    assert sum(len(tried(document)) for document in DOCUMENTS) > len(every) / 3


TRANSCRIPTS = [path for path in DOCUMENTS if any(transcript.blocks(path))]


@pytest.mark.parametrize("document", TRANSCRIPTS, ids=lambda path: path.name)
def test_a_transcript_is_what_is_printed(document, tmp_path):
    """``cd tests && python -m cli.transcript ../docs/NAME.md`` writes it anew."""
    furnish(tmp_path)
    for block in transcript.blocks(document):
        for entry in block:
            printed = transcript.run(entry.command, tmp_path)
            assert transcript.agrees(entry.printed, printed), (entry.command, "\n".join(printed))


def test_the_first_answer_takes_fewer_than_ten_commands():
    (path,) = [path for path in TRANSCRIPTS if path.name == "first-answer.md"]
    commands = [entry.command for block in transcript.blocks(path) for entry in block]
    assert commands[0].startswith("simslm init")
    assert any(command.startswith("simslm search") for command in commands)
    assert len(commands) < 10


def test_a_transcript_that_is_wrong_is_seen():
    assert transcript.agrees(["a", "…", "d"], ["a", "b", "c", "d"])
    assert transcript.agrees(["…"], ["a", "b"])
    assert not transcript.agrees(["a", "…", "d"], ["a", "b", "e"])
    assert not transcript.agrees(["a"], ["a", "b"])
    assert transcript.renewed(["1", "…", "9"], ["a", "b", "c"]) == ["a", "…", "c"]
    assert transcript.renewed(["1"], ["a", "b"]) == ["a", "b"]


def test_the_documents_show_commands_and_scenarios():
    assert len(typed()) > len(COMMANDS)
    assert blocks("yaml", README)


@pytest.mark.parametrize("text", blocks("yaml", README))
def test_a_scenario_that_is_shown_is_valid(text, tmp_path):
    path = tmp_path / "shown.yaml"
    path.write_text(text, encoding="utf-8")
    assert load_scenario(path).model

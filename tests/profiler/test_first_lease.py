"""The commands of a first lease, and those of this room's README: every option they use is there and parses."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from simslm.cli.app import app

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT.parent / "shared" / "gpu" / "fifteen-minutes.sh"
README = ROOT / "profiler" / "README.md"


def commands(text: str) -> list[list[str]]:
    """The words of each ``simslm`` command of a shell script, with what its variables and loops stand for."""
    text = text.replace("\\\n", " ")
    stated = {"m": "opt-125m", "way": "mps"} | dict(re.findall(r'^(\w+)="(.*)"$', text, flags=re.MULTILINE))
    found = []
    for line in text.splitlines():
        for name, value in stated.items():
            line = re.sub(rf"\${name}\b", value, line)
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";|&<>")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if " " in word:
                found += commands(word)
            if word.strip(";|&<>"):
                words.append(word)
            else:
                found += [words[words.index("simslm") + 1 :]] if "simslm" in words else []
                words = []
    return [[word for word in words if word != "--debug"] for words in found]


def parse(words: list[str]) -> None:
    """As the command line does, but that nothing runs.

    Raises:
        click.UsageError: naming what is wrong.
    """
    command = typer.main.get_command(app)
    while isinstance(command, typer.core.TyperGroup):
        name, words = words[0], words[1:]
        assert name in command.commands, f"there is no command {name}"
        command = command.commands[name]
    command.make_context(command.name, list(words))


def test_the_script_of_the_first_lease_is_true():
    if not SCRIPT.exists():
        pytest.skip(f"{SCRIPT.name} is not beside this checkout")
    text = SCRIPT.read_text()
    found = commands(text)
    assert {words[0] for words in found} >= {"env", "profile", "traces", "validate"}
    for words in found:
        parse(words)
    for place in re.findall(r"(?:scenarios|tests)/[\w./-]+", text):
        assert (ROOT / place).exists(), place


def test_the_commands_of_the_readme_parse():
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", README.read_text(), flags=re.MULTILINE | re.DOTALL)
    found = [words for block in blocks for words in commands(block)]
    assert len(found) > 10
    for words in found:
        parse(words)


def test_an_option_that_is_not_there_is_found():
    with pytest.raises(Exception, match="No such option"):
        parse(["profile", "--model", "opt-125m", "--budgets", "3"])

"""Every command explains itself, with an example that its own parser takes."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from simslm import cli
from simslm.cli.app import app

CONTRACT = (
    "profile",
    "check",
    "simulate",
    "search",
    "report",
    "list",
    "env",
    "schema",
    "traces list",
    "traces show",
    "traces check",
    "traces import",
    "calibrate",
    "validate recorded",
    "validate live",
    "compare",
    "init",
    "explain",
)


def commands(group: Any, above: str = "") -> dict[str, Any]:
    """Every command below a group, by the words that call it."""
    found = {}
    for name, command in group.commands.items():
        words = f"{above} {name}".strip()
        found |= commands(command, words) if hasattr(command, "commands") else {words: command}
    return found


ROOT_COMMAND: Any = typer.main.get_command(app)
COMMANDS = commands(ROOT_COMMAND)


def example(words: str) -> list[str]:
    """The words of a command's example, up to a redirection."""
    text = " ".join(COMMANDS[words].help.split())
    _, found, line = text.partition("Example: ")
    assert found, f"`simslm {words}` has no example"
    arguments = shlex.split(line)
    return arguments[: arguments.index(">")] if ">" in arguments else arguments


def test_the_promised_commands_are_there():
    assert set(CONTRACT) <= set(COMMANDS)


@pytest.mark.slow
@pytest.mark.parametrize("words", COMMANDS)
def test_help_has_a_description_and_an_example(simslm, words):
    shown = simslm(*words.split(), "--help")
    assert shown.code == 0
    assert f"Usage: simslm {words}" in shown.out
    assert f"Example: simslm {words}" in " ".join(shown.out.split())
    assert shown.err == ""


@pytest.mark.parametrize("words", COMMANDS)
def test_options_explain_themselves(words):
    for parameter in COMMANDS[words].params:
        assert parameter.help, f"`simslm {words}`: {parameter.name} has no help"


@pytest.mark.parametrize("words", COMMANDS)
def test_the_example_parses(words):
    program, *arguments = example(words)
    assert program == "simslm"
    assert arguments[: len(words.split())] == words.split()
    parse(ROOT_COMMAND, arguments)


def parse(command: Any, arguments: list[str]) -> None:
    """Takes arguments as the program does, without running anything; a bad one raises."""
    context = command.make_context(command.name, list(arguments))
    if hasattr(command, "commands"):
        _, inner, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        parse(inner, rest)


def test_every_command_answers_in_json():
    """``schema`` prints nothing else."""
    without = {
        words
        for words, command in COMMANDS.items()
        if not any("--json" in each.opts for each in command.params)
    }
    assert without == {"schema"}


def test_a_wrong_example_would_not_parse():
    with pytest.raises(Exception, match="No such option"):
        parse(ROOT_COMMAND, ["simulate", "scenario.yaml", "--nonsense"])


def test_the_exit_codes_are_documented(simslm):
    shown = " ".join(simslm("--help").out.split())
    for code in ("0 ok", "1 a stated condition failed", "2 bad scenario or usage", "3 bad or missing trace",
                 "4 infeasible", "5 device", "70 a fault", "130 interrupted"):  # fmt: skip
        assert code in shown


def test_version(simslm):
    from importlib.metadata import version

    assert simslm("--version").out == f"simslm {version('simslm')}\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("simulate",),
        ("simulate", "a.yaml", "b.yaml"),
        ("simulate", "a.yaml", "--nonsense"),
        ("simulate", "a.yaml", "--seed", "many"),
        ("simulate", "a.yaml", "-o", ""),
        ("list",),
        ("list", "nonsense"),
        ("report",),
        ("profile",),
        ("profile", "--model", "opt-125m", "--dtype", "int3"),
        ("traces", "nonsense"),
        ("traces", "import", "steps.csv"),
    ],
)
def test_bad_usage_exits_2(simslm, here, arguments):
    ended = simslm(*arguments)
    assert ended.code == 2
    assert "Error: " in ended.err
    assert ended.out == ""
    assert not list(here.iterdir())


def test_the_package_runs_as_a_module():
    ended = subprocess.run(
        (sys.executable, "-m", "simslm", "--version"), capture_output=True, text=True, check=True
    )
    assert ended.stdout.startswith("simslm ")


def test_every_command_is_in_a_file_of_its_name():
    """``simslm search`` in ``cli/search.py``, ``simslm validate live`` in ``cli/validate_live.py``."""
    shared = {
        "traces": "traces",
        "workload show": "workload",
        "workload make": "workload",
        "schema": "commands",
    }
    for words in COMMANDS:
        name = shared.get(words) or shared.get(words.split()[0]) or words.replace(" ", "_")
        assert (Path(cli.__file__).parent / f"{name}.py").exists(), words

"""Transcripts in documents: what was typed and what it printed, run again and compared, or written anew.

A transcript is a ``console`` block: lines that begin with ``$ `` are typed, the others are printed; a line ``…`` stands
for any number of lines. ``python -m cli.transcript DOCUMENT`` (from ``tests``) replaces what is printed by what is
printed now, keeping as many lines before and after each ``…`` as there were.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```console\n(?=[$] )(.*?)^```$", re.MULTILINE | re.DOTALL)
PROMPT, LEFT_OUT = "$ ", "…"
LIMIT_S = 600
FAULT = 70
"""Exit code of a fault of simslm's own, which no document shows."""


@dataclass(frozen=True)
class Entry:
    """One command and the lines it printed, on stdout and then on stderr."""

    command: str
    printed: list[str]


def entries(block: str) -> list[Entry]:
    found: list[Entry] = []
    for line in block.splitlines():
        if line.startswith(PROMPT):
            found.append(Entry(line.removeprefix(PROMPT), []))
        else:
            found[-1].printed.append(line)
    return found


def blocks(document: Path) -> Iterator[list[Entry]]:
    for match in BLOCK.finditer(document.read_text(encoding="utf-8")):
        yield entries(match[1])


def furnish(place: Path) -> None:
    """Makes a directory one in which the documents' commands can be typed."""
    for name in ("scenarios", "traces"):
        (place / name).symlink_to(ROOT / name)


def run(command: str, place: Path) -> list[str]:
    """What a ``simslm`` command prints; the exit code too where it is not 0, as ``echo $?`` would."""
    program, *arguments = shlex.split(command)
    assert program == "simslm", command
    words = (sys.executable, "-c", "from simslm.cli import main; main()", *arguments)
    ended = subprocess.run(words, cwd=place, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert ended.returncode != FAULT, ended.stderr
    code = [f"(exit code {ended.returncode})"] if ended.returncode else []
    return [*ended.stdout.splitlines(), *ended.stderr.splitlines(), *code]


def agrees(expected: list[str], printed: list[str]) -> bool:
    """Whether lines are those expected, ``…`` for any number of them."""
    parts = "\n".join(expected).split(LEFT_OUT)
    pattern = ".*".join(re.escape(part) for part in parts)
    return re.fullmatch(pattern, "\n".join(printed), re.DOTALL) is not None


def renewed(expected: list[str], printed: list[str]) -> list[str]:
    """What is printed now, shortened as before: as many lines at the beginning and end as there were."""
    if LEFT_OUT not in expected:
        return printed
    first = expected.index(LEFT_OUT)
    last = len(expected) - 1 - expected[::-1].index(LEFT_OUT)
    after = len(expected) - 1 - last
    if first + after >= len(printed):
        return printed
    return [*printed[:first], LEFT_OUT, *(printed[-after:] if after else [])]


def rewrite(document: Path) -> None:
    """Types every transcript of a document again, in an empty directory, and writes what it prints."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        furnish(place)

        def again(match: re.Match[str]) -> str:
            lines = []
            for entry in entries(match[1]):
                lines += [PROMPT + entry.command, *renewed(entry.printed, run(entry.command, place))]
            return "```console\n" + "\n".join(lines) + "\n```"

        text = document.read_text(encoding="utf-8")
        document.write_text(BLOCK.sub(again, text), encoding="utf-8")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        rewrite(Path(name).resolve())

"""Printing: tables to stdout, progress to stderr."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from shutil import get_terminal_size
from textwrap import fill
from typing import Any, Protocol

WHOLE: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
"""How text is wrapped: paths and options stay in one piece."""

UNIT = re.compile(r"(?<=[\d.]) (?=%|ms\b|µs\b|s\b|min\b|h\b|J\b|kJ\b|W\b)|(?<=[<>≤≥=]) ")
JOINED = "\N{NO-BREAK SPACE}"
"""A figure stays on one line with its unit."""

WIDE = 100
"""Columns from which a terminal shows a bar beside the figures of a step."""

SHORT = 8
"""Characters of a label below whose end text is wrapped."""


def show_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=str))


def show_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, left: Sequence[int] = (0,)) -> None:
    """A plain table; columns are right-aligned but for those in ``left``."""
    for line in _aligned(columns, rows, left):
        print(line.rstrip())


def show_defined(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    definitions: Sequence[str],
    *,
    left: Sequence[int] = (0,),
) -> None:
    """A table of figures with the definition of each row beside it; below it where the terminal is too narrow."""
    head, *lines = _aligned(columns, rows, left)
    widest = max(len(line) + 2 + len(text) for line, text in zip(lines, definitions, strict=True))
    below = sys.stdout.isatty() and widest > get_terminal_size().columns
    if head.strip():
        print(head.rstrip())
    for line, text in zip(lines, definitions, strict=True):
        print(line if below else f"{line}  {dim(text)}")
    width = max(len(str(row[0])) for row in rows)
    for row, text in zip(rows, definitions, strict=True):
        if below:
            print(dim(f"  {str(row[0]).ljust(width)}  {text}"))


def _aligned(columns: Sequence[str], rows: Sequence[Sequence[Any]], left: Sequence[int]) -> list[str]:
    """The lines of a table, all of the same length."""
    texts = [columns, *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, cells)) for cells in zip(*texts, strict=True)]
    return [
        "  "
        + "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in texts
    ]


def dim(text: str) -> str:
    """The same, dim on a terminal that shows such things."""
    return f"\x1b[2m{text}\x1b[0m" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else text


def show_facts(facts: Sequence[tuple[str, Any]]) -> None:
    """Names and values, one pair a line."""
    width = max((len(name) for name, _ in facts), default=0)
    for name, value in facts:
        print(f"  {name.ljust(width)}  {value}")


def show_text(label: str, text: str) -> None:
    """A labelled sentence; on a terminal wrapped between words, further lines of a short label below its text."""
    if not sys.stdout.isatty():
        print(f"{label} {text}")
        return
    width, hang = max(get_terminal_size().columns, 40), len(label) + 1 if len(label) < SHORT else 2
    joined = UNIT.sub(JOINED, f"{label} {text}")
    print(fill(joined, width, subsequent_indent=" " * hang, **WHOLE).replace(JOINED, " "))


def note(text: str) -> None:
    """A line for the person at the terminal, not for the pipe."""
    print(text, file=sys.stderr)


def warn(flags: Sequence[str]) -> None:
    """What the person at the terminal must know before trusting an answer."""
    for flag in flags:
        note(f"warning: {flag}")


class Update(Protocol):
    def __call__(self, done: int, total: int, label: str) -> None: ...


@contextmanager
def progress(title: str) -> Iterator[Update | None]:
    """A progress bar with ETA while stderr is a terminal; None where it is not."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    wide = get_terminal_size().columns >= WIDE
    columns = (
        TextColumn("{task.description}"),
        *((BarColumn(),) if wide else ()),
        TextColumn("{task.fields[count]}"),
        TextColumn("{task.fields[label]}"),
        *((TimeElapsedColumn(),) if wide else ()),
        TextColumn("ETA"),
        TimeRemainingColumn(compact=not wide),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None, count="", label="")

        def update(done: int, total: int, label: str) -> None:
            bar.update(task, completed=done, total=max(total, 1), count=f"{done:,}/{total:,}", label=label)

        yield update


@contextmanager
def working(what: str) -> Iterator[None]:
    """Says what is being done, and for how long already, while stderr is a terminal; gone when it is done."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        bar.add_task(what, total=None)
        yield

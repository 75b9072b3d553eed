"""Printing: tables to stdout, progress to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from simslm.units import seconds


def show_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=str))


def show_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, left: Sequence[int] = (0,)) -> None:
    """A plain table; columns are right-aligned but for those in ``left``."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, cells)) for cells in zip(columns, *texts, strict=True)]
    for row in (columns, *texts):
        cells = [
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  " + "  ".join(cells).rstrip())


def show_facts(facts: Sequence[tuple[str, Any]]) -> None:
    """Names and values, one pair a line."""
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        print(f"  {name.ljust(width)}  {value}")


def note(text: str) -> None:
    """A line for the person at the terminal, not for the pipe."""
    print(text, file=sys.stderr)


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

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        TextColumn("{task.fields[label]}"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=1, label="")

        def update(done: int, total: int, label: str) -> None:
            bar.update(task, completed=done, total=max(total, 1), label=label)

        yield update


def spread_row(name: str, spread: dict[str, float | None]) -> list[str]:
    """One latency with its percentiles, for a screen."""
    return [name, *(seconds(spread[key]) for key in ("mean", "p50", "p90", "p95", "p99", "max"))]

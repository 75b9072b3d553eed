"""``simslm report``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from simslm.cli import screen
from simslm.cli.destination import free_place


def report(directories: Sequence[Path], output: Path | None, with_timeline: bool, as_json: bool) -> None:
    """Draws the page, perhaps timelines too, and prints where they are."""
    from simslm.report import write_report
    from simslm.timeline import write_timeline

    if output is not None:
        free_place(output.parent)
    with screen.working("drawing the page"):
        page = write_report(directories, output)
    timelines = []
    if with_timeline:
        with screen.working("writing timelines"):
            timelines = [write_timeline(directory) for directory in directories]
    if as_json:
        screen.show_json({"page": str(page), "timelines": list(map(str, timelines))})
        return
    for path in (page, *timelines):
        print(path)

"""``simslm report``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from simslm.cli import screen
from simslm.cli.destination import free_place
from simslm.errors import UsageError


def report(directories: Sequence[Path], output: Path | None, with_timeline: bool, as_json: bool) -> None:
    """Draws the page, perhaps timelines too, and prints where they are."""
    from simslm.timeline import write_timeline

    if output is not None:
        free_place(output.parent)
    with screen.working("drawing the page"):
        page = _page(directories, output)
    timelines = []
    if with_timeline:
        with screen.working("writing timelines"):
            timelines = [write_timeline(directory) for directory in directories]
    if as_json:
        screen.show_json({"page": str(page), "timelines": list(map(str, timelines))})
        return
    for path in (page, *timelines):
        print(path)


def _page(directories: Sequence[Path], output: Path | None) -> Path:
    from simslm.report import write_report
    from simslm.traces.files import is_trace

    traces = [directory for directory in directories if is_trace(directory)]
    if not traces:
        return write_report(directories, output)
    if len(directories) > 1:
        raise UsageError("a trace has a page of its own", where=str(traces[0]), remedy="name it alone")
    return trace_page(traces[0], output)


def trace_page(directory: Path, output: Path | None = None) -> Path:
    """Draws the page of a trace, and says where it is; ``report.html`` in the trace unless told otherwise.

    Raises:
        TraceError: the trace is damaged.
    """
    from simslm.cost.portrait import portrait
    from simslm.report.page import destination
    from simslm.report.profile import write_profile
    from simslm.traces.files import read_trace

    return write_profile(portrait(read_trace(directory)), destination([directory], output))

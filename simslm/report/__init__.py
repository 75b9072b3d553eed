"""One offline HTML page from the files of a run directory, and from nothing else.

The page is the same bytes for the same files, loads nothing from a network, and holds plotly.js once however
many runs it shows. Everything in this room is one of three things: a reader of files (:mod:`tables`), a pure
function from tables to *what to draw or say* (:mod:`distribution`, :mod:`timeline`, :mod:`attribution`,
:mod:`facts`, :mod:`bound`, :mod:`verdict`, :mod:`provenance`), or a drawing of it (:mod:`figures`, :mod:`page`
and its templates, :mod:`palette`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

__all__ = ["render_run", "write_report"]


def render_run(directory: Path) -> str:
    """The HTML text of the page of one run.

    Args:
        directory: holds ``requests.parquet iterations.parquet summary.json manifest.json``.

    Raises:
        UsageError: a file is missing, damaged or lacks a column or key.
    """
    from simslm.report.run import render
    from simslm.report.tables import read_drawn

    return render([read_drawn(Path(directory))])


def write_report(directories: Sequence[Path], output: Path | None = None) -> Path:
    """Write the page of a search, or of one or several runs, whole or not at all, and return where it is.

    Args:
        directories: run directories; several give one page with a section each, in this order. A search has a page
            of its own.
        output: the file to write; by default ``report.html`` in the directory, or, for several directories
            with the same parent, ``report.html`` in that parent.

    Raises:
        UsageError: nothing to show, no place to write to, or a file that cannot be read.
    """
    from simslm.metrics.whole import write_whole
    from simslm.report.page import destination
    from simslm.report.run import render
    from simslm.report.search import holds_search, render_search
    from simslm.report.tables import read_drawn

    paths = [Path(directory) for directory in directories]
    target = destination(paths, output)
    if len(paths) == 1 and holds_search(paths[0]):
        page = render_search(paths[0])
    else:
        page = render([read_drawn(path) for path in paths])
    write_whole(target, lambda path: path.write_text(page, encoding="utf-8", newline="\n"))
    return target

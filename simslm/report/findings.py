"""A page of findings: for each, a few words, plots, and a table of what others measured and what was simulated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from simslm.report.page import Plot, render_template


@dataclass(frozen=True, slots=True)
class Section:
    """One finding.

    Attributes:
        anchor: its place on the page.
        title, words: what it says; backticks make code.
        head: names of the columns of its table.
        rows: cells as text; ``inside`` and ``outside`` in the last column are verdicts.
        plots: may be none.
    """

    anchor: str
    title: str
    words: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    plots: Sequence[Plot] = ()


@dataclass(frozen=True, slots=True)
class FindingsView:
    """Everything the page shows.

    Attributes:
        title: of the page.
        setup: a few words on what was run.
        sentence: the answer.
        sources: where costs come from: kind of source, and what it is of.
        notes: what a reader has to know.
        sections: the findings.
        command: what makes the page again.
    """

    title: str
    setup: Sequence[str]
    sentence: str
    sources: Sequence[tuple[str, str]]
    notes: Sequence[str]
    sections: Sequence[Section]
    command: str = field(default="make paper")


def render(view: FindingsView) -> str:
    """The HTML text of the page."""
    plots = [plot for section in view.sections for plot in section.plots]
    return render_template("findings.html.j2", title=view.title, view=view, plots=plots)

"""The page that all reports share: what one declares, and the one file it becomes, plotly.js included once.

A page is a template that extends ``layout.html.j2`` and is put together from the macros of ``parts.html.j2``; its
figures are :class:`Plot`, named in the template by ``plot`` and drawn by ``page.js``; a script of its own and the data
this works on may come with it. Everything that comes from files is escaped. A content security policy, with the
hashes of the page's own scripts, keeps anything else from running and the page from loading anything.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simslm.errors import UsageError
from simslm.report import palette
from simslm.report.figures import Figure

if TYPE_CHECKING:
    from markupsafe import Markup

HERE = Path(__file__).parent
PLOTLY = HERE / "plotly" / "plotly.min.js"
"""Made by ``plotly/build.sh``: scatter, bar, contour, heatmap, scatter3d and surface alone."""

STROKES = {
    "dash": "6 4",
    "dot": "2 3",
    "dashdot": "7 3 2 3",
    "longdash": "10 4",
    "longdashdot": "10 3 2 3",
}


@dataclass(frozen=True, slots=True)
class Key:
    """A line of a legend.

    Attributes:
        name: of the curve or the points.
        colour: from the palette, ``@accent``.
        mark: ``solid thin dash dot dashdot longdash longdashdot`` for a line, or a symbol of plotly's.
    """

    name: str
    colour: str
    mark: str = "solid"

    @property
    def dashes(self) -> str:
        """The line's strokes as SVG has them; empty for a solid one."""
        return STROKES.get(self.mark, "")


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure at a fixed place of the page.

    Attributes:
        id: of its place, the same for the same inputs.
        title: what stands above it.
        words: what it shows, for those who do not see it.
        figure: what plotly draws; colours by name, axes titled with their units, ``layout.height`` set.
        legend: beside the title; figures have none of their own.
    """

    id: str
    title: str
    words: str
    figure: Figure
    legend: Sequence[Key] = ()


@dataclass(slots=True)
class Contents:
    """The sections of a page in their order, noted by the macro ``section`` as they come."""

    entries: list[tuple[str, str]] = field(default_factory=list)

    def add(self, anchor: str, title: str) -> str:
        """Notes a section; empty, for a template prints what it calls."""
        self.entries.append((anchor, title))
        return ""


def render_template(
    template: str,
    *,
    title: str,
    plots: Sequence[Plot],
    script: str | None = None,
    data: Mapping[str, Any] | None = None,
    **values: Any,
) -> str:
    """The HTML text of a page.

    Args:
        template: name of a template of this room that extends ``layout.html.j2``.
        title: of the window.
        plots: every figure that the template places.
        script: name of the page's own script in this room; it finds ``page.js`` at work as ``simslm``.
        data: what that script reads as ``simslm.data``.
        values: what the template shows.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["coded"] = coded
    files = [PLOTLY, HERE / "page.js", *([HERE / script] if script else [])]
    scripts = [file.read_text(encoding="utf-8") for file in files]
    return environment.get_template(template).render(
        title=title,
        style=Markup(palette.css() + (HERE / "page.css").read_text(encoding="utf-8")),
        scripts=[Markup(each) for each in scripts],
        script_hashes=[script_hash(each) for each in scripts],
        # Safe although not escaped: ``json_block`` leaves no ``<`` that could end the script element.
        figures=Markup(json_block({plot.id: plot.figure for plot in plots})),
        data=Markup(json_block(data or {})),
        contents=Contents(),
        **values,
    )


def script_hash(script: str) -> str:
    """What a content security policy calls an inline script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def json_block(value: Any) -> str:
    """JSON that may stand inside a script element: no ``<`` in it."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def coded(text: str) -> Markup:
    """Escaped text, words between backticks as code, and figures kept on one line with their unit."""
    from markupsafe import Markup, escape

    html = re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)))
    html = html.replace("≤ ", "≤\N{NO-BREAK SPACE}")
    return Markup(re.sub(r"(?<=\d) (?=%|(?:ms|µs|s|min|W|k?J|kWh)\b)", "\N{NO-BREAK SPACE}", html))


def destination(directories: Sequence[Path], output: Path | None) -> Path:
    """Where the page of ``directories`` goes.

    Raises:
        UsageError: no directory is given, or several without a common parent and without an output.
    """
    if not directories:
        raise UsageError("no run directory given", remedy="name at least one")
    if output is not None:
        return Path(output)
    if len(directories) == 1:
        return directories[0] / "report.html"
    parents = {directory.resolve().parent for directory in directories}
    if len(parents) > 1:
        raise UsageError(
            "the run directories have no common parent", remedy="say where the page goes with `-o`"
        )
    return directories[0].parent / "report.html"

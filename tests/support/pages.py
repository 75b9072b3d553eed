"""What holds for the text and the figures of every page."""

from __future__ import annotations

import json
import re
from typing import Any

from simslm.report.palette import COLOURS

UNITS = r", \S|%|\d|/s\b|\$|\b(s|ms|µs|W|J|USD|share)\b"
COUNTED = r"\b(requests|sequences|tokens|preemptions|batch|replicas|max_num_seqs|trial)\b"
CATEGORIES = r"^(beside|figure|iteration|metric|parameter|requests by TTFT)$"
SAID = re.compile(f"{UNITS}|{COUNTED}|{CATEGORIES}")
"""What an axis title holds: a unit, what is counted, or what the categories are."""


def own(page: str) -> str:
    """The page without plotly.js, which is in it once."""
    scripts = re.findall(r"<script>.*?</script>", page, flags=re.DOTALL)
    assert [script.count("plotly.js v") for script in scripts].count(1) == 1
    assert "plotly.js v" in scripts[0]
    return page.replace(scripts[0], "")


def valid(figure: dict[str, Any]) -> Any:
    """A figure as plotly's own model of it, once it is JSON of the palette's colours with a title on every axis.

    Returns:
        a ``plotly.graph_objects.Figure``, every colour replaced by the same one.
    """
    from plotly import graph_objects

    text = json.dumps(figure, allow_nan=False)
    assert set(re.findall(r"@([a-z]+)", text)) <= set(COLOURS)
    assert not re.search(r'"(#[0-9a-f]{3,6}|rgb)', text)
    layout = figure["layout"]
    scenes = [layout[name] for name in layout if name.startswith("scene")]
    axes = [
        axis
        for each in (layout, *scenes)
        for name, axis in each.items()
        if re.fullmatch(r"[xyz]axis\d*", name)
    ]
    assert len(axes) >= 2
    for axis in axes:
        assert axis.get("visible", True) is False or SAID.search(axis["title"]["text"]), axis["title"]
    assert layout["height"]
    return graph_objects.Figure(json.loads(re.sub(r"@[a-z]+", "#123456", text)))

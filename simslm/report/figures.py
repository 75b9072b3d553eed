"""What all figures share; a figure is a plain dict for plotly.

Colours are names of :mod:`palette` (``@accent``), which the page's script replaces by those of the light or the dark
theme: a figure holds no colour of its own. Everything else is what
``plotly.graph_objects.Figure`` accepts, and numbers carry six significant digits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

WIDE_RANGE = 30.0
"""Ratio of the largest value to the median from which a distribution is drawn on a logarithmic axis."""

Figure = dict[str, Any]


def pattern(shape: str) -> dict[str, Any]:
    """What tells bars apart beside their colour: ``/``, ``.`` or nothing."""
    return {"shape": shape, "fillmode": "overlay", "fgcolor": "@surface", "size": 6, "solidity": 0.25}


def decades(low: float, high: float) -> list[float]:
    """Ticks 1, 10, 100 … inside ``[low, high]``; 1, 3, 10, 30 … where that is under three decades."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1,) if math.log10(high / low) > 3 else (1, 3)
    ticks = [step * 10.0**exponent for exponent in exponents for step in steps]
    return [tick for tick in ticks if low * 0.93 <= tick <= high * 1.12]


LIMIT_LINE = {"color": "@limit", "width": 1.5, "dash": "dash"}


def key(colour: str, text: str, mark: str = "━") -> str:
    """A word after a stroke in the colour of its curve: the legend inside a figure."""
    return f'<span style="color:{colour}"><b>{mark}</b></span> {text}'


def frame(height: int, left: int, top: int, bottom: int) -> Figure:
    """The layout that all figures share; sizes in pixels."""
    return {
        "height": height,
        "margin": {"l": left, "r": 14, "t": top, "b": bottom},
        "paper_bgcolor": "@surface",
        "plot_bgcolor": "@surface",
        "font": {
            "family": "system-ui, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif",
            "size": 12,
            "color": "@muted",
        },
        "showlegend": False,
        "hoverlabel": {"bgcolor": "@surface", "bordercolor": "@muted", "font": {"color": "@ink"}},
        "dragmode": "zoom",
    }


def titled_axis(title: str) -> dict[str, Any]:
    """An axis as all figures have it."""
    return {
        "title": {"text": title, "standoff": 8, "font": {"size": 12, "color": "@muted"}},
        "gridcolor": "@grid",
        "linecolor": "@grid",
        "zeroline": False,
        "automargin": False,
        "tickfont": {"size": 11, "color": "@muted"},
        "fixedrange": False,
    }


def panel_heading(text: str, top: float) -> Figure:
    """What stands above one of several rows of curves, whose upper end is given as a share of the figure."""
    place = {"xref": "paper", "yref": "paper", "x": 0, "y": top, "xanchor": "left", "yanchor": "bottom"}
    return {**place, "text": text, "showarrow": False, "font": {"size": 12, "color": "@muted"}}


def rounded(values: Any, digits: int = 6) -> list[float | None]:
    """Plain floats of so many significant digits, None for what is not finite."""
    return [
        float(f"{value:.{digits}g}") if math.isfinite(value) else None
        for value in np.asarray(values, dtype=float)
    ]

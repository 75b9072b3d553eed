"""How far the figures of a run may be off because its costs are uncertain, and that alone.

What other requests of the same kind would change is another matter: ``intervals.sampling`` of a summary, by
:mod:`simslm.comparison.intervals`.

The run is repeated with costs a standard error ``s`` lower and higher in each independent direction in which they
are uncertain, with the same requests. A figure ``f`` then has the standard error ``sqrt(sum(((f+ - f-) / 2)^2))``
(the delta method with central differences), and its interval is 1.96 of them to either side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import exp, hypot
from typing import Any

LEVEL = 0.95
WIDTH = 1.96

SECTIONS = ("makespan_s", "throughput", "ttft_s", "tpot_s", "itl_s", "e2e_s", "queue_s", "slo", "economics")
"""What of a summary latencies decide; how uncertain power is is not known, so energy has no interval."""

OF_ENERGY = ("g_co2",)
"""Beginnings of names in those sections that follow from energy alone."""

ATTAINMENT = "slo.attainment"

OF = "cost error only"
"""What these intervals hold, for the lines that print them."""

OF_SAMPLING = "other requests of the same kind only"
"""What those of ``intervals.sampling`` hold."""

NO_ERROR = "how uncertain the costs are is not known"


def unknown(why: str = NO_ERROR) -> dict[str, Any]:
    """What stands in place of intervals."""
    return {"level": None, "of": OF, "figures": {}, "note": why}


def intervals(summary: Mapping[str, Any], pairs: Sequence[tuple[Mapping, Mapping]]) -> dict[str, Any]:
    """The interval of every figure, by its path in the summary.

    Args:
        summary: of the run.
        pairs: summaries of the run with lower and with higher costs, one pair for each direction.

    Returns:
        ``{level, of, figures: {path: [low, high]}, note}``; without pairs, :func:`unknown`.
    """
    if not pairs:
        return unknown()
    found = dict(_figures(summary))
    varied = [(dict(_figures(low)), dict(_figures(high))) for low, high in pairs]
    figures = {}
    for path, value in found.items():
        if all(path in low and path in high for low, high in varied):
            spread = WIDTH * hypot(*((high[path] - low[path]) / 2 for low, high in varied))
            figures[path] = _share(value, spread) if path == ATTAINMENT else _positive(value, spread)
    return {"level": LEVEL, "of": OF, "figures": figures, "note": ""}


def _share(value: float, spread: float) -> list[float]:
    return [max(value - spread, 0.0), min(value + spread, 1.0)]


def _positive(value: float, spread: float) -> list[float]:
    """An interval whose lower end stays above 0: where it would not, it is that of the figure's logarithm."""
    low = value - spread
    return [low if low > 0 or not value else value * exp(-spread / value), value + spread]


def sampling(figures: Mapping[str, tuple[float, float]], why: str = "") -> dict[str, Any]:
    """What stands in ``intervals.sampling``.

    Args:
        figures: the interval of each figure that has one, by path.
        why: of the others, or of all, there is none.
    """
    level = LEVEL if figures else None
    return {
        "level": level,
        "of": OF_SAMPLING,
        "figures": {path: list(each) for path, each in figures.items()},
        "note": why,
    }


def _figures(summary: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers of the sections, by path."""
    for section in SECTIONS:
        values = summary[section]
        if isinstance(values, Mapping):
            for name, value in values.items():
                # How far off the power of a trace is, is not known, and an interval from latency alone would look
                # like one.
                if isinstance(value, int | float) and not name.startswith(OF_ENERGY):
                    yield f"{section}.{name}", float(value)
        elif values is not None:
            yield section, float(values)

"""How sure the figures of a run are, in sentences: by the error of its costs, and under other requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simslm.units import number, seconds

SHOWN = (
    ("throughput.output_tokens_per_s", "output tokens/s"),
    ("ttft_s.mean", "mean TTFT"),
    ("tpot_s.mean", "mean TPOT"),
    ("itl_s.mean", "mean ITL"),
    ("slo.attainment", "SLO attainment"),
)


def certainty(summary: Mapping[str, Any]) -> list[str]:
    """A sentence for each kind of interval: what it holds, and those of the figures that matter most, or why there are
    none; nothing for runs written before intervals existed."""
    known = summary.get("intervals") or {}
    return [words for each in (known, known.get("sampling") or {}) if (words := _sentence(each))]


def _sentence(known: Mapping[str, Any]) -> str:
    figures, level = known.get("figures") or {}, known.get("level")
    parts = [f"{name} {_span(path, *figures[path])}" for path, name in SHOWN if path in figures]
    of = known.get("of", "cost error only")
    if level and parts:
        without = (
            f"; none of TTFT: {known['note']}" if known.get("note") and "ttft_s.mean" not in figures else ""
        )
        return f"{number(100 * level)} % intervals, {of}: {', '.join(parts)}{without}"
    return f"no intervals of {of.removesuffix(' only')}: {known['note']}" if known.get("note") else ""


def _span(path: str, low: float, high: float) -> str:
    if path == "slo.attainment":
        ends = [f"{number(100 * end)} %" for end in (low, high)]
    else:
        ends = [(seconds if "_s." in path else number)(end) for end in (low, high)]
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)

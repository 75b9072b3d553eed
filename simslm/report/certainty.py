"""How sure the figures of a run are, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simslm.units import number, seconds

SHOWN = (
    ("throughput.output_tokens_per_s", "output tokens/s"),
    ("ttft_s.mean", "mean TTFT"),
    ("tpot_s.mean", "mean TPOT"),
    ("itl_s.mean", "mean ITL"),
)


def certainty(summary: Mapping[str, Any]) -> str:
    """The intervals of the figures that matter most, or why there are none; empty for runs older than intervals."""
    known = summary.get("intervals") or {}
    figures, level = known.get("figures") or {}, known.get("level")
    parts = [f"{name} {_span(path, *figures[path])}" for path, name in SHOWN if path in figures]
    if not level or not parts:
        return known.get("note", "")
    return f"{number(100 * level)} % intervals: " + ", ".join(parts)


def _span(path: str, low: float, high: float) -> str:
    write = seconds if "_s." in path else number
    ends = write(low), write(high)
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)

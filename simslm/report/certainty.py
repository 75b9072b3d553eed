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
    ("energy.j_per_output_token", "J per output token"),
)


def certainty(summary: Mapping[str, Any]) -> str:
    """The intervals of the figures that matter most; empty where nothing is known of them."""
    known = summary.get("intervals") or {}
    figures, level = known.get("figures") or {}, known.get("level")
    parts = [f"{name} {_span(path, *figures[path])}" for path, name in SHOWN if path in figures]
    return f"{number(100 * level)} % intervals: " + ", ".join(parts) if level and parts else ""


def _span(path: str, low: float, high: float) -> str:
    write = seconds if "_s." in path else number
    ends = write(low), write(high)
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)

"""Why a search has no answer, in words: which constraint, by how much, and the nearest point."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simslm.units import number

MOST = 3
"""Reasons that are told; the file has all."""


def infeasible(found: Mapping[str, Any]) -> str:
    """One sentence for each obstacle, from the contents of a ``frontier.json`` without points."""
    counts = found["counts"]
    parts = [f"none of {counts['points']:,} points is feasible"]
    parts += [
        f"{each['points']:,} cannot be ({each['reason'].rstrip('.')})" for each in found["infeasible"][:MOST]
    ]
    parts += [
        f"{each['points']:,} of {each['of']:,} break {each['constraint']}, the closest with "
        f"{number(each['closest'])} by {number(100 * each['excess'])} %"
        for each in found["violated"]
    ]
    nearest = found["nearest"]
    if nearest is not None:
        point = ", ".join(f"{path} {value}" for path, value in nearest["parameters"].items())
        by = ", ".join(f"{text} by {number(100 * excess)} %" for text, excess in nearest["excess"].items())
        parts.append(f"nearest: {point} (misses {by}); see it with: {nearest['command']}")
    return "; ".join(parts)

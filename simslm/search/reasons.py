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
        f"{each['points']:,} infeasible ({each['reason'].rstrip('.')})" for each in found["infeasible"][:MOST]
    ]
    parts += [
        f"{each['points']:,} of {each['of']:,} break {each['constraint']}, the closest {closest(each)}"
        for each in found["violated"]
    ]
    nearest = found["nearest"]
    if nearest is not None:
        point = ", ".join(f"{path} {value}" for path, value in nearest["parameters"].items())
        by = ", ".join(f"{text} {beyond(excess)}" for text, excess in nearest["excess"].items())
        parts.append(f"nearest: {point} (misses {by}); see it with: {nearest['command']}")
    parts += [
        f"{each['constraint']} {WHENCE[origin]}"
        for each in found["violated"]
        if (origin := _origin(found, each["constraint"])) in WHENCE
    ]
    return "; ".join(parts)


WHENCE = {
    "slo": "is the scenario's own SLO (search.slo: ignored lets points miss it)",
    "default": "is a default (search.finished_share, search.rejected_share)",
}
"""Origins of the constraints that the search does not state."""


def _origin(found: Mapping[str, Any], constraint: str) -> str:
    return found["bounds"][found["constraints"].index(constraint)]["origin"]


def closest(each: Mapping[str, Any]) -> str:
    """How near points come to a constraint that they break."""
    if each["closest"] is None:
        return "with no finite value: requests are missed"
    return f"with {number(each['closest'])} by {number(100 * each['excess'])} %"


def beyond(excess: float | None) -> str:
    """By how much a constraint is missed."""
    return "without bound: requests are missed" if excess is None else f"by {number(100 * excess)} %"

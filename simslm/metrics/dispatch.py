"""Figures of what stands before the replicas: requests that the gateway answered, and what each group was asked."""

from __future__ import annotations

from typing import Any

from simslm.sim.log import SimulationLog


def gateway_figures(log: SimulationLog, arrived: int) -> dict[str, Any]:
    """How many requests the gateway answered, and their share of those that arrived."""
    return {"answered": log.answered, "answered_share": log.answered / arrived if arrived else 0.0}


def group_figures(log: SimulationLog) -> dict[str, Any]:
    """How often requests went on to another group, and what became of those of each.

    Of a group, ``requests`` counts those that it let in, ``answered`` those whose answer went out, and ``escalated``
    those that went on; the rest failed or is unfinished. A request counts in each group that served it.
    """
    return {
        "escalations": sum(group.escalated for group in log.groups),
        "groups": [group._asdict() for group in log.groups],
    }

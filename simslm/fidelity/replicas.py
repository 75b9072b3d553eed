"""Several replicas of a scenario that is served live: which replica serves which request, and how interference is
known."""

from __future__ import annotations

from typing import Any

import numpy as np

from simslm.api import Prepared
from simslm.errors import UsageError
from simslm.policies.registry import registered
from simslm.sim.deployment import servable
from simslm.sim.rows import RequestRows
from simslm.sim.state.sequence import Sequence


def check_replicas(prepared: Prepared) -> None:
    """Refuses routers whose choices cannot be made before a run.

    Raises:
        UsageError: naming those that can be served.
    """
    scenario, group = prepared.scenario, prepared.deployment().groups[0]
    if len(group.devices) == 1 or not group.router().looks_at_replicas:
        return
    ahead = [entry.name for entry in registered("routing") if not entry.cls.looks_at_replicas]
    raise UsageError(
        f"cannot be served live: the router {prepared.groups[0].spec.router.policy} looks at the replicas, but who "
        f"serves which request is decided before; {' and '.join(ahead)} can be served",
        where=scenario.where("deployment", "router") or scenario.where("deployment") or scenario.name,
        remedy="--set deployment.router.policy=round-robin",
    )


def routed(prepared: Prepared) -> np.ndarray:
    """The replica that serves each request, shape ``(requests,)``: the router's own choices, by its own stream.

    They are those of the simulation, as a router that :func:`check_replicas` lets pass sees nothing that is not known
    before. Requests that can never be served are not routed there either: -1.
    """
    requests, group = prepared.requests, prepared.deployment().groups[0]
    fits, router = servable(requests, group), group.router()
    if len(group.devices) == 1:
        return np.where(fits, 0, -1)
    rows = RequestRows(len(requests))
    rows.load(requests, fits)
    unseen: list[Any] = [None] * len(group.devices)
    chosen = np.full(len(requests), -1)
    for row in np.flatnonzero(fits).tolist():
        request = Sequence(row, rows.due_s[row], rows.prompt_tokens[row], rows.max_tokens[row], row)
        rows.describe(request)
        chosen[row] = router.choose(request, unseen)
    return chosen


_SHARED = ("sharing", "replicas")


def interference(prepared: Prepared) -> str | None:
    """Whether what replicas do to each other is ``measured`` by the trace or ``modelled``; None for one alone."""
    if len(prepared.priced) == 1:
        return None
    rows = prepared.groups[0].cost.colocated
    held = [] if rows is None else list(zip(*(rows[name].to_pylist() for name in _SHARED), strict=True))
    asked = (prepared.scenario.deployment.sharing, len(prepared.priced))
    return "measured" if asked in held else "modelled"

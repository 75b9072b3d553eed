"""What the control plane did in a run: how long replicas were what, and which clocks the devices had."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from simslm.report.division import Division
from simslm.report.limits import group_of
from simslm.report.tables import RunTables, figure_of
from simslm.report.timeline import replica_count
from simslm.report.wording import count, share
from simslm.units import number, seconds

STATES = {
    "serving": "gets requests",
    "draining": "finishes those it has and gets no more",
    "starting": "is on its way to serve",
    "asleep": "holds its device and no request",
    "failed": "is being repaired",
    "gone": "has given its device back",
}
"""What a replica may be, as on screens."""

UP = ("serving", "draining")

MOST_ROWS = 16
"""Replicas that have a row each; of more, all of them together have one."""


def control_plane(run: RunTables) -> list[Division]:
    """The tables of a run: none where all replicas served all the time and clocks did not change."""
    return [*_lifetimes(run), *_clocks(run)]


def up_replicas(run: RunTables, group: int | None = None) -> float:
    """Replicas that could serve, on average over the run, all of them or of a group; without a control plane all."""
    lives = run.lifetimes
    if lives is None:
        return float(replica_count(run))
    first, last = _span(run)
    mine = np.isin(lives["state"], UP)
    if group is not None:
        mine &= group_of(run, lives["replica"]) == group
    lasted = np.clip(lives["to_s"], first, last) - np.clip(lives["from_s"], first, last)
    return float(lasted[mine].sum()) / (last - first) if last > first else 0.0


def _span(run: RunTables) -> tuple[float, float]:
    """From the first arrival to the end of the last iteration, or what counts of it."""
    if (window := run.window_s) is not None:
        return window
    first = float(np.min(run.requests["arrival_s"], initial=np.inf))
    first = first if np.isfinite(first) else 0.0
    return first, first + (figure_of(run.summary, "makespan_s") or 0.0)


def _lifetimes(run: RunTables) -> Iterator[Division]:
    lives = run.lifetimes
    if lives is None:
        return
    first, last = _span(run)
    lasted = np.clip(lives["to_s"], first, last) - np.clip(lives["from_s"], first, last)
    states = [state for state in STATES if lasted[lives["state"] == state].sum() > 0]
    replicas = np.unique(lives["replica"])
    parts = [(f"replica {replica:.0f}", lives["replica"] == replica) for replica in replicas]
    if len(parts) > MOST_ROWS or len(parts) == 1:
        parts = [("all replicas" if len(parts) > 1 else "the replica", np.full(len(lasted), True))]
    rows = [
        [
            name,
            *(seconds(float(lasted[mine & (lives["state"] == state)].sum())) for state in states),
            count(np.sum(mine & (lives["state"] == "failed"))),
        ]
        for name, mine in parts
    ]
    words = [(state.capitalize(), STATES[state]) for state in states]
    columns = ("", *states, "faults")
    yield Division("lifetimes", "Replicas over time", columns, rows, list(_sentences(run)), words)


def _sentences(run: RunTables) -> Iterator[str]:
    """What happened, in figures of the summary."""
    found = {name: figure_of(run.summary, f"fleet.{name}") or 0 for name in COUNTS}
    up, most = (figure_of(run.summary, f"fleet.{name}_replicas") for name in ("mean", "most"))
    held = figure_of(run.summary, "fleet.mean_devices")
    if up is not None and most is not None:
        who = f"{number(up)} of {count(replica_count(run))} replicas could serve on average"
        devices = "" if held is None else f"; {_devices(held)} held on average"
        yield f"{who}, at most {count(most)} at once{devices}."
    said = [
        f"{count(found[name])} {one if found[name] == 1 else many}"
        for name, (one, many) in COUNTS.items()
        if found[name]
    ]
    if said:
        yield f"{', '.join(said)}."


def _devices(held: float) -> str:
    return "1 device was" if held == 1 else f"{number(held)} devices were"


COUNTS = {
    "starts": ("start", "starts"),
    "drains": ("drain", "drains"),
    "failures": ("fault", "faults"),
    "migrations": ("request was moved", "requests were moved"),
    "recomputed": ("time a request lost its replica", "times a request lost its replica"),
    "lost_work": ("time a request lost what it had computed", "times a request lost what it had computed"),
    "killed": ("request failed with its replica", "requests failed with their replicas"),
    "held": ("time a request waited for a replica to serve", "times a request waited for a replica to serve"),
}
"""The counts of the section ``fleet`` of a summary, in words."""


def _clocks(run: RunTables) -> Iterator[Division]:
    clocks = run.clocks
    if clocks is None:
        return
    first, last = _span(run)
    lasted = np.diff(np.clip([*clocks["from_s"], last], first, last))
    rows = []
    for clock in np.unique(clocks["sm_clock_mhz"])[::-1]:
        mine = clocks["sm_clock_mhz"] == clock
        part = float(lasted[mine].sum())
        rows.append(
            [
                f"{number(float(clock))} MHz",
                count(mine.sum()),
                seconds(part),
                share(part / (last - first or 1.0)),
            ]
        )
    meaning = "of the SMs of all devices; a new clock holds for each replica from its next iteration on"
    yield Division("clocks", "Clocks", ("", "times", "time", "share"), rows, [], [("Clock", meaning)])

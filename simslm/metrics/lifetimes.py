"""Lifetimes of replicas: for how long each could serve, for how long its device was held, and what happened to it.

A replica is *up* while it serves or drains. A device is *held* while any of its replicas is anything but gone: it is
paid for, and idles, also while a replica starts, sleeps or is being repaired.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simslm.metrics.ledger import Priced
from simslm.policies.fleet import ASLEEP, DRAINING, FAILED, GONE, SERVING, STARTING
from simslm.sim.log import Life, SimulationLog

UP = (SERVING, DRAINING)

NOWHERE = -1
"""The replica of a request that waits for one to serve."""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """The lifetimes of all replicas over a time.

    Attributes:
        begin_s, end_s: that time.
        up_s: seconds of it in which each replica was up.
        held_s: seconds of it in which the device of each replica was held.
        lives: all of them, cut to that time; empty where all replicas served all of it.
    """

    begin_s: float
    end_s: float
    up_s: tuple[float, ...]
    held_s: tuple[float, ...]
    lives: tuple[Life, ...] = ()


def lifetimes(log: SimulationLog, replicas: Sequence[Priced], begin_s: float, end_s: float) -> Lifetimes:
    """The lifetimes of replicas between two times, seconds."""
    whole = max(end_s - begin_s, 0.0)
    if not log.lives:
        every = (whole,) * len(replicas)
        return Lifetimes(begin_s, end_s, every, every)
    cut = [life._replace(from_s=max(life.from_s, begin_s), to_s=min(life.to_s, end_s)) for life in log.lives]
    lives = tuple(life for life in cut if life.to_s > life.from_s)
    up = [0.0] * len(replicas)
    for life in lives:
        up[life.replica] += (life.to_s - life.from_s) * (life.state in UP)
    held = {
        device: _union(
            [life for life in lives if life.state != GONE and replicas[life.replica].device == device]
        )
        for device in {priced.device for priced in replicas}
    }
    return Lifetimes(begin_s, end_s, tuple(up), tuple(held[priced.device] for priced in replicas), lives)


def _union(lives: Sequence[Life]) -> float:
    """Seconds that at least one of some lives covers."""
    covered, until_s = 0.0, float("-inf")
    for life in sorted(lives, key=lambda life: life.from_s):
        covered += max(life.to_s - max(life.from_s, until_s), 0.0)
        until_s = max(until_s, life.to_s)
    return covered


def fleet_figures(
    log: SimulationLog,
    replicas: Sequence[Priced],
    lived: Lifetimes,
    unused_devices: int,
) -> dict[str, Any]:
    """The section ``fleet`` of a summary: what the control plane did.

    Args:
        log: of the run.
        replicas: how each is priced.
        lived: over the time that counts.
        unused_devices: devices that are there but serve no request.
    """
    seconds = lived.end_s - lived.begin_s
    held = {priced.device: (s, priced.spans) for priced, s in zip(replicas, lived.held_s, strict=True)}
    begun = Counter(
        life.state for life in log.lives if lived.begin_s <= life.from_s < lived.end_s and life.from_s > 0
    )
    figures: dict[str, Any] = {
        "mean_replicas": sum(lived.up_s) / seconds if seconds else 0.0,
        "most_replicas": _most(lived, len(replicas)),
        "mean_devices": sum(s * spans for s, spans in held.values()) / seconds + unused_devices
        if seconds
        else 0.0,
        "starts": begun[STARTING],
        "drains": begun[DRAINING],
        "sleeps": begun[ASLEEP],
        "failures": begun[FAILED],
        "migrations": log.moved.get("migration", 0),
        "recomputed": log.moved.get("failure", 0),
        "held": log.moved.get("held", 0),
        "lost_work": log.faulted.get("lost_work", 0),
        "killed": log.faulted.get("killed", 0),
    }
    if log.clocks:
        figures |= {"clock_changes": len(log.clocks) - 1, "mean_clock_mhz": _mean_clock(log, lived)}
    return figures


def _most(lived: Lifetimes, replicas: int) -> int:
    """Replicas that were up at once at most."""
    if not lived.lives:
        return replicas
    steps = [(life.from_s, 1) for life in lived.lives if life.state in UP]
    steps += [(life.to_s, -1) for life in lived.lives if life.state in UP]
    return int(np.cumsum([step for _, step in sorted(steps)]).max(initial=0))


def _mean_clock(log: SimulationLog, lived: Lifetimes) -> float:
    """The mean over time, MHz."""
    since, clocks = (np.array(column) for column in zip(*log.clocks, strict=True))
    lasted = np.diff(np.clip([*since, lived.end_s], lived.begin_s, lived.end_s))
    total = float(lasted.sum())
    return float(np.dot(lasted, clocks)) / total if total else float(clocks[-1])

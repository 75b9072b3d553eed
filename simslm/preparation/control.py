"""The control plane of a scenario: its policies yet to be made, and what iterations cost at each clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from simslm.cost.model import CostModel
from simslm.cost.throttled import Throttle, Throttled, measured_clocks, throttles
from simslm.errors import TraceError
from simslm.policies.registry import create
from simslm.scenario.schema import GroupSpec, Replicas, Scenario
from simslm.sim.control.spec import Faults, Migration, Power, Scaling
from simslm.traces.files import read_trace
from simslm.workload.streams import stream

Draws = Callable[[str], np.random.Generator]


def scaling_of(spec: Replicas, replicas: int, draws: Draws) -> Scaling | None:
    """How the replicas of a group come and go, of so many that there may be."""
    asked = spec.scaling
    if asked is None:
        return None
    return Scaling(
        policy=lambda: create("scaling", asked, draws),
        every_s=asked.every_s,
        min_replicas=asked.min_replicas,
        max_replicas=replicas if asked.max_replicas is None else asked.max_replicas,
        initial_replicas=asked.min_replicas if asked.initial_replicas is None else asked.initial_replicas,
        start_s=asked.start_s,
        wake_s=asked.wake_s,
        sleeps=asked.idle == "sleep",
        keep_cache=asked.idle == "sleep" and asked.keep_cache,
    )


def migration_of(spec: Replicas, draws: Draws) -> Migration | None:
    """How requests of a group move."""
    asked = spec.migration
    if asked is None:
        return None
    return Migration(policy=lambda: create("migration", asked, draws), every_s=asked.every_s)


def faults_of(spec: Replicas, draws: Draws) -> Faults | None:
    """How replicas of a group fail."""
    asked = spec.faults
    if asked is None:
        return None
    return Faults(policy=lambda: create("faults", asked, draws), recompute=asked.requests == "recompute")


def power_of(scenario: Scenario) -> Power | None:
    """How the clocks change."""
    asked = scenario.deployment.power
    if asked is None:
        return None
    return Power(
        policy=lambda: create("power", asked, partial(stream, scenario.seed)),
        every_s=asked.every_s,
        clocks_mhz=clocks_of(scenario),
    )


def clocks_of(scenario: Scenario) -> tuple[float, ...]:
    """The clocks to choose from, MHz, the highest first; none where clocks do not change.

    Raises:
        TraceError: fewer than two were measured.
    """
    asked = scenario.deployment.power
    if asked is None or asked.clocks_mhz:
        return () if asked is None else asked.clocks_mhz
    first = (scenario.deployment.groups or (None,))[0]
    trace = (None if first is None else first.cost and first.cost.trace) or scenario.cost.trace
    assert trace is not None
    found = measured_clocks(read_trace(scenario.base_dir / trace))
    if len(found) < 2:
        raise TraceError(
            "has no power and speed at two clocks or more, which deployment.power needs",
            where=f"{trace}/power.parquet",
            remedy="measure them on a device that lets its clock be set, or leave deployment.power out",
        )
    return found


Levels = tuple[tuple[str, dict[str, Throttle]], ...]
"""What each clock does to the iterations of a group, and its name."""


def levels_of(scenario: Scenario, spec: Replicas) -> Levels:
    """What each clock does to a group's iterations; nothing where clocks do not change.

    Raises:
        TraceError: its trace does not have power and speed at those clocks.
    """
    clocks = clocks_of(scenario)
    cost = (spec.cost if isinstance(spec, GroupSpec) else None) or scenario.cost
    if not clocks or cost.trace is None:
        return ()
    trace = read_trace(scenario.base_dir / cost.trace)
    trace = replace(trace, path=type(trace.path)(cost.trace))
    return tuple((f"sm_clock_mhz {clock:g} MHz", throttles(trace, "sm_clock_mhz", clock)) for clock in clocks)


def costs_at(cost: CostModel, levels: Levels) -> tuple[CostModel, ...]:
    """The cost at each clock."""
    return tuple(Throttled(cost, throttle, words) for words, throttle in levels)

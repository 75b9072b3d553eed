"""Replicas on one device, against arithmetic and against an independent model of their phases."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.invariants import simulate
from support.synthetic import FixedDemand, LinearCost, Lists, deployment

from simslm.catalog.work import IterationShape
from simslm.cost.model import Costs
from simslm.cost.sharing import Demand, Sharing, sharing
from simslm.sim.clock import Clock, turn
from simslm.sim.device import SharedDevice
from simslm.sim.span import Span

WAYS = ["mps", "time-slice", "streams", "sm-partition"]
NOTHING = IterationShape(0, 0)


@dataclass
class HostCost(LinearCost):
    """A stated part of every iteration is host time."""

    host_share: float = 0.0

    def host_s(self, shape: IterationShape) -> Any:
        return self.latency_s(shape) * self.host_share

    def evaluate(self, shapes: IterationShape) -> Costs:
        return replace(super().evaluate(shapes), host_s=self.host_s(shapes))


def served(
    replicas: int, way: str = "mps", *, host_share: float = 0.0, busy: int | None = None, **asked: float
) -> Any:
    """Equal requests at once, one on each of the first ``busy`` replicas of one device."""
    busy = replicas if busy is None else busy
    setting = deployment(
        replicas=replicas,
        replicas_per_device=replicas,
        sharing_name=way,
        cost=HostCost(host_share=host_share),
    )
    group = setting.groups[0]
    object.__setattr__(group, "demand", FixedDemand(**asked) if asked else FixedDemand())
    return simulate(Lists.of(np.zeros(busy), 50, 40), setting)


@pytest.mark.parametrize("replicas", [2, 3, 8])
def test_time_slices_of_equal_busy_replicas_take_n_times_as_long(replicas):
    alone = served(1).summary["makespan_s"]
    assert served(replicas, "time-slice").summary["makespan_s"] == pytest.approx(replicas * alone, rel=1e-9)


@pytest.mark.parametrize("replicas", [2, 4])
def test_mps_costs_nothing_while_all_demands_fit(replicas):
    alone = served(1).summary["makespan_s"]
    fits = served(replicas, "mps", compute=1 / replicas, memory=0.9 / replicas).summary["makespan_s"]
    assert fits == pytest.approx(alone, rel=1e-12)
    asked = served(replicas, "mps", compute=0.1, memory=2 / replicas).summary["makespan_s"]
    assert asked == pytest.approx(2 * alone, rel=1e-9)


@pytest.mark.parametrize("way", ["mps", "time-slice"])
@pytest.mark.parametrize("host_share", [0.25, 0.75])
def test_host_gaps_overlap_for_free(way, host_share):
    """Three replicas in step: all host phases at once, then three device phases on one device."""
    alone = served(1).summary["makespan_s"]
    together = served(3, way, host_share=host_share, compute=1.0, memory=1.0).summary["makespan_s"]
    assert together == pytest.approx(alone * (host_share + 3 * (1 - host_share)), rel=1e-9)


def test_streams_launch_one_at_a_time():
    """Host phases that exclude each other add up: four replicas whose device phases cost nothing extra."""
    alone = served(1, host_share=0.5).summary["makespan_s"]
    asked = {"compute": 0.1, "memory": 0.1}
    overlapped = served(4, "mps", host_share=0.5, **asked)
    serial = served(4, "streams", host_share=0.5, **asked)
    host = sum(float(table.columns["host_s"].sum()) for table in serial.tables)
    assert overlapped.summary["makespan_s"] == pytest.approx(alone, rel=1e-12)
    assert host == pytest.approx(2 * alone, rel=1e-9)
    assert host <= serial.summary["makespan_s"] <= 1.1 * host


def test_a_partition_holds_a_replica_to_its_share_whoever_else_is_active():
    alone = served(1).summary["makespan_s"]
    for busy in (1, 2):
        held = served(2, "sm-partition", busy=busy, compute=1.0, memory=0.1)
        assert held.summary["makespan_s"] == pytest.approx(2 * alone, rel=1e-9)
    roomy = served(2, "sm-partition", busy=1, compute=0.4, memory=0.5).summary["makespan_s"]
    assert roomy == pytest.approx(alone, rel=1e-9)


@pytest.mark.parametrize("way", WAYS)
def test_a_shared_device_idles_once_and_works_for_each(way):
    result = served(3, way, host_share=0.3)
    cost = LinearCost()
    dynamic = sum(
        (300.0 - 60.0)
        * float(
            np.sum(cost.latency_s(IterationShape(*(table.columns[name] for name in IterationShape._fields))))
        )
        for table in result.tables
    )
    expected = 60.0 * result.summary["makespan_s"] + dynamic
    assert result.summary["energy"]["total_j"] == pytest.approx(expected, rel=1e-9)


# ---- against an independent model --------------------------------------------------------------------------


class Worker:
    """A tenant that runs given iterations, each so much host and device time, from a given time on."""

    def __init__(self, index: int, clock: Clock, device: SharedDevice, plan: tuple, demand: Demand) -> None:
        self.priority = turn(index)
        self.clock, self.device, self.asked = clock, device, demand
        self.start_s, self.iterations = plan
        self.host, self.ends = 0.0, []
        clock.process(self.run())

    def growth(self, shape: IterationShape) -> int:
        return shape.decode_seqs

    def host_s(self, shape: IterationShape) -> float:
        return self.host

    def demand(self, shape: IterationShape, device_s: float) -> Demand:
        return self.asked

    def run(self):
        yield self.clock.alarm(self.start_s, self.priority)
        for host, device in self.iterations:
            self.host = host
            self.span = Span(self.clock.now, host + device, 0.0, 1, 0, 1)
            yield self.device.execute(self, NOTHING)
            self.ends.append(self.clock.now)


def reference(plans: list[tuple], demands: list[Demand], way: Sharing) -> list[list[float]]:
    """Ends of all iterations: from one change to the next, the work of each replica goes down at its present speed."""
    now, ends = 0.0, [[] for _ in plans]
    todo = [
        [("wait", start)] + [phase for h, d in its for phase in (("host", h), ("device", d))]
        for start, its in plans
    ]
    launching: list[int] = []
    while any(todo):
        for i, phases in enumerate(todo):
            if phases and phases[0][0] == "host" and i not in launching:
                launching.append(i)
        active = [i for i, phases in enumerate(todo) if phases and phases[0][0] == "device"]
        speed = dict(zip(active, way.speeds([demands[i] for i in active]) if active else [], strict=True))
        for i, phases in enumerate(todo):
            if phases and i not in speed:
                blocked = way.serial_host and phases[0][0] == "host" and launching[0] != i
                speed[i] = 0.0 if blocked else 1.0
        step = min(todo[i][0][1] / v for i, v in speed.items() if v)
        now += step
        for i, v in speed.items():
            name, left = todo[i][0]
            left -= step * v
            todo[i][0] = (name, left)
            if v and left <= 1e-12:
                todo[i].pop(0)
                if name == "host":
                    launching.remove(i)
                if name == "device":
                    ends[i].append(now)
    return ends


times = st.integers(1, 1000).map(lambda n: n / 997)
offsets = st.integers(0, 3000).map(lambda n: n / 1009)
"""Multiples of different primes' parts, with an irrational shift for each tenant: nothing happens at the same time."""


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(WAYS),
    st.lists(
        st.tuples(offsets, st.lists(st.tuples(times, times), min_size=1, max_size=6)),
        min_size=1,
        max_size=4,
    ),
    st.lists(st.tuples(st.floats(0.05, 1.0), st.floats(0.05, 1.0)), min_size=4, max_size=4),
)
def test_phases_advance_at_the_speeds_of_those_active_and_no_work_is_lost(name, plans, asked):
    """Every device phase ends when the integral of its speed is its time alone; hosts queue where they must."""
    plans = [(start + i * 1e-5 * 2**0.5, phases) for i, (start, phases) in enumerate(plans)]
    demands = [Demand(*pair) for pair in asked[: len(plans)]]
    way, clock = sharing(name, len(plans)), Clock()
    device = SharedDevice(clock, way)
    workers = [
        Worker(i, clock, device, plan, demand)
        for i, (plan, demand) in enumerate(zip(plans, demands, strict=True))
    ]
    clock.run()
    for worker, expected in zip(workers, reference(plans, demands, way), strict=True):
        assert worker.ends == pytest.approx(expected, rel=1e-9, abs=1e-9)


# ---- symmetry ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("router", ["least-outstanding", "join-shortest-queue"])
def test_the_order_in_which_devices_are_listed_changes_no_figure(router):
    """Two replicas on each of three devices, listed in any order: the same requests meet the same neighbours."""
    rng = np.random.default_rng(4)
    requests = Lists.of(np.cumsum(rng.exponential(0.004, 200)), *rng.integers(1, 90, (2, 200)))
    summaries = []
    for devices in ((0, 0, 1, 1, 2, 2), (2, 2, 0, 0, 1, 1), (7, 7, 5, 5, 6, 6)):
        setting = deployment(router=router, replicas=6, replicas_per_device=2, max_num_seqs=8)
        object.__setattr__(setting.groups[0], "devices", devices)
        summaries.append(simulate(requests, setting).summary)
    assert summaries[0] == summaries[1] == summaries[2]

"""A workload served in real time by several replicas that share a device, each its part of the same arrivals.

Which replica serves a request is decided before. All replicas take one moment for their first: ``time.perf_counter``
is one clock for all processes of a machine. Energy is that of the device, and so is measured once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np

from profiler import ENGINE
from profiler.engine.cache import BLOCK_SIZE
from profiler.engine.engine import open_device
from profiler.measure.company import Company
from profiler.measure.meters import Meter, NoMeter, open_meter
from profiler.memory import affordable_blocks, check_affordable
from profiler.replicas import Replica, running
from profiler.serving.clock import WallClock
from profiler.serving.live import Columns, LiveEngine
from profiler.serving.log import Served
from profiler.serving.replica import Limits, Policies
from simslm.catalog.architecture import Architecture

_MARGIN_S = 0.1
"""From when the first moment is told to when it is."""

_LISTEN_S = 0.1


@contextmanager
def open_replicas(
    architecture: Architecture,
    dtype: str,
    device: str,
    num_blocks: int,
    block_size: int = BLOCK_SIZE,
    seed: int = 0,
    *,
    replicas: int,
    sharing: str,
    threads: int | None = None,
    meter: Meter | None = None,
) -> Iterator[LiveReplicas]:
    """Replicas of one model with the same weights; they end with the context.

    Args:
        architecture, dtype, device, seed: as of :class:`profiler.serving.live.LiveEngine`.
        num_blocks, block_size: KV cache of each.
        replicas: how many.
        sharing: how they share the device, of :data:`profiler.replicas.WAYS`.
        threads: CPU threads of each, where they are processes.
        meter: energy counter instead of the device's own.

    Raises:
        InfeasibleError: they do not fit beside each other in what memory is free.
        DeviceError: MPS cannot be had, or a replica did not start.
    """
    affordable = affordable_blocks(architecture, device, dtype, block_size, replicas)
    check_affordable(num_blocks, affordable, device, replicas)
    alone = NoMeter("of a device that is shared, energy is measured for all replicas at once")
    make = partial(LiveEngine.open, architecture, dtype, device, num_blocks, block_size, seed, alone)
    counter = meter or open_meter(open_device(device))
    with running(sharing, [make] * replicas, device, threads) as started:
        yield LiveReplicas(started, sharing, counter)


class LiveReplicas:
    """Several engines kept warm, that serve one workload after another together.

    Args:
        replicas: their engines are each a :class:`profiler.serving.live.LiveEngine`.
        sharing: how they share the device.
        meter: of the device.

    Attributes:
        name: name and version of the engine.
    """

    name = ENGINE

    def __init__(self, replicas: Sequence[Replica], sharing: str, meter: Meter) -> None:
        self._replicas, self._sharing, self._meter = replicas, sharing, meter
        for replica in replicas:
            replica.tell(_describe)
        self._described: list[Any] = [replica.answer() for replica in replicas]

    def warm(self, limits: Limits, longest: int, stopping: Callable[[], bool] = lambda: False) -> None:
        """All at once do what :meth:`profiler.serving.live.LiveEngine.warm` says.

        Raises:
            DeviceError: one of them failed.
            KeyboardInterrupt: it was told to stop.
        """
        for replica in self._replicas:
            replica.tell(partial(_warm, limits=limits, longest=longest))
        self._described = self._answers(stopping)

    def serve(
        self,
        columns: Columns,
        limits: Limits,
        policies: Policies,
        stopping: Callable[[], bool] = lambda: False,
    ) -> Served:
        """Serves a workload whose first moment is now, or almost.

        Args:
            columns: see :data:`profiler.serving.live.Columns`; ``replica`` says who serves each request.
            limits, policies: of each replica, which has policies of its own made from these.
            stopping: asked ten times a second; once it says so, the run is abandoned, and the replicas are of no more
                use.

        Raises:
            DeviceError: a replica failed, or was killed.
            KeyboardInterrupt: it was told to stop.
        """
        meter, order = self._meter, partial(_serve, columns=columns, limits=limits, policies=policies)
        for number, replica in enumerate(self._replicas):
            replica.tell(partial(order, number=number))
        for replica in self._replicas:
            replica.answer()
        begin_s = time.perf_counter() + _MARGIN_S
        for replica in self._replicas:
            replica.tell(begin_s)
        time.sleep(max(0.0, begin_s - time.perf_counter()))
        before, company = meter.energy_j(), Company()
        shares, busy_s = zip(*self._answers(stopping), strict=True)
        after, others = meter.energy_j(), company.share(0.0 if self._sharing == "streams" else sum(busy_s))
        energy_j = None if before is None or after is None else after - before
        known = [_gaps_known(replica, share) for replica, share in zip(self._replicas, shares, strict=True)]
        return replace(merged(known), energy_j=energy_j, other_load=others)

    def describe(self) -> dict[str, Any]:
        """The machine, the engine and its threads, as results state them."""
        first, meter = self._described[0], self._meter
        return first | {
            "meter": meter.name,
            "power_note": meter.note,
            "meter_note": meter.remark,
            "warmup": [each["warmup"] for each in self._described],
            "replicas": len(self._replicas),
            "sharing": self._sharing,
        }

    def _answers(self, stopping: Callable[[], bool]) -> list[Any]:
        """The answers of all replicas, once the last is done."""
        left = {replica.connection: number for number, replica in enumerate(self._replicas)}
        answers: dict[int, Any] = {}
        while left:
            if stopping():
                raise KeyboardInterrupt
            for heard in wait(list(left), _LISTEN_S):
                number = left.pop(heard)  # type: ignore[arg-type]
                answers[number] = self._replicas[number].answer()
        return [answers[number] for number in sorted(answers)]


class Heard:
    """Whether the process that orders a replica speaks to it, or has ended, while the replica serves.

    It looks ten times a second, as looking takes as long as a hundredth of a short iteration.

    Args:
        orders: the connection that would be heard.
    """

    def __init__(self, orders: Connection) -> None:
        self._orders, self._next_s = orders, 0.0

    def __call__(self) -> bool:
        if (now := time.perf_counter()) < self._next_s:
            return False
        self._next_s = now + _LISTEN_S
        return self._orders.poll()


def _gaps_known(replica: Replica, share: Served) -> Served:
    """A replica's share with launch gaps in its host time; the other replicas do nothing meanwhile."""
    replica.tell(partial(_with_gaps, share=share))
    return replica.answer()


def merged(shares: Sequence[Served]) -> Served:
    """What replicas served, as one: requests in order of arrival, iterations replica after replica.

    Args:
        shares: of each replica, in their order.
    """
    numbered = [_numbered(share, number) for number, share in enumerate(shares)]
    requests, iterations = (_joined([each[i] for each in numbered]) for i in range(2))
    order = np.argsort(requests["request_id"])
    outputs = [output for share in shares for output in share.outputs]
    return Served(
        {name: column[order] for name, column in requests.items()},
        iterations,
        np.concatenate([share.gaps_s for share in shares]),
        [outputs[i] for i in order],
    )


def _numbered(share: Served, number: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Requests and iterations of a share, with the number of their replica."""
    tables = share.requests, share.iterations
    requests, iterations = (each | {"replica": np.full_like(each["replica"], number)} for each in tables)
    return requests, iterations


def _joined(tables: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def _describe(engine: LiveEngine, orders: Connection) -> dict[str, Any]:
    del orders
    return engine.describe()


def _warm(engine: LiveEngine, orders: Connection, limits: Limits, longest: int) -> dict[str, Any] | None:
    """Warms up and describes the engine; None if it was told to stop."""
    try:
        engine.warm(limits, longest, Heard(orders))
    except KeyboardInterrupt:
        return None
    return _describe(engine, orders)


def _with_gaps(engine: LiveEngine, orders: Connection, share: Served) -> Served:
    del orders
    return engine.with_gaps(share)


def _serve(
    engine: LiveEngine, orders: Connection, columns: Columns, limits: Limits, policies: Policies, number: int
) -> tuple[Served, float] | None:
    """One replica's part: gets ready, says so, hears when the first moment is, and serves from then on.

    Returns:
        What it served, and the processor time of its process meanwhile, seconds; None if it was told to stop.
    """
    assert columns["replica"] is not None
    begin = engine.ready(columns, limits, policies, columns["replica"] == number)
    orders.send("ready")
    loop, spent_s = begin(WallClock(orders.recv())), time.process_time()
    try:
        served = loop.serve(Heard(orders))
    except KeyboardInterrupt:
        return None
    return served, time.process_time() - spent_s

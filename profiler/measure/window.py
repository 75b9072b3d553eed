"""One of several replicas on a device: when it is told to, it runs a shape over and over between two moments."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch

from profiler.engine.engine import Engine, open_device, pin_threads
from profiler.grid import Shape
from profiler.measure.meters import Meter
from profiler.serving.stage import Stage
from simslm.catalog.architecture import Architecture
from simslm.errors import DeviceError

WINDOW_S = 0.5
"""Shortest time in which all replicas run."""

ROWS = 50
"""Most iterations of one replica and window that are kept, evenly spaced."""

CEASE = "cease"
"""The last order."""

LIMIT_S = 120.0
"""Within which a replica must have started, or answered."""

_MARGIN_S = 0.1
_LEAST_CALLS = 3


@dataclass(frozen=True)
class Worker:
    """How a replica is made; sent to its process.

    Attributes:
        architecture, dtype, device: of its engine.
        num_blocks: KV blocks it needs.
        number: its own, from 0.
        threads: CPU threads of torch; None leaves them.
        stream: whether its kernels go to a stream of its own.
    """

    architecture: Architecture
    dtype: str
    device: str
    num_blocks: int
    number: int
    threads: int | None
    stream: bool


def serve(orders: Connection, settings: Worker) -> None:
    """The life of a replica: makes its engine, then runs shapes as it is told, until :data:`CEASE`.

    An order is a shape and a seed. The replica sets it up, says how long an iteration takes, hears from when until when
    (``time.perf_counter``, the same clock for all processes of a machine) to run it, and says what it did: start,
    latency and host time of each iteration, ``(n, 3)``. What goes wrong is said in place of an answer.
    """
    try:
        if settings.threads is not None:
            pin_threads(settings.threads)
        device = open_device(settings.device)
        engine = Engine(
            settings.architecture,
            dtype=settings.dtype,
            device=settings.device,
            num_blocks=settings.num_blocks,
            seed=settings.number,
        )
        own = settings.stream and device.type == "cuda"
        with torch.cuda.stream(torch.cuda.Stream(device)) if own else nullcontext():
            if device.type == "cuda":
                torch.cuda.synchronize(device)  # weights and cache are made on another stream
            orders.send("ready")
            while (order := orders.recv()) != CEASE:
                orders.send(_obey(engine, orders, *order))
    except Exception as error:
        send(orders, error)


def _obey(engine: Engine, orders: Connection, shape: Shape, seed: int) -> np.ndarray:
    stage = Stage(engine, shape, np.random.default_rng(seed))
    stage.time()
    orders.send(stage.time().latency_s)
    start_s, end_s = orders.recv()
    time.sleep(max(0.0, start_s - time.perf_counter()))
    rows = []
    while (now := time.perf_counter()) < end_s:
        timing = stage.time()
        rows.append((now, timing.latency_s, timing.host_s))
    return np.array(rows)


@dataclass(frozen=True)
class Window:
    """What replicas did while all of them ran.

    Attributes:
        calls: of each replica: start, latency and host time of its iterations that lie inside, seconds, ``(n, 3)``.
        energy_j: of the device, for each iteration of any of them; None without a counter.
        power_w: of the device; None without a counter.
        clock_mhz: the SM clock in its middle; None where there is none to read.
        throttle: what held it down then; None where it cannot be read.
    """

    calls: list[np.ndarray]
    energy_j: float | None
    power_w: float | None
    clock_mhz: float | None
    throttle: str | None


def run_window(connections: list[Connection], shape: Shape, meter: Meter) -> Window:
    """Has all replicas run a shape at once.

    Raises:
        DeviceError: one of them failed, or does not answer.
    """
    for number, connection in enumerate(connections):
        connection.send((shape, number))
    alone_s = max(answer(connection, LIMIT_S) for connection in connections)
    length_s = max(WINDOW_S, meter.window_s, 2 * _LEAST_CALLS * len(connections) * alone_s)
    begin = time.perf_counter() + _MARGIN_S
    for connection in connections:
        connection.send((begin, begin + length_s + 2 * _MARGIN_S))
    time.sleep(max(0.0, begin + _MARGIN_S - time.perf_counter()))
    opened, before = time.perf_counter(), meter.energy_j()
    time.sleep(length_s / 2)
    state = meter.clock_mhz(), meter.throttle()
    time.sleep(max(0.0, opened + length_s - time.perf_counter()))
    after, closed = meter.energy_j(), time.perf_counter()
    done = [answer(connection, length_s + LIMIT_S) for connection in connections]
    inside = [_within(table, opened, closed) for table in done]
    if before is None or after is None:
        return Window(inside, None, None, *state)
    iterations = sum(_overlap(table, opened, closed) for table in done)
    return Window(inside, (after - before) / iterations, (after - before) / (closed - opened), *state)


def _within(table: np.ndarray, start_s: float, end_s: float) -> np.ndarray:
    """The iterations that began and ended inside, those of a long list thinned evenly."""
    inside = table[(table[:, 0] >= start_s) & (table[:, 0] + table[:, 1] <= end_s)]
    if len(inside) <= ROWS:
        return inside
    return inside[np.linspace(0, len(inside) - 1, ROWS).astype(int)]


def _overlap(table: np.ndarray, start_s: float, end_s: float) -> float:
    """Iterations in a window, those at its ends by their part inside it."""
    inside = np.minimum(table[:, 0] + table[:, 1], end_s) - np.maximum(table[:, 0], start_s)
    return float(np.sum(np.clip(inside, 0.0, None) / table[:, 1]))


def answer(connection: Connection, limit_s: float) -> Any:
    """What a replica says next.

    Raises:
        DeviceError: it says nothing in time, or that it failed.
    """
    try:
        if connection.poll(limit_s):
            said = connection.recv()
            if isinstance(said, Exception):
                raise DeviceError(
                    f"a replica failed: {said}", remedy="measure fewer replicas, or free memory"
                )
            return said
    except EOFError:
        raise DeviceError(
            "a replica ended before its time", remedy="measure fewer replicas, or free memory"
        ) from None
    raise DeviceError(f"a replica has not answered for {limit_s:.0f} s", remedy="measure fewer replicas")


def send(connection: Connection, what: object) -> None:
    """Says something to somebody who may have gone."""
    try:
        connection.send(what)
    except (BrokenPipeError, OSError):
        return

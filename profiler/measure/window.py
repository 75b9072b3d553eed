"""Replicas that run a shape over and over between two moments: the iterations of each, and the device's energy."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection

import numpy as np

from profiler.engines.own import OwnEngine
from profiler.grid import Shape
from profiler.measure.energy import moves
from profiler.measure.meters import Meter
from profiler.replicas import LIMIT_S, Replica
from profiler.serving.stage import Stage
from simslm.errors import DeviceError

WINDOW_S = 0.5
"""Shortest time in which all replicas run."""

ROWS = 50
"""Most iterations of one replica and window that are kept, evenly spaced."""

_ALONE = "alone"
"""Tells a replica that the others do nothing until it answers."""

_MARGIN_S = 0.1
_LEAST_CALLS = 3


def run_shape(engine: OwnEngine, orders: Connection, shape: Shape, seed: int) -> np.ndarray:
    """What one replica does with a shape, in four steps, each at the word of the process that orders it.

    It sets the shape up and says how long an iteration takes; alone on the device it measures the launch gaps, and says
    that it has; it hears from when until when to run, and runs. Moments are those of ``time.perf_counter``, the same
    clock for all processes of a machine.

    Returns:
        Start, latency and host time of each iteration, ``(n, 3)``.
    """
    stage = Stage(engine, shape, np.random.default_rng(seed))
    stage.time()
    orders.send(stage.time().latency_s)
    orders.recv()
    gaps_s = stage.launch_gaps_s(engine.kernels) if engine.kernels is not None else 0.0
    orders.send(gaps_s)
    start_s, end_s = orders.recv()
    time.sleep(max(0.0, start_s - time.perf_counter()))
    rows = []
    while (now := time.perf_counter()) < end_s:
        timing = stage.time().with_gaps(gaps_s)
        rows.append((now, timing.latency_s, timing.host_s))
    return np.array(rows).reshape(-1, 3)


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


def run_window(replicas: Sequence[Replica], shape: Shape, meter: Meter) -> Window:
    """Has all replicas run a shape at once, for longer where one of them has not ended a single iteration.

    Raises:
        DeviceError: one of them failed, does not answer, or is too slow.
    """
    for stretch in (1, 4, 16):
        found = _window(replicas, shape, meter, stretch)
        if all(len(calls) for calls in found.calls):
            return found
    raise DeviceError(
        f"a replica ends no iteration of {shape.label()} while the others run", remedy="use fewer replicas"
    )


def _window(replicas: Sequence[Replica], shape: Shape, meter: Meter, stretch: int) -> Window:
    """One window, ``stretch`` times as long as needed."""
    for number, replica in enumerate(replicas):
        replica.tell(partial(run_shape, shape=shape, seed=number))
    longest_s = max([replica.answer() for replica in replicas])
    for replica in replicas:  # one after the other: each is alone on the device
        replica.tell(_ALONE)
        replica.answer()
    least_s = max(WINDOW_S, meter.window_s + 2 * meter.step_s)
    length_s = stretch * max(least_s, 2 * _LEAST_CALLS * len(replicas) * longest_s)
    begin = time.perf_counter() + _MARGIN_S
    lead_s = max(_MARGIN_S, meter.lead_s)
    for replica in replicas:
        replica.tell((begin, begin + lead_s + length_s + _MARGIN_S))
    time.sleep(max(0.0, begin + lead_s - time.perf_counter()))
    with moves(meter) as seen:
        opened = time.perf_counter()
        time.sleep(length_s / 2)
        state = meter.clock_mhz(), meter.throttle()
        time.sleep(max(0.0, opened + length_s - time.perf_counter()))
        seen.look()
        closed = time.perf_counter()
    done = [replica.answer(length_s + LIMIT_S) for replica in replicas]
    inside = [_within(table, opened, closed) for table in done]
    energy = None if meter.note else seen.energy()
    if energy is None:
        return Window(inside, None, None, *state)
    iterations = sum(_overlap(table, energy.start_s, energy.end_s) for table in done)
    return Window(inside, energy.joules / iterations if iterations else None, energy.power_w, *state)


def _within(table: np.ndarray, start_s: float, end_s: float) -> np.ndarray:
    """The iterations that began and ended inside; of many, evenly spaced ones."""
    inside = table[(table[:, 0] >= start_s) & (table[:, 0] + table[:, 1] <= end_s)]
    if len(inside) <= ROWS:
        return inside
    return inside[np.linspace(0, len(inside) - 1, ROWS).astype(int)]


def _overlap(table: np.ndarray, start_s: float, end_s: float) -> float:
    """Iterations in a window, those at its ends by their part inside it."""
    inside = np.minimum(table[:, 0] + table[:, 1], end_s) - np.maximum(table[:, 0], start_s)
    return float(np.sum(np.clip(inside, 0.0, None) / table[:, 1]))

"""Power of a device in a state that lasts: by its energy counter, and by its power sensor beside it.

The two do not know of each other. Where they disagree, the window was too short for one of them, or a unit is wrong;
``simslm traces check`` looks at that.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import numpy as np

from profiler.measure.energy import LOOK_S, moves
from profiler.measure.meters import Meter

_SAMPLE_S = 0.02


def measure_power(
    meter: Meter, call: Callable[[], object], settle_s: float, window_s: float
) -> dict[str, Any] | None:
    """A row of ``power.parquet``, but for its state; None where the counter could not be read.

    Args:
        meter: has an energy counter.
        call: keeps the device in the state; called again and again.
        settle_s: how long before the window begins; a sensor that averages needs its own span.
        window_s: over which power is averaged.
    """
    _repeat(call, max(settle_s, meter.lead_s))
    with sampled(meter) as samples, moves(meter) as seen:

        def watched() -> None:
            call()
            seen.look()

        _repeat(watched, max(window_s, LOOK_S))
        found, start = seen.energy(), time.perf_counter()
        while found is None and not seen.enough(time.perf_counter() - start):
            watched()
            found = seen.energy()
    if found is None:
        return None
    return {
        "power_w": found.power_w,
        "sampled_power_w": mean_power(samples),
        "sm_clock_mhz": meter.clock_mhz(),
        "relative_speed": 1.0,
    }


@contextmanager
def sampled(meter: Meter):
    """Reads the power sensor every 20 ms meanwhile; yields a growing list of ``(seconds, watts)``."""
    samples: list[tuple[float, float]] = []
    ended = threading.Event()

    def read() -> None:
        while True:
            if (watts := meter.power_w()) is not None:
                samples.append((time.perf_counter(), watts))
            if ended.wait(_SAMPLE_S):
                return

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield samples
    finally:
        ended.set()
        reader.join()


def mean_power(samples: list[tuple[float, float]]) -> float | None:
    """The integral of the samples by trapezoids over their time; None without any."""
    if not samples:
        return None
    times, watts = np.array(samples).T
    if times[-1] == times[0]:
        return float(watts[0])
    return float(np.trapezoid(watts, times) / (times[-1] - times[0]))


def _repeat(call: Callable[[], object], span_s: float) -> None:
    start = time.perf_counter()
    call()
    while time.perf_counter() - start < span_s:
        call()

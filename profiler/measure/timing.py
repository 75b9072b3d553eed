"""Timing one iteration: whole wall time, and its host time: the part in which no kernel runs or waits for the device.

On CUDA the clock of the host alone does not tell: between the first launch and the last token kernels run, but there
are launch gaps too, in which the device has nothing to do until the next kernel is launched. How long a shape's kernels
take without gaps is measured by :class:`profiler.measure.kernel_clock.KernelClock` while nothing else is on the device.
One replica alone has the rest of its wall time as host time. Beside other replicas kernels take longer and wait for
each other, so the gaps of one alone count there: replicas compete for device time only, as the simulator has it
(:mod:`simslm.cost.interference`).

On a CPU host and device are one processor: host time is the Python that lays the batch out before the forward pass and
reads the tokens after it, and there are no gaps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

import torch

from profiler.engine.batch import Chunk
from profiler.engine.engine import Engine
from profiler.measure.kernel_clock import REPEATS, KernelClock

_FEWER = ((1, 0.1), (3, 0.01))
"""How often kernels are timed in iterations that are longer than so many seconds."""

_WINDOW = 5
_STATIONARY = 0.02
_CALIBRATION_S = 3.0


class Timing(NamedTuple):
    """Seconds of one iteration.

    Attributes:
        latency_s: wall time from the batch to the sampled tokens on the host.
        host_s: the part of it in which no kernel of this engine runs or waits for the device. As it comes from
            :func:`time_iteration` on CUDA, it lacks the launch gaps.
    """

    @property
    def device_s(self) -> float:
        """The part that is not host time."""
        return self.latency_s - self.host_s

    latency_s: float
    host_s: float

    def with_kernels(self, kernel_s: float) -> Timing:
        """The same iteration; its kernels take ``kernel_s`` when none waits for its launch, the rest is host time."""
        return self._replace(host_s=max(0.0, self.latency_s - kernel_s))

    def with_gaps(self, gap_s: float) -> Timing:
        """The same iteration with ``gap_s`` of launch gaps counted as host time, as far as it is that long."""
        return self._replace(host_s=min(self.latency_s, self.host_s + gap_s))


class KernelTimes:
    """How long the kernels of an engine's iterations take, without the gaps in which the device waits for its host.

    Args:
        engine: on CUDA.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine, self._clock = engine, KernelClock(engine.device)

    def of(self, batch: Sequence[Chunk], latency_s: float) -> float:
        """Seconds of the kernels of an iteration that was run before and took ``latency_s``."""
        rows = self._engine.prepare(batch)
        repeats = next((few for few, long_s in _FEWER if latency_s > long_s), REPEATS)
        return self._clock.seconds(lambda: self._engine.run(rows), repeats)


def time_iteration(engine: Engine, batch: Sequence[Chunk]) -> tuple[list[int], Timing]:
    """Run one iteration and time it; its tokens, in the order of the batch, come with it."""
    on_cuda = engine.device.type == "cuda"
    if on_cuda:
        torch.cuda.current_stream(engine.device).synchronize()
    start = time.perf_counter()
    rows = engine.prepare(batch)
    prepared = time.perf_counter()
    tokens = engine.run(rows)
    ran = time.perf_counter()
    found = engine.consume(tokens)
    end = time.perf_counter()
    # On CUDA the tokens are read when the last kernel is over; on a CPU it is over when they are read.
    reading_s = 0.0 if on_cuda else end - ran
    return found, Timing(end - start, prepared - start + reading_s)


def time_call(call: Callable[[], object], device: torch.device) -> float:
    """Wall seconds of ``call``, the device idle before and after."""
    _settle(device)
    start = time.perf_counter()
    call()
    _settle(device)
    return time.perf_counter() - start


def warm_up(call: Callable[[], float], limit_s: float = _CALIBRATION_S) -> int:
    """Repeat ``call`` until its duration is stationary, or for ``limit_s``; how many calls that took.

    Stationary: the median of the last five calls is within 2 % of that of the five before.
    """
    times: list[float] = []
    start = time.perf_counter()
    while not _stationary(times) and time.perf_counter() - start < limit_s:
        times.append(call())
    return len(times)


def _stationary(times: Sequence[float]) -> bool:
    if len(times) < 2 * _WINDOW:
        return False
    before, after = median(times[-2 * _WINDOW : -_WINDOW]), median(times[-_WINDOW:])
    return abs(after - before) <= _STATIONARY * before


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

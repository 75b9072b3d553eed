"""How long kernels take on a GPU when none of them waits to be launched.

Work that is launched while the device is idle has the launches in its time: some 10 µs before a recording, and several
µs before every kernel of an iteration that is run eagerly. So the device is given something else to do first, for
longer than the host needs to launch all of the work, and the events between which the work lies are both behind it.

Invariant: what is timed was run before, so that nothing of it is compiled, recorded or uploaded now.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch

from profiler.measure.caches import CacheEviction

REPEATS = 5
"""Replays of which the median counts."""

_AHEAD = 1.5
_LEAST_AHEAD_S = 50e-6
_MOST_FILLERS = 2000
_PROBED = 20
_LEAST_LEAD = 0.1


class KernelClock:
    """Times work on one GPU.

    Args:
        device: the work runs on.
        filler: keeps the device busy for a while; what the work reads is not in the caches after it.
    """

    def __init__(self, device: torch.device, filler: CacheEviction | None = None) -> None:
        self._stream = torch.cuda.current_stream(device)
        self._filler = filler or CacheEviction(device)
        self._filler()
        self._ahead_s = self._lead()

    def seconds(self, launch: Callable[[], object], repeats: int = REPEATS) -> float:
        """Seconds of the kernels that ``launch`` launches, in the median of several replays."""
        fillers = self._fillers(launch)
        found = []
        for _ in range(repeats):
            for _ in range(fillers):
                self._filler()
            found.append(self._between(launch))
        return median(found)

    def _lead(self) -> float:
        """How much longer a filler takes than its launch: each one gives the host so much of a lead."""

        def several() -> None:
            for _ in range(_PROBED):
                self._filler()

        self._stream.synchronize()
        start = time.perf_counter()
        several()
        launching_s = time.perf_counter() - start
        self._stream.synchronize()
        running_s = self._between(several)
        return max(running_s - launching_s, _LEAST_LEAD * running_s) / _PROBED

    def _fillers(self, launch: Callable[[], object]) -> int:
        """How many fillers keep the device busy until all is launched, judging by one more launch."""
        self._stream.synchronize()
        start = time.perf_counter()
        launch()
        launching_s = time.perf_counter() - start
        self._stream.synchronize()
        wanted = max(_AHEAD * launching_s, _LEAST_AHEAD_S) / self._ahead_s
        return min(_MOST_FILLERS, 1 + int(wanted))

    def _between(self, launch: Callable[[], object]) -> float:
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record(self._stream)
        launch()
        last.record(self._stream)
        last.synchronize()
        return first.elapsed_time(last) / 1e3

"""Energy between two moves of a counter: of a window, what lies between the first and the last move inside it.

Counters of GPUs move in steps, of up to a tenth of a second. A window that begins or ends between two moves has energy
of what was before it, and lacks some of its own: for half a second, up to a fifth. So the moves are noted with their
times while the window goes on, and everything is counted between two of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from profiler.measure.meters import Meter

LOOK_S = 0.002
"""How often a counter is looked at: so late a move may be seen."""

_WATCH_S = LOOK_S
_PATIENCE = 4
"""Steps of the counter within which a window must have its moves."""


class Energy(NamedTuple):
    """Energy of a device between two moments.

    Attributes:
        start_s, end_s: the moments, by ``time.perf_counter``.
        joules: between them.
    """

    start_s: float
    end_s: float
    joules: float

    @property
    def power_w(self) -> float:
        """Mean power between the two moments."""
        return self.joules / (self.end_s - self.start_s)

    def each_j(self, ends_s: Sequence[float]) -> float | None:
        """Energy of one call of those that follow each other, the first and last by their part between the moments.

        Args:
            ends_s: when the first call began, then when each ended, increasing.

        Returns:
            Joules, of the call and the little that lies between it and the next; None where none lies between the
            moments.
        """
        first, last = np.interp([self.start_s, self.end_s], ends_s, np.arange(len(ends_s)))
        return self.joules / float(last - first) if last > first else None


class Moves:
    """The moves of an energy counter, as they are seen.

    Args:
        meter: whose counter.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter, self._lock = meter, threading.Lock()
        self._seen: list[tuple[float, float]] = []
        self._next_s, self._last = 0.0, meter.energy_j()
        if self._last is not None and not meter.step_s:  # one that moves all the time has just moved
            self._seen.append((time.perf_counter(), self._last))

    def look(self) -> None:
        """Notes a move, if there was one; to be called often, as it looks no more than every two milliseconds."""
        with self._lock:
            now = time.perf_counter()
            if now < self._next_s:
                return
            self._next_s = now + LOOK_S
            joules = self._meter.energy_j()
            if joules is None:
                return
            if self._last is not None and joules < self._last:
                self._seen.clear()  # a driver that was loaded anew counts from 0
            elif self._last is not None and joules > self._last:
                self._seen.append((now, joules))
            self._last = joules

    def energy(self) -> Energy | None:
        """Energy between the first and the last move so far; None before there are two."""
        with self._lock:
            seen = (self._seen[0], self._seen[-1]) if len(self._seen) > 1 else None
        return None if seen is None else Energy(seen[0][0], seen[1][0], seen[1][1] - seen[0][1])

    def step_s(self) -> float | None:
        """Time between two moves, in the median; None before there are two."""
        with self._lock:
            times = [when for when, _ in self._seen]
        return float(np.median(np.diff(times))) if len(times) > 1 else None

    def enough(self, spent_s: float) -> bool:
        """Whether a window that has lasted so long has seen enough moves, or waits for moves that do not come."""
        meter, found = self._meter, self.energy()
        if found is not None and found.end_s - found.start_s >= meter.window_s:
            return True
        return spent_s >= meter.window_s + max(_PATIENCE * meter.step_s, LOOK_S)


@contextmanager
def moves(meter: Meter) -> Iterator[Moves]:
    """The counter's moves meanwhile; where it stands still in between, a thread looks too, as calls may be long."""
    found, ended = Moves(meter), threading.Event()

    def watch() -> None:
        while not ended.wait(_WATCH_S):
            found.look()

    watcher = threading.Thread(target=watch, daemon=True) if meter.step_s else None
    if watcher is not None:
        watcher.start()
    try:
        yield found
    finally:
        ended.set()
        if watcher is not None:
            watcher.join()

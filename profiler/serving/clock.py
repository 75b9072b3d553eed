"""The time that requests arrive and are served in."""

from __future__ import annotations

import time
from typing import Protocol

_AWAKE_S = 2e-3


class Clock(Protocol):
    """Seconds since the first moment of a run."""

    def now(self) -> float: ...
    def wait_until(self, moment_s: float) -> None:
        """Returns at that moment or, when it is past, at once."""
        ...


class WallClock:
    """Real time.

    Args:
        origin_s: when it begins, by ``time.perf_counter``; by default now. Before that it is less than 0.
    """

    def __init__(self, origin_s: float | None = None) -> None:
        self._origin_s = time.perf_counter() if origin_s is None else origin_s

    def now(self) -> float:
        return time.perf_counter() - self._origin_s

    def wait_until(self, moment_s: float) -> None:
        """Sleeps, but is awake for the last two milliseconds: sleep may last longer than it was asked to."""
        while (left_s := moment_s - self.now()) > 0:
            if left_s > _AWAKE_S:
                time.sleep(left_s - _AWAKE_S)

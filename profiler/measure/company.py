"""How busy others keep this machine's processors: other programs, and other guests of the same hardware.

On a CPU they take their time from what is measured; on a GPU, from its host time.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_STAT = Path("/proc/stat")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_BUSY = (0, 1, 2, 5, 6, 7)
"""Of the first line of ``/proc/stat`` (proc_stat(5)): user, nice, system, irq, softirq, steal."""


class Company:
    """The share of the processors that others take, from when this is made."""

    def __init__(self) -> None:
        self._start_s, self._before = time.perf_counter(), _seconds()

    def share(self, children_s: float = 0.0) -> float | None:
        """The part of all cores' time that others had since then; None where the kernel does not tell.

        Args:
            children_s: of the processors, that processes had since then which this one has started and which have not
                ended; those that have are counted without being told.
        """
        after, before = _seconds(), self._before
        if after is None or before is None:
            return None
        cores_s = (os.cpu_count() or 1) * (time.perf_counter() - self._start_s)
        others_s = (after[0] - before[0]) - (after[1] - before[1]) - children_s
        return min(1.0, max(0.0, others_s / cores_s))


def _seconds() -> tuple[float, float] | None:
    """Seconds that all processors, and that this process and its children, were busy."""
    try:
        fields = _STAT.read_text().split("\n", 1)[0].split()[1:]
        busy = sum(int(fields[i]) for i in _BUSY) / _TICKS_PER_S
    except (OSError, ValueError, IndexError):
        return None
    return busy, sum(os.times()[:4])

"""Ctrl-C while a simulation runs: the first asks it to stop, the second stops everything at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

STDERR = 2
"""Written to directly: the signal may have come while ``sys.stderr`` was being written."""

STOPPING = b"\nstopping; what has happened so far will be kept (Ctrl-C again abandons it)\n"
WRITING = b"\nthe simulation is over; writing its files (Ctrl-C again abandons them)\n"


@dataclass
class Interruption:
    """Whether Ctrl-C was pressed, and what is answered then."""

    asked: bool = False
    answer: bytes = STOPPING

    def obey(self) -> None:
        """Called where the work may stop.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed since.
        """
        if self.asked:
            raise KeyboardInterrupt

    def _hear(self, number: int, frame: Any) -> None:
        del number, frame
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        os.write(STDERR, self.answer)


@contextmanager
def held_back() -> Iterator[Interruption]:
    """Holds the first Ctrl-C back until :meth:`Interruption.obey`, where signals can be handled at all."""
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before = signal.signal(signal.SIGINT, interruption._hear)
    try:
        yield interruption
    finally:
        signal.signal(signal.SIGINT, before)

"""Ctrl-C while a simulation runs: the first asks it to stop, the second abandons it, and none cuts a file in half."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from simslm.cli.failure import InterruptError

STDERR = 2
"""Written to directly: the signal may have come while ``sys.stderr`` was being written."""

STOPPING = b"\nstopping; what has happened so far will be kept (Ctrl-C again abandons it)\n"
WRITING = b"\nthe simulation is over; its files are being written\n"


@dataclass
class Interruption:
    """Whether Ctrl-C was pressed.

    Attributes:
        asked: it was, while there was something to stop.
        writing: there is no more; it is answered, and otherwise ignored.
    """

    asked: bool = False
    writing: bool = False
    _stop: Callable[[], None] | None = None

    def stopping(self, stop: Callable[[], None]) -> None:
        """From here on Ctrl-C calls ``stop``, which ends the work as if it were over; at once if it was pressed."""
        self._stop = stop
        if self.asked:
            stop()

    def obey(self) -> None:
        """Called between two pieces of work.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed since.
        """
        if self.asked:
            raise KeyboardInterrupt

    def _hear(self, number: int, frame: Any) -> None:
        """The signal's handler: the first asks, the second abandons."""
        del number, frame
        if self.writing:
            # ``print`` is not safe in a signal handler: the signal may have come in the middle of another.
            os.write(STDERR, WRITING)
        elif self.asked:
            raise InterruptError("interrupted; nothing is kept")
        else:
            self.asked = True
            os.write(STDERR, STOPPING)
            if self._stop is not None:
                self._stop()


@contextmanager
def held_back() -> Iterator[Interruption]:
    """Holds the first Ctrl-C back for :meth:`Interruption.stopping`, where signals can be handled at all."""
    interruption = Interruption()
    # Python allows signal handlers in the main thread alone; elsewhere Ctrl-C stays as it is.
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before = signal.signal(signal.SIGINT, interruption._hear)
    try:
        yield interruption
    finally:
        signal.signal(signal.SIGINT, before)

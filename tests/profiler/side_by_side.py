"""Checks that several processes run side by side: each is reported as it is over, and none takes the others with it.

A worker takes checks from its standard input, one a line, and answers each with a line. What goes wrong in a check is
its answer; a worker that is gone is answered for, with its last words, and the next check gets another one.
"""

from __future__ import annotations

import contextlib
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import IO, Any

Check = tuple[str, str]
"""What is checked, and in which way."""

Run = Callable[[str, str], tuple[str, bool]]
"""Runs one check: what it found, in words, and whether that is as it should be."""

_DEAD = "DEAD"
"""The state of a check that failed so that its worker is of no more use."""

_LAST_WORDS_S = 5.0


def answer(run: Run, settle: Callable[[], object] = lambda: None) -> None:
    """The life of a worker.

    Args:
        run: see :data:`Run`.
        settle: called after every check; raises what the device has to say late. Where it still does after a check that
            failed, the process cannot use the device any more: its answer says so, and the worker ends.
    """
    for line in sys.stdin:
        start = time.perf_counter()
        try:
            words, good = run(*line.rstrip("\n").split("\t"))
            settle()
        except Exception as failure:
            lines = str(failure).strip().splitlines() or [""]
            words, good = f"{type(failure).__name__}: {lines[-1]}", False
        state = "ok" if good else _DEAD if _raises(settle) else "FAILED"
        said = f"{state}\t{time.perf_counter() - start:.1f}\t{words}"
        sys.stdout.write(said.replace("\n", " ") + "\n")
        sys.stdout.flush()
        if state == _DEAD:
            break


def _raises(call: Callable[[], object]) -> bool:
    try:
        call()
    except Exception:
        return True
    return False


def run_all(checks: Iterable[Check], worker: Sequence[str], processes: int, out: IO[str] = sys.stdout) -> int:
    """Has workers run all checks, and prints each as it is over; how many failed.

    Args:
        checks: in the order in which they begin.
        worker: the command that starts one.
        processes: most workers at once.
        out: where it prints.
    """
    start, waiting, report = time.perf_counter(), queue.Queue[Check](), _Report(out)
    for each in checks:
        waiting.put(each)
    wanted = waiting.qsize()
    drivers = [
        threading.Thread(target=_drive, args=(waiting, report, worker)) for _ in range(min(wanted, processes))
    ]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    took_s = time.perf_counter() - start
    out.write(f"{wanted - report.failed} of {wanted} checks passed in {took_s:.0f} s\n")
    return report.failed


class _Report:
    """Prints each check as it is over."""

    def __init__(self, out: IO[str]) -> None:
        self.failed, self._out, self._lock = 0, out, threading.Lock()

    def add(self, check: Check, state: str, seconds: str, words: str) -> None:
        name, way = check
        with self._lock:
            self.failed += state != "ok"
            self._out.write(f"{name:22} {way:11} {state:6} {float(seconds):6.1f} s  {words}\n")
            self._out.flush()


class _Worker:
    """One process, and the last line that it wrote to its standard error."""

    def __init__(self, command: Sequence[str]) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        self._last: deque[str] = deque([""], maxlen=1)
        self._listening = threading.Thread(target=self._listen, daemon=True)
        self._listening.start()

    def _listen(self) -> None:
        assert self._process.stderr is not None
        self._last.extend(line.strip() for line in self._process.stderr if line.strip())

    @property
    def gone(self) -> bool:
        return self._process.poll() is not None

    def ask(self, check: Check) -> Sequence[str]:
        """State, seconds and words."""
        process: Any = self._process
        start = time.perf_counter()
        try:
            process.stdin.write("\t".join(check) + "\n")
            process.stdin.flush()
            said = process.stdout.readline()
        except OSError:
            said = ""
        if said:
            state, seconds, words = said.rstrip("\n").split("\t", 2)
            if state == _DEAD:
                process.wait()
            return "ok" if state == "ok" else "FAILED", seconds, words
        process.wait()
        self._listening.join(_LAST_WORDS_S)
        words = f"its process ended with {process.returncode}: {self._last[0]}"
        return "FAILED", f"{time.perf_counter() - start:.1f}", words

    def end(self) -> None:
        process: Any = self._process
        with contextlib.suppress(OSError):
            process.stdin.close()
        process.wait()
        self._listening.join(_LAST_WORDS_S)
        process.stdout.close()
        process.stderr.close()


def _drive(waiting: queue.Queue[Check], report: _Report, command: Sequence[str]) -> None:
    """Gives checks to a worker of its own, and to another one where it is gone."""
    worker: _Worker | None = None
    while True:
        try:
            check = waiting.get_nowait()
        except queue.Empty:
            break
        if worker is not None and worker.gone:
            worker.end()
            worker = None
        worker = worker or _Worker(command)
        report.add(check, *worker.ask(check))
    if worker is not None:
        worker.end()

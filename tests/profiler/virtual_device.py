"""Replicas and the device that they share in virtual time: launches and kernels take times that are known.

Every replica is a thread with a clock of its own. A thread whose time passes goes on when no other is earlier, so that
what they launch reaches the device in order, and a run is the same every time. Kernels of all replicas run one after
the other, as those of processes that take turns. Host work of replicas overlaps.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections import deque
from collections.abc import Sequence
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from profiler import replicas
from profiler.engine.graphs import Size
from profiler.measure import kernel_clock
from profiler.measure.timing import KernelTimes
from profiler.serving import together
from profiler.serving.clock import WallClock

FILLER_S = 60e-6
_LATE_S = 1e-9


class VirtualTime:
    """The clocks of all threads that take part; the one that makes it is the first of them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._times: dict[threading.Thread, float] = {threading.current_thread(): 0.0}
        self._blocked: dict[threading.Thread, Sequence[End]] = {}

    def takes_part(self) -> bool:
        return threading.current_thread() in self._times

    def now(self) -> float:
        return self._times[threading.current_thread()]

    def advance(self, seconds: float) -> None:
        """The thread's own time passes; returns when no other thread is earlier."""
        me = threading.current_thread()
        with self._changed:
            self._times[me] += max(0.0, seconds)
            self._changed.notify_all()
            while any(each is not me and self._runs(each) < self._times[me] for each in list(self._times)):
                self._changed.wait(0.05)

    def _runs(self, thread: threading.Thread) -> float:
        """Its time; of one that has ended, or waits to be spoken to, infinity."""
        there = thread.is_alive() and thread not in self._blocked
        return self._times[thread] if there else float("inf")

    def pipe(self) -> tuple[End, End]:
        """Two ends of a connection, as of ``multiprocessing.Pipe``."""
        one, other = End(self), End(self)
        one.peer, other.peer = other, one
        return one, other

    def wait(self, ends: Sequence[End], limit_s: float) -> list[End]:
        """Those of several ends at which there is something to hear, once there is, as of ``multiprocessing``."""
        del limit_s
        me = threading.current_thread()
        with self._changed:
            self._times.setdefault(me, 0.0)
            while not any(end.inbox for end in ends):
                self._blocked[me] = ends
                self._changed.notify_all()
                self._changed.wait(0.05)
            self._blocked.pop(me, None)
        return [end for end in ends if end.inbox]

    def deliver(self, end: End, what: Any) -> None:
        """Says something to an end; a thread that waits there goes on from this moment."""
        me = threading.current_thread()
        with self._changed:
            sent_s = self._times.setdefault(me, 0.0)
            end.inbox.append((sent_s, what))
            for thread, ends in list(self._blocked.items()):
                if end in ends:
                    self._times[thread] = max(self._times[thread], sent_s)
                    del self._blocked[thread]
            self._changed.notify_all()

    def heard(self, end: End) -> Any:
        me = threading.current_thread()
        with self._changed:
            sent_s, what = end.inbox.popleft()
            self._times[me] = max(self._times[me], sent_s)
        return what


class End:
    """One end of a connection between two threads."""

    peer: End

    def __init__(self, clocks: VirtualTime) -> None:
        self._clocks = clocks
        self.inbox: deque[tuple[float, Any]] = deque()

    def send(self, what: Any) -> None:
        self._clocks.deliver(self.peer, what)

    def poll(self, limit_s: float = 0.0) -> bool:
        return bool(self.inbox) if not limit_s else bool(self._clocks.wait([self], limit_s))

    def recv(self) -> Any:
        self._clocks.wait([self], 0.0)
        return self._clocks.heard(self)


class Device:
    """Runs one kernel after the other, in the order in which they are launched."""

    def __init__(self, clocks: VirtualTime) -> None:
        self.clocks, self._free_s = clocks, 0.0
        self._own = threading.local()

    @property
    def stream(self) -> SimpleNamespace:
        """Of this thread: when the last of its kernels is over."""
        if not hasattr(self._own, "stream"):
            self._own.stream = SimpleNamespace(done_s=0.0, synchronize=self.settle)
        return self._own.stream

    def launch(self, launch_s: float, kernel_s: float) -> None:
        self.clocks.advance(launch_s)
        start_s = max(self.clocks.now(), self.stream.done_s, self._free_s)
        self.stream.done_s = self._free_s = start_s + kernel_s

    def settle(self) -> None:
        self.clocks.advance(self.stream.done_s - self.clocks.now())


def activate(monkeypatch: pytest.MonkeyPatch) -> Device:
    """Has this process find such a device, and live in virtual time; its replicas are threads."""
    device, real = Device(VirtualTime()), time.perf_counter
    clocks = device.clocks

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self, stream: Any) -> None:
            self.at_s = max(stream.done_s, clocks.now())

        def synchronize(self) -> None:
            device.settle()

        def elapsed_time(self, other: Event) -> float:
            return 1e3 * (other.at_s - self.at_s)

    def wait_until(clock: WallClock, moment_s: float) -> None:
        clocks.advance(max(0.0, moment_s - clock.now()) + _LATE_S)

    monkeypatch.setattr(time, "perf_counter", lambda: clocks.now() if clocks.takes_part() else real())
    monkeypatch.setattr(time, "sleep", clocks.advance)
    monkeypatch.setattr(
        WallClock, "wait_until", wait_until
    )  # it is awake at the end, and time would stand still
    monkeypatch.setattr(multiprocessing, "Pipe", clocks.pipe)
    monkeypatch.setattr(together, "wait", clocks.wait)
    monkeypatch.setattr(replicas, "IN_PROCESS", replicas.WAYS)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device_=None: device.stream)
    monkeypatch.setattr(kernel_clock, "CacheEviction", lambda _: lambda: device.launch(1e-6, FILLER_S))
    return device


class StandIn:
    """An engine whose iterations are so many launches of equal kernels, or one launch where they are recorded.

    Args:
        device: runs the kernels.
        architecture: has the vocabulary and the longest context.
        prepare_s: host time before the first launch.
        launch_s: host time of each launch.
        kernels: of an iteration.
        fixed_s, token_s: of all its kernels together, and of them for each new token.
        recorded: tokens up to which iterations are recorded.
    """

    def __init__(
        self,
        device: Device,
        architecture: Any,
        *,
        prepare_s: float = 200e-6,
        launch_s: float = 40e-6,
        kernels: int = 20,
        fixed_s: float,
        token_s: float = 0.0,
        recorded: int = 0,
        num_blocks: int = 4000,
    ) -> None:
        self._device, self.architecture = device, architecture
        self.cache = SimpleNamespace(block_size=16, num_blocks=num_blocks)
        self.device = torch.device("cuda", 0)
        self.prepare_s, self.launch_s, self._kernels = prepare_s, launch_s, kernels
        self._fixed_s, self._token_s = fixed_s, token_s
        self.graphs = SimpleNamespace(
            size_of=lambda seqs, rows: Size(recorded, recorded, 0) if rows <= recorded else None
        )

    @cached_property
    def kernels(self) -> KernelTimes:
        return KernelTimes(self)  # type: ignore[arg-type]

    def launches(self, tokens: int) -> int:
        return 1 if self.graphs.size_of(tokens, tokens) else self._kernels

    def kernels_s(self, tokens: int) -> float:
        """Of the kernels of an iteration of so many new tokens."""
        return self._fixed_s + self._token_s * tokens

    def host_s(self, tokens: int) -> float:
        """In which no kernel runs while such an iteration is alone: launches are longer than kernels, or shorter."""
        count, kernels_s = self.launches(tokens), self.kernels_s(tokens)
        gap_s = max(0.0, self.launch_s - kernels_s / count)
        return self.prepare_s + self.launch_s + (count - 1) * gap_s

    def prepare(self, batch: Sequence[Any]) -> Sequence[Any]:
        self._device.clocks.advance(self.prepare_s)
        return batch

    def run(self, batch: Sequence[Any]) -> Sequence[Any]:
        tokens = sum(len(chunk.tokens) for chunk in batch)
        count = self.launches(tokens)
        for _ in range(count):
            self._device.launch(self.launch_s, self.kernels_s(tokens) / count)
        return batch

    def consume(self, batch: Sequence[Any]) -> list[int]:
        self._device.settle()
        return [0] * len(batch)

    def iterate(self, batch: Sequence[Any]) -> list[int]:
        return self.consume(self.run(self.prepare(batch)))

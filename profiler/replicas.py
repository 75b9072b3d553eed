"""Replicas that share a device, each with an engine of its own: a process, or a thread with a stream of its own.

They are started alike for being measured and for serving, and do what they are ordered, one order after the other.
The process that started them ends them; a replica also ends when that process is gone.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from profiler.engine.engine import open_device, pin_threads
from profiler.measure.faults import reason, survivable
from profiler.measure.green import check_apart, green_context, multiprocessors
from profiler.measure.mps import mps_daemon
from simslm.errors import DeviceError, UsageError, nearest

WAYS = ("time-slice", "mps", "streams", "sm-partition", "green-contexts")
"""Ways of sharing: processes that take turns, processes under MPS, threads with a stream each, processes under MPS
that each may use an equal part of the multiprocessors (``CUDA_MPS_ACTIVE_THREAD_PERCENTAGE``), and threads with a green
context each, whose part is theirs alone."""

PARTITIONS = {"sm-partition": "mps-percentage", "green-contexts": "green-context"}
"""Ways that are ``sm-partition`` in a trace, and what its column ``partition`` says of each."""

IN_PROCESS = ("streams", "green-contexts")
"""Ways whose replicas are threads of this process: what ends its use of the device ends it for all of them."""

_UNDER_MPS = ("mps", "sm-partition")
_NOT_ON_CPU = (*_UNDER_MPS, "green-contexts")

LIMIT_S = 120.0
"""Within which a replica must have started, or answered."""

Order = Callable[[Any, Connection], Any]
"""What a replica is to do with its engine, and its connection to the process that ordered it; the result is its answer.

It is sent to a process, so it is a function of a module, or a ``functools.partial`` of one.
"""

_CEASE = "cease"
_GRACE_S = 10.0
_FEWER = "use fewer replicas, or free memory"


@dataclass(frozen=True)
class _Failed:
    """An answer that says why a replica failed."""

    why: str


class Replica:
    """A replica as seen from the process that orders it.

    Args:
        connection: to it.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def tell(self, what: Any) -> None:
        """Sends an order, or what the replica waits for.

        Raises:
            DeviceError: it is gone, with the reason that it gave, if any.
        """
        try:
            self.connection.send(what)
        except OSError:
            self.answer(0.0)
            raise _gone() from None

    def answer(self, limit_s: float = LIMIT_S) -> Any:
        """Receives what the replica says next.

        Raises:
            DeviceError: it says nothing in time, or that it failed.
        """
        try:
            if not self.connection.poll(limit_s):
                raise DeviceError(f"a replica has not answered for {limit_s:.0f} s", remedy=_FEWER)
            said = self.connection.recv()
        except (EOFError, OSError):
            raise _gone() from None
        if isinstance(said, _Failed):
            raise DeviceError(f"a replica failed: {said.why}", remedy=_FEWER)
        return said


def _gone() -> DeviceError:
    return DeviceError("a replica ended before its time", remedy=_FEWER)


@contextmanager
def running(
    way: str, makers: Sequence[Callable[[], Any]], device: str, threads: int | None
) -> Iterator[list[Replica]]:
    """Replicas that wait for orders; they end with the context.

    Args:
        way: of :data:`WAYS`.
        makers: what makes the engine of each, in its own process or thread; sent like an :data:`Order`.
        device: that they share.
        threads: CPU threads of each process; threads of one process have as many as it.

    Raises:
        DeviceError: MPS cannot be had, or a replica did not start.
    """
    count = len(makers)
    part = 100 / count if way == "sm-partition" else None
    with mps_daemon(part) if way in _UNDER_MPS else nullcontext() as mps:
        replicas: list[Replica] = []
        workers: list[BaseProcess | threading.Thread] = []
        try:
            for make in makers:
                replica, worker = _start(way, count, make, device, threads)
                replicas.append(replica)
                workers.append(worker)
            for replica in replicas:
                replica.answer()
            if mps is not None:
                mps.check_serving()
            if way == "green-contexts":
                check_apart(replicas)
            yield replicas
        finally:
            _end(replicas, workers)


def sm_fraction(way: str, count: int, device: str) -> float | None:
    """The part of the multiprocessors that each of so many replicas may use; None = all."""
    if way == "green-contexts":
        each, whole = multiprocessors(open_device(device), count)
        return each / whole
    return 1 / count if way == "sm-partition" else None


def check_ways(device: str, ways: Sequence[str]) -> None:
    """Refuses ways of sharing that there are not, or not on such a device.

    Raises:
        UsageError: naming one.
    """
    for way in ways:
        if way not in WAYS:
            raise UsageError(
                f"unknown way of sharing {way!r}{nearest(way, list(WAYS))}",
                remedy=f"known: {', '.join(WAYS)}",
            )
        if way in _NOT_ON_CPU and device.startswith("cpu"):
            raise UsageError(f"{way} needs an NVIDIA GPU", remedy="share a CPU by time-slice or streams")


def _start(
    way: str, count: int, make: Callable[[], Any], device: str, threads: int | None
) -> tuple[Replica, BaseProcess | threading.Thread]:
    ours, theirs = multiprocessing.Pipe()
    if way in IN_PROCESS:
        worker = threading.Thread(target=_live, args=(theirs, make, device, None, way, count), daemon=True)
        worker.start()
    else:
        process = multiprocessing.get_context("spawn").Process
        worker = process(target=_live, args=(theirs, make, device, threads, way, count), daemon=True)
        with _deaf():
            worker.start()
        theirs.close()  # else it would not be noticed that the process is gone
    return Replica(ours), worker


@contextmanager
def _deaf() -> Iterator[None]:
    """Processes started inside do not hear Ctrl-C, which a terminal sends to all: the one that started them ends them.

    The first of them would start multiprocessing's own tracker, which unblocks the signal when it is done.
    """
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(replicas: Sequence[Replica], workers: Sequence[BaseProcess | threading.Thread]) -> None:
    """Tells all to end, and kills the processes that have not after a while."""
    for replica in replicas:
        _say(replica.connection, _CEASE)
    deadline = time.perf_counter() + _GRACE_S
    for worker in workers:
        worker.join(max(0.0, deadline - time.perf_counter()))
        if isinstance(worker, BaseProcess) and worker.is_alive():
            worker.kill()
            worker.join()


def _live(
    orders: Connection, make: Callable[[], Any], name: str, threads: int | None, way: str, count: int
) -> None:
    """The life of a replica; an error in it is sent in place of an answer."""
    try:
        if threads is not None:
            pin_threads(threads)
        device = open_device(name)
        with _place(way, count, device):
            engine = make()
            if device.type == "cuda":
                torch.cuda.synchronize(device)  # weights and cache are there before orders come
            orders.send("ready")
            while (order := orders.recv()) != _CEASE:
                orders.send(order(engine, orders))
    except EOFError:
        return  # the process that gave orders is gone
    except Exception as error:
        _say(orders, _Failed(reason(error) if survivable(error) else str(error) or type(error).__name__))


def _place(way: str, count: int, device: torch.device) -> AbstractContextManager[Any]:
    """Where on the device a replica runs: by default on its process's own stream."""
    if way == "green-contexts":
        return green_context(device, count)
    if way == "streams" and device.type == "cuda":
        return torch.cuda.stream(torch.cuda.Stream(device))
    return nullcontext()


def _say(connection: Connection, what: object) -> None:
    """Says something over a connection whose other end may be gone."""
    try:
        connection.send(what)
    except OSError:
        return

"""Replicas that share a device, each with an engine of its own: a process, or a thread with a stream of its own.

They are started alike for being measured and for serving, and do what they are ordered, one order after the other.
Whoever ordered them ends them; a replica also ends when nobody is there any more to order it.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from profiler.engine.engine import open_device, pin_threads
from profiler.measure.mps import mps_daemon
from simslm.errors import DeviceError, UsageError, nearest

WAYS = ("time-slice", "mps", "streams", "sm-partition")
"""Ways of sharing: processes that take turns, processes under MPS, threads with a stream each, and processes under MPS
that each may use an equal part of the multiprocessors (``CUDA_MPS_ACTIVE_THREAD_PERCENTAGE``)."""

LIMIT_S = 120.0
"""Within which a replica must have started, or answered."""

Order = Callable[[Any, Connection], Any]
"""What a replica is to do with its engine, and how it can speak with whoever ordered it; the result is its answer.

It is sent to a process, so it is a function of a module, or a ``functools.partial`` of one.
"""

_CEASE = "cease"
_GRACE_S = 10.0
_FEWER = "use fewer replicas, or free memory"


@dataclass(frozen=True)
class _Failed:
    """Takes the place of an answer."""

    why: str


class Replica:
    """A replica as whoever orders it sees it.

    Args:
        connection: to it.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def tell(self, what: Any) -> None:
        """An order, or what it has asked for.

        Raises:
            DeviceError: it is gone, with the reason that it gave, if any.
        """
        try:
            self.connection.send(what)
        except OSError:
            self.answer(0.0)
            raise _gone() from None

    def answer(self, limit_s: float = LIMIT_S) -> Any:
        """What it says next.

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
    part = sm_fraction(way, len(makers))
    daemon = (
        mps_daemon(None if part is None else 100 * part) if way in ("mps", "sm-partition") else nullcontext()
    )
    with daemon:
        replicas: list[Replica] = []
        workers: list[BaseProcess | threading.Thread] = []
        try:
            for make in makers:
                replica, worker = _start(way == "streams", make, device, threads)
                replicas.append(replica)
                workers.append(worker)
            for replica in replicas:
                replica.answer()
            yield replicas
        finally:
            _end(replicas, workers)


def sm_fraction(way: str, count: int) -> float | None:
    """The part of the multiprocessors that each of so many replicas may use; None = all."""
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
        if way in ("mps", "sm-partition") and device.startswith("cpu"):
            raise UsageError(f"{way} needs an NVIDIA GPU", remedy="share a CPU by time-slice or streams")


def _start(
    streams: bool, make: Callable[[], Any], device: str, threads: int | None
) -> tuple[Replica, BaseProcess | threading.Thread]:
    ours, theirs = multiprocessing.Pipe()
    if streams:
        worker = threading.Thread(target=_live, args=(theirs, make, device, None, True), daemon=True)
        worker.start()
    else:
        process = multiprocessing.get_context("spawn").Process
        worker = process(target=_live, args=(theirs, make, device, threads, False), daemon=True)
        with _deaf():
            worker.start()
        theirs.close()  # else nobody would notice that the process is gone
    return Replica(ours), worker


@contextmanager
def _deaf() -> Iterator[None]:
    """Processes started inside do not hear Ctrl-C, which a terminal sends to all: who started them ends them.

    The first of them would start multiprocessing's own tracker, which unblocks the signal when it is done.
    """
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(replicas: Sequence[Replica], workers: Sequence[BaseProcess | threading.Thread]) -> None:
    """Tells all to cease, and kills processes that do not in a while."""
    for replica in replicas:
        _say(replica.connection, _CEASE)
    deadline = time.perf_counter() + _GRACE_S
    for worker in workers:
        worker.join(max(0.0, deadline - time.perf_counter()))
        if isinstance(worker, BaseProcess) and worker.is_alive():
            worker.kill()
            worker.join()


def _live(orders: Connection, make: Callable[[], Any], name: str, threads: int | None, streams: bool) -> None:
    """The life of a replica; what goes wrong in it is said in place of an answer."""
    try:
        if threads is not None:
            pin_threads(threads)
        device = open_device(name)
        engine = make()
        own = streams and device.type == "cuda"
        with torch.cuda.stream(torch.cuda.Stream(device)) if own else nullcontext():
            if device.type == "cuda":
                torch.cuda.synchronize(device)  # weights and cache are made on another stream
            orders.send("ready")
            while (order := orders.recv()) != _CEASE:
                orders.send(order(engine, orders))
    except EOFError:
        return  # nobody is there any more
    except Exception as error:
        _say(orders, _Failed(str(error) or type(error).__name__))


def _say(connection: Connection, what: object) -> None:
    """Says something to somebody who may have gone."""
    try:
        connection.send(what)
    except OSError:
        return

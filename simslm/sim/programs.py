"""Programs: requests that depend on requests, sent in the simulator's own clock.

A request is sent when the last of those it depends on has its last token, and its pause after that is over. One that
is rejected, or whose client leaves, takes with it all that depends on it, directly or not: those are never sent.
Requests that do not depend on it go on.

Invariant: a request arrives at the latest finish of those it depends on plus its pause, to the bit, or never.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Protocol

import numpy as np
from simpy.events import Event

from simslm.sim.clock import URGENT, Alarm, Clock
from simslm.sim.log import FINISHED


class Clients(Protocol):
    """Clients that each start the next of some programs when their last one is over and they have thought, while
    there are any and it is not yet ``until_s``."""

    @property
    def concurrency(self) -> int: ...
    @property
    def think_time_s(self) -> float: ...
    @property
    def until_s(self) -> float | None: ...
    @property
    def programs(self) -> np.ndarray: ...


class Programs(Protocol):
    """Which requests wait for which.

    Attributes:
        program_of: the program of each request, shape ``(requests,)``, int64, never decreasing, from 0 without gaps.
        start_s: when each program starts, shape ``(programs,)``; NaN where clients start it.
        parents: the requests that the first request depends on, then those of the second, and so on, shape
            ``(dependencies,)``, int64; each is a smaller number than that of the request which depends on it.
        parent_ends: where the parents of each request end in ``parents``, shape ``(requests,)``, int64.
        delay_s: pause of each request after those it depends on, or else after its program's start, seconds.
        clients: who starts the other programs.
        stage: requests on the longest way from a program's start to each request, itself not counted, shape
            ``(requests,)``, int64.
        described: whether the workload describes programs; False where each is a request by itself.
    """

    @property
    def program_of(self) -> np.ndarray: ...
    @property
    def start_s(self) -> np.ndarray: ...
    @property
    def parents(self) -> np.ndarray: ...
    @property
    def parent_ends(self) -> np.ndarray: ...
    @property
    def delay_s(self) -> np.ndarray: ...
    @property
    def clients(self) -> Sequence[Clients]: ...
    @property
    def stage(self) -> np.ndarray: ...
    @property
    def described(self) -> bool: ...


class ProgramRuns:
    """Sends the requests of all programs.

    Args:
        clock: the simulation's clock.
        programs: which requests wait for which.
        send: sends a request now.
        status: what became of each request, as it becomes known.
        settled: called with each request that is done, and with each that is never sent.
    """

    def __init__(
        self,
        clock: Clock,
        programs: Programs,
        send: Callable[[int], object],
        status: Sequence[int],
        settled: Callable[[int], None],
    ) -> None:
        self._clock, self._send, self._status, self._settled = clock, send, status, settled
        counts = np.diff(programs.parent_ends, prepend=0)
        self._waits = array("q", counts.tobytes())
        child = np.repeat(np.arange(len(counts)), counts)[np.argsort(programs.parents, kind="stable")]
        self._children = array("q", child.tobytes())
        ends = np.cumsum(np.bincount(programs.parents, minlength=len(counts)))
        self._child_ends = array("q", ends.astype(np.int64).tobytes())
        self._delay_s = array("d", programs.delay_s.tobytes())
        self._program_of = array("q", programs.program_of.tobytes())
        self._left = np.bincount(programs.program_of).tolist()
        self._over: dict[int, Event] = {}
        self._programs, self._roots = programs, np.flatnonzero(counts == 0)

    def start(self) -> None:
        """Starts the arrivals and the clients that start programs."""
        programs, roots = self._programs, self._roots
        self._clock.process(self._arrivals(programs.start_s[programs.program_of[roots]]))
        for clients in programs.clients:
            mine = roots[np.isin(programs.program_of[roots], clients.programs)]
            queue = iter(np.split(mine, np.flatnonzero(np.diff(programs.program_of[mine])) + 1))
            for _ in range(min(clients.concurrency, len(clients.programs))):
                self._clock.process(self._client(clients, queue))

    def done(self, request: int) -> None:
        """A request has its last token, or is rejected, or its client has gone."""
        settled = 1
        for child in self._children_of(request):
            if self._status[request] != FINISHED:
                settled += self._drop(child)
                continue
            self._waits[child] -= 1
            if not self._waits[child]:
                self._later(child)
        self._settled(request)
        program = self._program_of[request]
        self._left[program] -= settled
        if not self._left[program] and (over := self._over.pop(program, None)) is not None:
            over.succeed()

    def _children_of(self, request: int) -> array[int]:
        return self._children[self._child_ends[request - 1] if request else 0 : self._child_ends[request]]

    def _drop(self, request: int) -> int:
        """A request and all that depends on it are never sent; returns how many that were not known to be."""
        dropped, found = 0, [request]
        while found:
            each = found.pop()
            if self._waits[each] < 0:
                continue
            self._waits[each] = -1
            dropped += 1
            self._settled(each)
            found += self._children_of(each)
        return dropped

    def _later(self, request: int) -> None:
        """Sends a request when its pause is over, and never in the middle of a replica's turn."""

        def send(_event: Event) -> None:
            self._send(request)

        Alarm(self._clock, self._clock.time_s + self._delay_s[request], URGENT, send)

    def _arrivals(self, start_s: np.ndarray) -> Generator[Event, None, None]:
        """Open loop: programs start at their times, whatever has become of the others.

        Args:
            start_s: when the program of each request that depends on no other starts, NaN where clients say.
        """
        opened = ~np.isnan(start_s)
        roots = self._roots[opened]
        time_s = start_s[opened] + self._programs.delay_s[roots]
        order = np.argsort(time_s, kind="stable")
        for request, time in zip(roots[order].tolist(), time_s[order].tolist(), strict=True):
            if time > self._clock.time_s:
                yield Alarm(self._clock, time, URGENT)
            self._send(request)

    def _client(self, clients: Clients, queue: Iterator[np.ndarray]) -> Generator[Event, None, None]:
        """Closed loop: one client starts a program, waits until all of it is over, thinks, and starts the next.

        Args:
            queue: the requests that each program starts with, for all these clients together.
        """
        clock = self._clock
        until = float("inf") if clients.until_s is None else clients.until_s
        while clock.now < until and (first := next(queue, None)) is not None:
            over = self._over[self._program_of[first[0]]] = Event(clock)
            for request in first.tolist():
                self._later(request)
            yield over
            if clients.think_time_s:
                yield clock.alarm(clock.now + clients.think_time_s, URGENT)

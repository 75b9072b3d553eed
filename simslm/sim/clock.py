"""Simulated time: SimPy's environment, with events at exact times.

SimPy schedules by delay, ``now + (time - now)``, which can differ from ``time`` in the last bit. Times of this
simulator are sums of latencies, and jumping over many iterations must end on the same bits as stepping through
them, so alarms enter the queue with their absolute time.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from heapq import heappop, heappush
from typing import Any

import simpy
from simpy.events import NORMAL, URGENT, Event, EventPriority

__all__ = ["URGENT", "Alarm", "Background", "Clock", "hear", "turn"]


class Alarm(Event):
    """An event that happens at an absolute time; processes may wait for it like for any other event."""

    _ok = True
    _value = None
    env: Any
    callbacks: Any  # SimPy types them by a variable of no class

    def __init__(
        self,
        clock: Clock,
        time: float,
        priority: EventPriority,
        then: Callable[[Event], None] | None = None,
    ) -> None:
        self.env = clock
        self.callbacks = [] if then is None else [then]
        self._priority = priority
        heappush(clock.queue, (time, priority, next(clock.numbers), self))

    def advance(self, time: float) -> Alarm:
        """Moves all that waits for this alarm to an earlier ``time``; this one then happens unheard."""
        earlier = Alarm(self.env, time, self._priority)
        earlier.callbacks, self.callbacks = self.callbacks, []
        return earlier

    def forget(self) -> None:
        """It happens unheard, if it has not happened yet."""
        if self.callbacks is not None:
            self.callbacks.clear()


class Background(Alarm):
    """An alarm that does not keep a simulation going: a look at the fleet, or the end of a repair."""


class Clock(simpy.Environment):
    """The simulation's clock.

    Of events at the same time the one with the lower priority number happens first: arrivals are urgent, and
    each replica has a number of its own, so that ties are settled alike however long the jumps are.

    Attributes:
        time_s: the time, in seconds: a plain attribute, which is read many times an iteration.
        queue, numbers: SimPy's own queue of events, and what numbers them, for :class:`Alarm`.
        acted_s, actor: when a replica had its turn last, and its priority; all that happens at once follows from it.
        halted: whether it was stopped.
    """

    acted_s = -1.0
    actor = NORMAL
    halted = False

    def __init__(self) -> None:
        super().__init__()
        self.time_s = 0.0
        self.queue: list[Any] = self._queue
        self.numbers: Iterator[int] = self._eid

    @property
    def now(self) -> float:
        """The time, in seconds, as SimPy's own classes ask for it."""
        return self.time_s

    def schedule(self, event: Event, priority: EventPriority = NORMAL, delay: float = 0.0) -> None:
        """Puts an event that was made to happen in the queue; SimPy's own keeps the time elsewhere."""
        heappush(self.queue, (self.time_s + delay, priority, next(self.numbers), event))

    def run(self, until: Any = None) -> None:
        """Processes events until there is none left, or until :meth:`halt`.

        SimPy's own loop (``Environment.run`` of ``step``), in one function; an error in a process is raised here.
        """
        del until
        queue = self.queue
        while queue and not self.halted:
            self.time_s, _, _, event = heappop(queue)
            callbacks, event.callbacks = event.callbacks, None
            for callback in callbacks:
                callback(event)
            if not event._ok and not event.defused:
                raise event._value

    def live(self, life: Generator[Any, None, None]) -> None:
        """Runs a process from time 0 on, like :meth:`process`: one that never ends, and waits for nothing that fails.

        SimPy's own looks at the outcome of every event and can be interrupted, which takes twice the time of this.
        """
        resume = life.send

        def go_on(_event: Event) -> None:
            resume(None).callbacks.append(go_on)

        Alarm(self, 0.0, URGENT, go_on)

    def halt(self) -> None:
        """Ends :meth:`run` between two events; it may be called at any moment, also by a signal's handler."""
        self.halted = True

    def alarm(
        self, time: float, priority: EventPriority = NORMAL, then: Callable[[Event], None] | None = None
    ) -> Alarm:
        """An event at ``time`` seconds, which must not lie in the past; then ``then`` is called."""
        return Alarm(self, time, priority, then)

    def background(self, time: float, then: Callable[[Event], None]) -> None:
        """Calls ``then`` at ``time`` seconds, after all that is urgent at that instant and before the replicas' turns.

        The clock goes on to it whatever else is left: ``then`` acts only if :meth:`busy` or work waits for it.
        """
        Background(self, time, NORMAL, then)

    def busy(self) -> bool:
        """Whether anything is left to happen but background alarms; an event that has no hearers does not count."""
        return any(event.callbacks and not isinstance(event, Background) for *_, event in self.queue)

    def had_turn(self, priority: EventPriority) -> bool:
        """Whether an alarm of this priority at this instant would have happened already."""
        return self.acted_s == self.time_s and self.actor > priority


def hear(event: Any, then: Callable[[Event], None]) -> None:
    """Calls ``then`` when an event happens, before what is added later."""
    event.callbacks.append(then)


def turn(index: int) -> EventPriority:
    """The priority of replica ``index``: after whatever is urgent or normal, in order of the replicas."""
    return EventPriority(NORMAL + 1 + index)

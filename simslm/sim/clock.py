"""Simulated time: SimPy's environment, with events at exact times.

SimPy schedules by delay, ``now + (time - now)``, which can differ from ``time`` in the last bit. Times of this
simulator are sums of latencies, and jumping over many iterations must end on the same bits as stepping through
them, so alarms enter the queue with their absolute time.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from heapq import heappop, heappush
from typing import Any, cast

import simpy
from simpy.events import NORMAL, URGENT, Event, EventPriority

__all__ = ["URGENT", "Alarm", "Background", "Clock", "turn"]


class Alarm(Event):
    """An event that happens at an absolute time; processes may wait for it like for any other event."""

    _ok = True
    _value = None

    def __init__(self, clock: Clock, time: float, priority: EventPriority) -> None:
        self.env = clock
        self.callbacks = []
        self._priority = priority
        heappush(clock._queue, (time, priority, next(clock._eid), self))

    def advance(self, time: float) -> Alarm:
        """Moves all that waits for this alarm to an earlier ``time``; this one then happens unheard."""
        earlier = Alarm(cast(Clock, self.env), time, self._priority)
        earlier.callbacks, self.callbacks = self.callbacks, []
        return earlier


class Background(Alarm):
    """An alarm that does not keep a simulation going: a look at the fleet, or the end of a repair."""


class Clock(simpy.Environment):
    """The simulation's clock.

    Of events at the same time the one with the lower priority number happens first: arrivals are urgent, and
    each replica has a number of its own, so that ties are settled alike however long the jumps are.

    Attributes:
        acted_s, actor: when a replica had its turn last, and its priority; all that happens at once follows from it.
        halted: whether it was stopped.
    """

    acted_s = -1.0
    actor = NORMAL
    halted = False

    def run(self, until: None = None) -> None:
        """Processes events until there is none left, or until :meth:`halt`.

        SimPy's own loop (``Environment.run`` of ``step``), in one function; an error in a process is raised here.
        """
        del until
        queue: Any = self._queue
        while queue and not self.halted:
            self._now, _, _, event = heappop(queue)
            callbacks, event.callbacks = event.callbacks, None
            for callback in callbacks:
                callback(event)
            if not event._ok and not event.defused:
                raise event._value

    def live(self, life: Generator[Event, None, None]) -> None:
        """Runs a process from time 0 on, like :meth:`process`: one that never ends, and waits for nothing that fails.

        SimPy's own looks at the outcome of every event and can be interrupted, which takes twice the time of this.
        """
        resume = life.send

        def go_on(_event: Event) -> None:
            resume(None).callbacks.append(go_on)  # type: ignore[union-attr]

        Alarm(self, 0.0, URGENT).callbacks.append(go_on)

    def halt(self) -> None:
        """Ends :meth:`run` between two events; it may be called at any moment, also by a signal's handler."""
        self.halted = True

    def alarm(self, time: float, priority: EventPriority = NORMAL) -> Alarm:
        """An event at ``time`` seconds, which must not lie in the past."""
        return Alarm(self, time, priority)

    def background(self, time: float, then: Callable[[Event], None]) -> None:
        """Calls ``then`` at ``time`` seconds, after all that is urgent at that instant and before the replicas' turns.

        The clock goes on to it whatever else is left: ``then`` acts only if :meth:`busy` or work waits for it.
        """
        Background(self, time, NORMAL).callbacks.append(then)

    def busy(self) -> bool:
        """Whether anything is left to happen but background alarms; an event that has no hearers does not count."""
        return any(event.callbacks and not isinstance(event, Background) for *_, event in self._queue)

    def had_turn(self, priority: EventPriority) -> bool:
        """Whether an alarm of this priority at this instant would have happened already."""
        return self.acted_s == self._now and self.actor > priority


def turn(index: int) -> EventPriority:
    """The priority of replica ``index``: after whatever is urgent or normal, in order of the replicas."""
    return EventPriority(NORMAL + 1 + index)

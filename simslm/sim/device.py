"""Devices: how long the iterations of a replica take, given who else runs on the same device.

A replica alone on its device runs as fast as it was measured, and may run many iterations in one jump. Replicas
that share a device alternate host phases and device phases; those in a device phase at the same time slow each
other down, and are re-timed whenever one of them starts or ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from simpy.events import Event, EventPriority

from simslm.catalog.work import IterationShape
from simslm.cost.sharing import Demand, Sharing
from simslm.sim.clock import Alarm, Clock
from simslm.sim.span import Span


class Tenant(Protocol):
    """What a device knows of a replica.

    Attributes:
        span: the iterations under way, timed as if it were alone; the device cuts and corrects them.
        priority: settles ties between replicas.
    """

    span: Span
    priority: EventPriority

    def growth(self, shape: IterationShape) -> int:
        """Tokens of context that each decode iteration of the span adds."""
        ...

    def host_s(self, shape: IterationShape) -> float: ...

    def demand(self, shape: IterationShape, device_s: float) -> Demand: ...


class Device(Protocol):
    """What runs the iterations of its tenants."""

    def execute(self, tenant: Tenant, shape: IterationShape) -> Event:
        """An event at the end of the iterations of the tenant's span, which the device may cut."""
        ...

    def cut(self, tenant: Tenant, iterations: int) -> None:
        """The tenant stops after so many of the iterations under way."""
        ...

    def speed(self, tenant: Tenant) -> float:
        """How fast the tenant's iteration goes on now, 1 where it has the device to itself."""
        ...


class OwnDevice:
    """A device with a single replica."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._alarm: Alarm | None = None

    def execute(self, tenant: Tenant, shape: IterationShape) -> Event:
        del shape
        self._alarm = alarm = Alarm(self._clock, tenant.span.end_s, tenant.priority)
        return alarm

    def cut(self, tenant: Tenant, iterations: int) -> None:
        assert self._alarm is not None
        tenant.span.cut(iterations)
        self._alarm = self._alarm.advance(tenant.span.end_s)

    def speed(self, tenant: Tenant) -> float:
        del tenant
        return 1.0


class _Run:
    """The iterations of one tenant on a shared device.

    ``phase`` is ``solo`` (no other replica runs: ends are known), ``queue`` (waiting for the host), ``host`` or
    ``device``; ``left_s`` is device time still to go at full speed, as of ``since_s``.
    """

    __slots__ = (
        "alarm",
        "demand",
        "done",
        "host_s",
        "left_s",
        "phase",
        "shape",
        "since_s",
        "speed",
        "start_s",
        "tenant",
    )

    def __init__(self, tenant: Tenant, shape: IterationShape, start_s: float, done: Event) -> None:
        self.tenant = tenant
        self.shape = shape
        self.start_s = start_s
        self.done = done
        self.phase = "solo"
        self.host_s = 0.0
        self.left_s = 0.0
        self.since_s = start_s
        self.speed = 1.0
        self.demand: Demand | None = None
        self.alarm: Alarm | None = None


class SharedDevice:
    """A device with several replicas.

    Args:
        clock: the simulation's clock.
        sharing: what those active together do to each other.
    """

    def __init__(self, clock: Clock, sharing: Sharing) -> None:
        self._clock = clock
        self._sharing = sharing
        self._runs: dict[Tenant, _Run] = {}
        self._host_queue: list[_Run] = []

    def execute(self, tenant: Tenant, shape: IterationShape) -> Event:
        """An event at the end of the tenant's iterations: of all while it is alone on the whole device, else of one."""
        now = self._clock.now
        run = _Run(tenant, shape, now, Event(self._clock))
        others = list(self._runs.values())
        self._runs[tenant] = run
        if not others and not self._sharing.partitioned:
            self._wait(run, tenant.span.end_s, self._finish)
            return run.done
        for other in others:
            if other.phase == "solo":
                self._disturb(other)
        tenant.span.cut(1)
        self._prepare(run, tenant.span.end_s - now)
        if self._host_busy():
            run.phase = "queue"
            self._host_queue.append(run)
        else:
            self._start_host(run)
        return run.done

    def cut(self, tenant: Tenant, iterations: int) -> None:
        """As of any device; only a solo run has several iterations."""
        run = self._runs[tenant]
        tenant.span.cut(iterations)
        assert run.alarm is not None
        run.alarm = run.alarm.advance(tenant.span.end_s)

    def speed(self, tenant: Tenant) -> float:
        """As of any device; 0 for one that waits for the host."""
        run = self._runs[tenant]
        return {"queue": 0.0, "device": run.speed}.get(run.phase, 1.0)

    def _wait(self, run: _Run, time: float, then: Callable[[_Run], None]) -> None:
        """Goes on with ``then`` at ``time``; whatever the run waited for before is forgotten."""
        if run.alarm is not None:
            run.alarm.forget()

        def ended(_event: Event) -> None:
            then(run)

        run.alarm = self._clock.alarm(time, run.tenant.priority, ended)

    def _prepare(self, run: _Run, latency_s: float) -> None:
        """Divides one iteration into host and device time."""
        run.host_s = min(run.tenant.host_s(run.shape), latency_s)
        run.left_s = latency_s - run.host_s
        run.demand = run.tenant.demand(run.shape, max(run.left_s, 1e-12))

    def _disturb(self, run: _Run) -> None:
        """Another replica joins: a solo run keeps only the iteration under way, and continues phase by phase."""
        now, span = self._clock.now, run.tenant.span
        current = span.running(now, settled=self._clock.had_turn(run.tenant.priority))
        start = span.end(current - 1) if current > 1 else run.start_s
        span.cut(current)
        grown = (current - 1) * run.tenant.growth(run.shape)
        run.shape = run.shape._replace(decode_ctx_tokens=run.shape.decode_ctx_tokens + grown)
        self._prepare(run, span.end_s - start)
        if now < start + run.host_s:
            run.phase = "host"
            self._wait(run, start + run.host_s, self._start_device)
            return
        run.phase = "device"
        run.since_s, run.speed = now, 0.0
        run.left_s = max(span.end_s - now, 0.0)
        self._retime()

    def _host_busy(self) -> bool:
        return self._sharing.serial_host and any(run.phase == "host" for run in self._runs.values())

    def _start_host(self, run: _Run) -> None:
        run.phase = "host"
        self._wait(run, self._clock.now + run.host_s, self._start_device)

    def _start_device(self, run: _Run) -> None:
        run.phase = "device"
        run.since_s = self._clock.now
        run.speed = 0.0
        if self._host_queue:
            self._start_host(self._host_queue.pop(0))
        self._retime()

    def _finish(self, run: _Run) -> None:
        """The iterations are over; those still in a device phase run faster from here."""
        del self._runs[run.tenant]
        if run.phase == "device":
            run.tenant.span.end_s = self._clock.now
            run.tenant.span.steady = False
            self._retime()
        run.done.succeed()

    def _retime(self) -> None:
        """New speeds for all runs in a device phase, from now on."""
        now = self._clock.now
        active = [run for run in self._runs.values() if run.phase == "device"]
        if not active:
            return
        speeds = self._sharing.speeds([run.demand for run in active if run.demand is not None])
        for run, speed in zip(active, speeds, strict=True):
            if speed != run.speed:
                run.left_s = max(run.left_s - (now - run.since_s) * run.speed, 0.0)
                run.since_s, run.speed = now, speed
                self._wait(run, now + run.left_s / speed, self._finish)

"""The simulated world: arrivals, the fleet that serves them, its control plane, one clock."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy as np
from simpy.events import Event

from simslm.errors import SimslmError
from simslm.sim.clock import URGENT, Alarm, Clock, hear
from simslm.sim.control.control import Control
from simslm.sim.deployment import Deployment
from simslm.sim.dispatch import Dispatch
from simslm.sim.fleet import Fleet
from simslm.sim.group_routing import GroupChoice, GroupView
from simslm.sim.log import REJECTED, UNFINISHED, LogSink, RequestLog, SimulationLog
from simslm.sim.programs import ProgramRuns
from simslm.sim.replica import Replica
from simslm.sim.rows import ClosedLoop, RequestRows, Requests, Stream
from simslm.sim.setup import UNBOUNDED
from simslm.sim.state import sequence as inflight

PROGRESS_EVERY = 1024
"""Requests done between two calls of a progress callback."""


@dataclass(frozen=True, slots=True)
class Underway:
    """A simulation while it runs; its columns are the simulation's own, to look at and not to keep.

    Attributes:
        done, total: requests that are over, and all of them.
        time_s: simulated time.
        arrived_s: when the request of each row arrived, NaN before.
        output_tokens: of each.
        log: what became of each.
        repeat: number of the repetition, for the intervals of a run's figures; 0 = the run itself.
    """

    done: int
    total: int
    time_s: float
    arrived_s: array[float]
    output_tokens: array[int]
    log: RequestLog
    repeat: int = 0


Progress = Callable[[Underway], None]
"""Called every now and then while requests are answered."""

OnStart = Callable[[Callable[[], None]], None]
"""Called with a function that ends the simulation between two of its events, and may be called at any moment."""


def run(
    requests: Requests | Stream,
    deployment: Deployment,
    *,
    jump: bool = True,
    progress: Progress | None = None,
    sink: LogSink | None = None,
    on_start: OnStart | None = None,
) -> SimulationLog:
    """Simulates a workload until its last request is done.

    Args:
        requests: the workload; of a stream, no more is held than is under way.
        deployment: what serves it.
        jump: take iterations in which nothing can change in one step; False steps through each, to the same bits.
        progress: see :data:`Progress`.
        sink: takes the iterations of a replica whenever there are many of them, and the requests of each piece of a
            stream when all of them are over, so that a long run does not hold them all; None leaves them in the log.
        on_start: see :data:`OnStart`.

    Returns:
        The log; if it was stopped it holds what had happened and says ``interrupted``.
    """
    world = _World(requests, deployment, UNBOUNDED if jump else 1, progress, sink)
    if on_start is not None:
        on_start(world.clock.halt)
    world.clock.run()
    if not world.clock.halted:
        world.check_rest()
    dispatch = world.dispatch
    if dispatch is not None:
        dispatch.close()
    windows = tuple(replica.window() for replica in world.replicas)
    return SimulationLog(
        np.asarray(world.rows.arrived_s),
        world.rows.log,
        windows,
        next(world.clock.numbers),
        world.clock.halted,
        tuple(world.fleet.moves),
        {device: tuple(each.splits) for device, each in world.fleet.partitioners.items()},
        world.rows.held(),
        () if world.control is None else world.fleet.lives(),
        () if world.control is None else world.control.clocks,
        dict(world.fleet.moved),
        dict(world.fleet.faulted),
        answered=0 if dispatch is None else dispatch.answered,
        groups=() if dispatch is None else dispatch.counts([group.name for group in deployment.groups]),
    )


class _World:
    def __init__(
        self,
        requests: Requests | Stream,
        deployment: Deployment,
        most_iterations: int,
        progress: Progress | None,
        sink: LogSink | None,
    ) -> None:
        self.clock = Clock()
        self.progress = progress
        self.done = 0
        self.answers: dict[int, Event] = {}
        self.replicas: list[Replica] = []
        self.deployment, self.sink = deployment, sink
        if isinstance(requests, Stream):
            self.count, self.pieces, programs = requests.count, requests.pieces(), None
            self.rows = RequestRows(requests.most)
        else:
            self.count, self.pieces = len(requests.prompt_tokens), iter((requests,))
            self.rows, programs = RequestRows(self.count), requests.programs
        self.programs = programs
        runs: ProgramRuns | None = None
        heard = progress is not None or requests.closed_loop is not None
        self.on_done: Callable[[int], None] | None = self._on_done if heard else None
        if programs is not None:
            runs = ProgramRuns(self.clock, programs, self._send, self.rows.log.status, self._on_done)
            self.on_done = runs.done
        self.dispatch = self._dispatch()
        self.fleet = Fleet(
            self.clock,
            deployment,
            self.rows,
            on_done=self.on_done if self.dispatch is None else self.dispatch.done,
            most_iterations=most_iterations,
            on_window=None if sink is None else sink.take_window,
        )
        self.replicas = self.fleet.replicas
        self.choice = self._group_choice()
        if self.dispatch is not None:
            self.dispatch.open(self.fleet, self.choice)
        self._load()
        self.control = Control(self.clock, self.fleet, deployment) if deployment.controlled else None
        loop = requests.closed_loop
        if runs is not None:
            runs.start()
        elif loop is None:
            self._open_loop()
        elif loop.paced:
            self.clock.process(self._capped(loop))
        else:
            for _ in range(min(loop.concurrency, self.count)):
                self.clock.process(self._client(loop))

    def check_rest(self) -> None:
        """Nothing is left to happen: all requests that arrived are done, and no KV block is held.

        Raises:
            SimslmError: a request waits for ever, or blocks were lost; a policy or a mechanism is at fault.
        """
        for replica in self.replicas:
            if replica.outstanding or replica.pool.used:
                raise SimslmError(
                    f"replica {replica.index} stands still with {replica.outstanding} requests and "
                    f"{replica.pool.used} KV blocks held, and nothing left to happen"
                )
        if self.fleet.holds:
            raise SimslmError(
                f"{self.fleet.holds} requests wait and no replica serves, starts or is being repaired",
                remedy="the scaling policy asks for no replica although requests wait",
            )
        if self.dispatch is not None and not self.dispatch.empty:
            raise SimslmError("requests wait before the replicas, and nothing is left to happen")

    def _dispatch(self) -> Dispatch | None:
        """What stands between the arrivals and the groups, where something does."""
        gateway = self.deployment.gateway
        if gateway is None and self.deployment.group_router is None:
            return None
        made = None if gateway is None else gateway()
        return Dispatch(self.clock, self.rows, gateway=made, done=self.on_done)

    def _group_choice(self) -> GroupChoice | None:
        """The choice among groups; None where all requests go to the first."""
        deployment, teams = self.deployment, self.fleet.teams
        if deployment.group_router is None:
            return None
        views = [
            GroupView(number, deployment.groups[number].name, deployment.groups[number].share, teams[number])
            for number in deployment.open_groups
        ]
        choice = GroupChoice(deployment.group_router(), views, self.rows)
        for number in deployment.with_decode_groups(choice.judged):
            for member in teams[number].members:
                member.replica.log.whole = True
        return choice

    def _load(self) -> bool:
        """The next piece of the workload takes rows; False when there is none."""
        piece = next(self.pieces, None)
        if piece is None:
            return False
        self._settle()
        programs = self.programs if self.programs is not None and self.programs.described else None
        servable, able = self._servable(piece)
        self.rows.load(
            piece,
            servable,
            able=able,
            program=None if programs is None else programs.program_of,
            stage=None if programs is None else programs.stage,
            allowed_s=self._allowed_s(piece),
        )
        return True

    def _allowed_s(self, piece: Requests) -> np.ndarray | None:
        """From each request's arrival to its deadline, seconds; None where no request of the workload has one."""
        first, bound_s = self.rows.loaded, self.deployment.e2e_slo_s
        if isinstance(bound_s, np.ndarray):
            bound_s = bound_s[first : first + len(piece.prompt_tokens)]
        if bound_s is None:
            return piece.patience_s
        patience_s = np.inf if piece.patience_s is None else piece.patience_s
        return np.broadcast_to(np.minimum(bound_s, patience_s), len(piece.prompt_tokens))

    def _settle(self) -> None:
        """The pieces that are over are handed out, after the iterations of all replicas up to now."""
        if self.sink is None:
            return
        lingering = (each.row for replica in self.replicas for each in replica.batch.lingering)
        if not (over := self.rows.over(lingering)):
            return
        for replica in self.replicas:
            self.sink.take_window(replica.index, replica.window())
        for _ in range(over):
            self.sink.take_requests(self.rows.let_go())
        if self.fleet.moves:
            self.sink.take_moves(self.fleet.let_go_of_moves())

    def _servable(self, requests: Requests) -> tuple[np.ndarray, np.ndarray | None]:
        """For each request, whether a group can serve it at all, and the number of the set of groups that can."""
        deployment = self.deployment
        if self.choice is None:
            return deployment.servable(requests, 0), None
        masks = np.stack([deployment.servable(requests, number) for number in deployment.open_groups])
        return np.any(masks, axis=0), self.choice.sets(masks)

    def _open_loop(self) -> None:
        """Requests arrive at their times, whatever has become of the others.

        Each alarm calls for the next one itself: a process that waits for them all takes twice as long.
        """
        clock, send, rows = self.clock, self._send, self.rows
        due_s = rows.due_s

        def arrive(_event: Event) -> None:
            now = clock.time_s
            while True:
                row, stop = rows.row, rows.stop
                while row < stop and due_s[row] <= now:
                    send(row)
                    row += 1
                rows.row = row
                if row < stop:
                    Alarm(clock, due_s[row], URGENT, arrive)
                    return
                if not self._load():
                    return

        Alarm(clock, 0.0, URGENT, arrive)

    def _client(self, loop: ClosedLoop) -> Generator[Event, None, None]:
        """Closed loop: one client sends, waits for the last token, thinks, and sends again."""
        until, rows = float("inf") if loop.until_s is None else loop.until_s, self.rows
        while self.clock.now < until and (rows.row < rows.stop or self._load()):
            row = rows.row
            rows.row += 1
            answered = Event(self.clock)
            self.answers[row] = answered
            if self._send(row):
                yield answered
            if loop.think_time_s:
                yield self.clock.alarm(self.clock.now + loop.think_time_s, URGENT)

    def _capped(self, loop: ClosedLoop) -> Generator[Event, None, None]:
        """Requests are sent when they are due, in order, each as soon as fewer than ``concurrency`` are in flight.

        One process for all clients: with one each, all that are free would wake for every request.
        """
        until, rows, clock = float("inf") if loop.until_s is None else loop.until_s, self.rows, self.clock
        free, freed = loop.concurrency, Event(clock)

        def back(_event: Event) -> None:
            nonlocal free
            free += 1
            if not freed.triggered:
                freed.succeed()

        def answered(event: Event) -> None:
            if not loop.think_time_s:
                back(event)
                return
            clock.alarm(clock.now + loop.think_time_s, URGENT, back)

        while rows.row < rows.stop or self._load():
            due_s = rows.due_s[rows.row]
            if due_s > clock.now and due_s < until:
                yield clock.alarm(due_s, URGENT)
            while not free:
                freed = Event(clock)
                yield freed
            if max(due_s, clock.now) >= until:
                return
            row = rows.row
            rows.row += 1
            free -= 1
            answer = Event(clock)
            hear(answer, answered)
            self.answers[row] = answer
            if not self._send(row):
                answered(answer)

    def _send(self, row: int) -> bool:
        """The request of a row arrives; False when it is not let in, or can never be served."""
        rows, dispatch = self.rows, self.dispatch
        now = rows.arrived_s[row] = self.clock.time_s
        if dispatch is None and not rows.servable[row]:
            self._reject(row)
            return False
        sequence = inflight.Sequence(
            row + rows.ahead, now, rows.prompt_tokens[row], rows.max_tokens[row], row
        )
        if rows.described:
            rows.describe(sequence)
        if not (self.fleet.send(sequence, 0) if dispatch is None else dispatch.send(sequence)):
            self._reject(row)
            return False
        if rows.patience_s is not None and rows.patience_s[row] != float("inf"):
            self._hurry(rows.patience_s[row], sequence)
        return True

    def _hurry(self, patience_s: float, sequence: inflight.Sequence) -> None:
        """The client leaves when its patience ends, unless it has its answer by then."""
        log = self.rows.log

        def leave(_event: Event) -> None:
            if self.rows.gone(sequence.request_id) or log.status[sequence.row] != UNFINISHED:
                return
            served = sequence if self.dispatch is None else self.dispatch.leaves(sequence)
            if served is not None:
                self.fleet.cancel(served)

        self.clock.alarm(self.clock.now + patience_s, URGENT, leave)

    def _reject(self, row: int) -> None:
        self.rows.log.status[row] = REJECTED
        self.answers.pop(row, None)
        if self.on_done is not None:
            self.on_done(row)

    def _on_done(self, row: int) -> None:
        if self.answers and (answered := self.answers.pop(row, None)) is not None:
            answered.succeed()
        self.done += 1
        if self.progress is not None and self.done % PROGRESS_EVERY == 0:
            rows = self.rows
            self.progress(
                Underway(self.done, self.count, self.clock.now, rows.arrived_s, rows.output_tokens, rows.log)
            )

"""The simulated world: arrivals, routers, replicas on their devices, one clock."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy as np
from simpy.events import Event

from simslm.cost.model import CostModel
from simslm.cost.sharing import DemandModel, Sharing
from simslm.errors import SimslmError
from simslm.policies.partition import PartitionPolicy
from simslm.policies.route import Router
from simslm.sim.clock import URGENT, Alarm, Clock, hear
from simslm.sim.device import OwnDevice, SharedDevice
from simslm.sim.engine import EngineConfig, Policies
from simslm.sim.log import REJECTED, UNFINISHED, LogSink, RequestLog, SimulationLog
from simslm.sim.partition import Partitioner
from simslm.sim.phases import Phases, Stores, partitioners
from simslm.sim.programs import ProgramRuns
from simslm.sim.replica import Replica
from simslm.sim.rows import ClosedLoop, RequestRows, Requests, Stream
from simslm.sim.setup import UNBOUNDED, Setup
from simslm.sim.state import sequence as inflight

PROGRESS_EVERY = 1024
"""Requests done between two calls of a progress callback."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Replicas of one model and engine, behind one router.

    Attributes:
        name: for reports.
        engine: limits of each replica.
        devices: the device of each replica, by number.
        cost: seconds and joules of an iteration of a replica that has the device to itself.
        demand: what an iteration asks of a shared device; None when no device is shared.
        policies: makes the policies of one replica.
        router: makes the router; two runs share no state.
        max_model_len: longest prompt + output.
        role: ``both | prefill | decode``: the phases its replicas run; no request arrives at a decode group.
        decode_group: where sequences go on that a prefill group has prefilled, by number.
        kv_pool: groups of one phase that name the same take their blocks from one store on each device, of
            ``num_gpu_blocks`` in all; None = each replica has its own.
    """

    name: str
    engine: EngineConfig
    devices: tuple[int, ...]
    cost: CostModel
    demand: DemandModel | None
    policies: Callable[[], Policies]
    router: Callable[[], Router]
    max_model_len: int
    role: str = "both"
    decode_group: int | None = None
    kv_pool: str | None = None


def servable(requests: Requests, group: Group) -> np.ndarray:
    """Which requests an empty replica of a group could serve to their last token, a mask of shape ``(requests,)``.

    They must fit the model's length, the KV blocks (of the declared limit, where the batching policy reserves it; the
    last token is never cached) and, where prompts are not split, the token budget.
    """
    engine, batching = group.engine, group.policies().batching
    prompt, output = requests.prompt_tokens, requests.output_tokens
    longest = prompt + (requests.max_tokens if batching.reserves_output else output - 1)
    if engine.kept_tokens is not None:
        longest = np.minimum(longest, engine.kept_tokens)
    fits = (prompt + output <= group.max_model_len) & (longest <= engine.num_gpu_blocks * engine.block_size)
    prefills = batching.whole_prompts and group.role != "decode"
    return fits & (prompt <= engine.max_num_batched_tokens) if prefills else fits


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What serves: groups of replicas, and how replicas that share a device get along.

    Attributes:
        groups: at least one.
        sharing: makes the way of sharing for so many replicas on a device; None when none is shared.
        group_of: the group that each request arrives at; None when all arrive at the first.
        partition: makes what moves the split of a device between the phases; None = it stays.
        ttft_slo_s, tpot_slo_s: the bounds it goes by, seconds; None where there are none.
    """

    groups: tuple[Group, ...]
    sharing: Callable[[int], Sharing] | None = None
    group_of: np.ndarray | None = None
    partition: Callable[[], PartitionPolicy] | None = None
    ttft_slo_s: float | None = None
    tpot_slo_s: float | None = None

    def servable(self, requests: Requests, number: int) -> np.ndarray:
        """Which requests group ``number`` could serve, with the group that goes on from there; see :func:`servable`."""
        group = self.groups[number]
        mask = servable(requests, group)
        return (
            mask if group.decode_group is None else mask & servable(requests, self.groups[group.decode_group])
        )


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
    windows = tuple(replica.window() for replica in world.replicas)
    return SimulationLog(
        np.asarray(world.rows.arrived_s),
        world.rows.log,
        windows,
        next(world.clock.numbers),
        world.clock.halted,
        () if world.phases is None else tuple(world.phases.moves),
        {device: tuple(each.splits) for device, each in world.partitioners.items()},
        world.rows.held(),
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
        self._load()
        runs: ProgramRuns | None = None
        heard = progress is not None or requests.closed_loop is not None
        self.on_done: Callable[[int], None] | None = self._on_done if heard else None
        if programs is not None:
            runs = ProgramRuns(self.clock, programs, self._send, self.rows.log.status, self._on_done)
            self.on_done = runs.done
        self.routers = [group.router() for group in deployment.groups]
        self.members: list[list[Replica]] = []
        self.phases: Phases | None = None
        self.partitioners: dict[int, Partitioner] = {}
        self._deploy(deployment, most_iterations)
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

    def _load(self) -> bool:
        """The next piece of the workload takes rows; False when there is none."""
        piece = next(self.pieces, None)
        if piece is None:
            return False
        self._settle()
        first, count, group_of = self.rows.loaded, len(piece.prompt_tokens), self.deployment.group_of
        group_of = None if group_of is None else group_of[first : first + count]
        self.rows.load(piece, self._servable(piece, group_of), group_of)
        return True

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
        if self.phases is not None and self.phases.moves:
            self.sink.take_moves(self.phases.let_go())

    def _servable(self, requests: Requests, group_of: np.ndarray | None) -> np.ndarray:
        """For each request, whether its group can serve it at all."""
        deployment = self.deployment
        if group_of is None:
            return deployment.servable(requests, 0)
        masks = np.stack([deployment.servable(requests, number) for number in range(len(deployment.groups))])
        return masks[group_of, np.arange(len(group_of))]

    def _deploy(self, deployment: Deployment, most_iterations: int) -> None:
        tenants = Counter(device for group in deployment.groups for device in group.devices)
        shared = {
            device: SharedDevice(self.clock, deployment.sharing(count))
            for device, count in tenants.items()
            if count > 1 and deployment.sharing is not None
        }
        stores = Stores()
        for number, group in enumerate(deployment.groups):
            members: list[Replica] = []
            for place, device in enumerate(group.devices):
                setup = Setup(
                    index=len(self.replicas),
                    clock=self.clock,
                    device=shared.get(device) or OwnDevice(self.clock),
                    engine=group.engine,
                    cost=group.cost,
                    demand=group.demand,
                    policies=group.policies(),
                    output_tokens=self.rows.output_tokens,
                    requests=self.rows.log,
                    on_done=self.on_done,
                    most_iterations=most_iterations,
                    on_window=None if self.sink is None else self.sink.take_window,
                    role=group.role,
                    store=stores.of(group, number, place),
                )
                replica = Replica(setup)
                self.clock.live(replica.run())
                self.replicas.append(replica)
                members.append(replica)
            self.members.append(members)
        if any(group.role != "both" for group in deployment.groups):
            self._connect(deployment)

    def _connect(self, deployment: Deployment) -> None:
        """Replicas of one phase find those of the other, and the split of their devices its partitioner."""
        self.phases = Phases(
            self.clock,
            deployment.groups,
            self.members,
            self.routers,
            self.rows.log,
            lambda row: 0 if self.rows.group_of is None else self.rows.group_of[row],
        )
        if deployment.partition is not None:
            devices = [device for group in deployment.groups for device in group.devices]
            slos = deployment.ttft_slo_s, deployment.tpot_slo_s
            self.partitioners = partitioners(self.clock, self.replicas, devices, deployment.partition, slos)

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
        """Routes the request of a row; False when it is not let in, or can never be served."""
        rows = self.rows
        now = rows.arrived_s[row] = self.clock.time_s
        if not rows.servable[row]:
            self._reject(row)
            return False
        sequence = inflight.Sequence(
            row + rows.ahead, now, rows.prompt_tokens[row], rows.max_tokens[row], row
        )
        if rows.described:
            rows.describe(sequence)
        number = 0 if rows.group_of is None else rows.group_of[row]
        members = self.members[number]
        chosen = members[self.routers[number].choose(sequence, members)] if len(members) > 1 else members[0]
        if not chosen.admission.admits(sequence, chosen):
            self._reject(row)
            return False
        rows.log.replica[row] = chosen.index
        chosen.arrive(sequence)
        if rows.patience_s is not None and rows.patience_s[row] != float("inf"):
            self._hurry(rows.patience_s[row], sequence)
        return True

    def _hurry(self, patience_s: float, sequence: inflight.Sequence) -> None:
        """The client leaves when its patience ends, unless it has its answer by then."""
        log = self.rows.log

        def leave(_event: Event) -> None:
            if not self.rows.gone(sequence.request_id) and log.status[sequence.row] == UNFINISHED:
                self.replicas[log.replica[sequence.row]].cancel(sequence)

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

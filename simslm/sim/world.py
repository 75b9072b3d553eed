"""The simulated world: arrivals, routers, replicas on their devices, one clock."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from simpy.events import Event

from simslm.cost.model import CostModel
from simslm.cost.sharing import DemandModel, Sharing
from simslm.errors import SimslmError
from simslm.policies.partition import PartitionPolicy
from simslm.policies.route import Router
from simslm.sim import sequence as inflight
from simslm.sim.clock import URGENT, Alarm, Clock
from simslm.sim.device import OwnDevice, SharedDevice
from simslm.sim.engine import EngineConfig, Policies
from simslm.sim.handoff import CLASSES, Handoffs, partitioners
from simslm.sim.log import REJECTED, UNFINISHED, RequestLog, SimulationLog
from simslm.sim.partition import Partitioner
from simslm.sim.programs import ProgramRuns, Programs
from simslm.sim.replica import UNBOUNDED, Replica
from simslm.sim.speculation import SpeculativeReplica
from simslm.sim.switching import SwitchingReplica
from simslm.sim.window import Window
from simslm.sim.windowed import WindowedReplica

PROGRESS_EVERY = 1024
"""Requests done between two calls of a progress callback."""


class ClosedLoop(Protocol):
    """Clients that each send the next request when the last is answered, ``think_time_s`` later, while
    there are requests and it is not yet ``until_s``."""

    @property
    def concurrency(self) -> int: ...
    @property
    def think_time_s(self) -> float: ...
    @property
    def until_s(self) -> float | None: ...


class Requests(Protocol):
    """The workload, one entry per request, in order of arrival; None where a column does not apply.

    Attributes:
        priority: the lower, the sooner.
        session_id: the conversation a request belongs to.
        units: hashes of each prompt's prefix, of ``unit_tokens`` tokens each.
        context_units: the same of each prompt and its output together, as far as another prompt may go on from there.
        patience_s: how long a client waits for its last token before it goes.
        closed_loop: how arrivals follow completions; then ``arrival_s`` does not apply.
        programs: how requests follow each other; then neither of the two applies.
    """

    @property
    def arrival_s(self) -> np.ndarray: ...
    @property
    def prompt_tokens(self) -> np.ndarray: ...
    @property
    def output_tokens(self) -> np.ndarray: ...
    @property
    def max_tokens(self) -> np.ndarray: ...
    @property
    def priority(self) -> np.ndarray | None: ...
    @property
    def session_id(self) -> np.ndarray | None: ...
    @property
    def units(self) -> Sequence[Sequence[int]] | None: ...
    @property
    def unit_tokens(self) -> int: ...
    @property
    def context_units(self) -> Sequence[Sequence[int]] | None: ...
    @property
    def patience_s(self) -> np.ndarray | None: ...
    @property
    def closed_loop(self) -> ClosedLoop | None: ...
    @property
    def programs(self) -> Programs | None: ...


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
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
        arrived_s: when each request arrived, NaN before.
        output_tokens: of each request.
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
    requests: Requests,
    deployment: Deployment,
    *,
    jump: bool = True,
    progress: Progress | None = None,
    on_window: Callable[[int, Window], None] | None = None,
    on_start: OnStart | None = None,
) -> SimulationLog:
    """Simulates a workload until its last request is done.

    Args:
        requests: the workload.
        deployment: what serves it.
        jump: take iterations in which nothing can change in one step; False steps through each, to the same bits.
        progress: see :data:`Progress`.
        on_window: takes the iterations of a replica, by number, whenever there are many of them, so that a long
            run does not hold them all.
        on_start: see :data:`OnStart`.

    Returns:
        The log; if it was stopped it holds what had happened and says ``interrupted``.
    """
    world = _World(requests, deployment, UNBOUNDED if jump else 1, progress, on_window)
    if on_start is not None:
        on_start(world.clock.halt)
    world.clock.run()
    if not world.clock.halted:
        world.check_rest()
    windows = tuple(replica.window() for replica in world.replicas)
    return SimulationLog(
        np.asarray(world.arrived_s),
        world.log,
        windows,
        next(world.clock._eid),
        world.clock.halted,
        () if world.handoffs is None else tuple(world.handoffs.moves),
        {device: tuple(each.splits) for device, each in world.partitioners.items()},
    )


def _kind(group: Group, policies: Policies) -> type[Replica]:
    """What runs the replicas of a group.

    Raises:
        SimslmError: it asks for two things that no replica does together.
    """
    asked = {
        f"role {group.role}": CLASSES[group.role],
        "a bounded KV cache": WindowedReplica if group.engine.kept_tokens is not None else Replica,
        "speculative decoding": SpeculativeReplica if policies.speculation is not None else Replica,
        "context switches": SwitchingReplica if policies.preemption is not None else Replica,
    }
    kinds = {name: kind for name, kind in asked.items() if kind is not Replica}
    if len(kinds) > 1:
        raise SimslmError(f"group {group.name!r}: {' and '.join(kinds)} do not go together")
    return next(iter(kinds.values()), Replica)


class _World:
    def __init__(
        self,
        requests: Requests,
        deployment: Deployment,
        most_iterations: int,
        progress: Progress | None,
        on_window: Callable[[int, Window], None] | None,
    ) -> None:
        self.clock = Clock()
        self.progress = progress
        self.done = 0
        self.sent = 0
        self.answers: dict[int, Event] = {}
        self._columns(requests)
        self.servable = self._servable(requests, deployment)
        self.log = RequestLog(self.count)
        runs: ProgramRuns | None = None
        heard = progress is not None or requests.closed_loop is not None
        self.on_done: Callable[[int], None] | None = self._on_done if heard else None
        if requests.programs is not None:
            runs = ProgramRuns(self.clock, requests.programs, self._send, self.log.status, self._on_done)
            self.on_done = runs.done
        self.group_of = None if deployment.group_of is None else deployment.group_of.tolist()
        self.routers = [group.router() for group in deployment.groups]
        self.replicas: list[Replica] = []
        self.members: list[list[Replica]] = []
        self.handoffs: Handoffs | None = None
        self.partitioners: dict[int, Partitioner] = {}
        self._deploy(deployment, most_iterations, on_window)
        loop = requests.closed_loop
        if runs is not None:
            runs.start()
        elif loop is None:
            self._open_loop(array("d", requests.arrival_s.tobytes()))
        else:
            for _ in range(min(loop.concurrency, self.count)):
                self.clock.process(self._client(loop))

    def check_rest(self) -> None:
        """Nothing is left to happen: everybody who came is done, and no KV block is held.

        Raises:
            SimslmError: somebody waits for ever, or blocks were lost; a policy or a mechanism is at fault.
        """
        for replica in self.replicas:
            if replica.outstanding or replica.pool.used:
                raise SimslmError(
                    f"replica {replica.index} stands still with {replica.outstanding} requests and "
                    f"{replica.pool.used} KV blocks held, and nothing left to happen"
                )

    def _columns(self, requests: Requests) -> None:
        """The workload as Python's own arrays: one element is read several times faster than from numpy's."""
        self.count = len(requests.prompt_tokens)
        self.prompt_tokens = array("q", requests.prompt_tokens.tobytes())
        self.output_tokens = array("q", requests.output_tokens.tobytes())
        self.max_tokens = array("q", requests.max_tokens.tobytes())
        self.priority = None if requests.priority is None else requests.priority.tolist()
        self.session_id = None if requests.session_id is None else requests.session_id.tolist()
        self.patience_s = None if requests.patience_s is None else requests.patience_s.tolist()
        self.units, self.unit_tokens = requests.units, requests.unit_tokens
        self.context_units = requests.context_units
        self.arrived_s = array("d", [float("nan")]) * self.count

    def _servable(self, requests: Requests, deployment: Deployment) -> bytes:
        """For each request, whether its group can serve it at all."""
        if deployment.group_of is None:
            return deployment.servable(requests, 0).tobytes()
        masks = np.stack([deployment.servable(requests, number) for number in range(len(deployment.groups))])
        return masks[deployment.group_of, np.arange(self.count)].tobytes()

    def _deploy(
        self,
        deployment: Deployment,
        most_iterations: int,
        on_window: Callable[[int, Window], None] | None,
    ) -> None:
        tenants = Counter(device for group in deployment.groups for device in group.devices)
        shared = {
            device: SharedDevice(self.clock, deployment.sharing(count))
            for device, count in tenants.items()
            if count > 1 and deployment.sharing is not None
        }
        for group in deployment.groups:
            members = []
            for device in group.devices:
                policies = group.policies()
                replica = _kind(group, policies)(
                    len(self.replicas),
                    self.clock,
                    shared.get(device) or OwnDevice(self.clock),
                    group.engine,
                    group.cost,
                    group.demand,
                    policies,
                    self.output_tokens,
                    self.log,
                    self.on_done,
                    most_iterations,
                    on_window,
                )
                self.clock.live(replica.run())
                self.replicas.append(replica)
                members.append(replica)
            self.members.append(members)
        if any(group.role != "both" for group in deployment.groups):
            self._connect(deployment)

    def _connect(self, deployment: Deployment) -> None:
        """Replicas of one phase find those of the other, and the split of their devices its partitioner."""
        self.handoffs = Handoffs(
            self.clock,
            deployment.groups,
            self.members,
            self.routers,
            self.log,
            lambda request: 0 if self.group_of is None else self.group_of[request],
        )
        if deployment.partition is not None:
            devices = [device for group in deployment.groups for device in group.devices]
            slos = deployment.ttft_slo_s, deployment.tpot_slo_s
            self.partitioners = partitioners(self.clock, self.replicas, devices, deployment.partition, slos)

    def _open_loop(self, arrival_s: array[float]) -> None:
        """Requests arrive at their times, whatever has become of the others.

        Each alarm calls for the next one itself: a process that waits for them all takes twice as long.
        """
        clock, send, count = self.clock, self._send, self.count

        def arrive(_event: Event) -> None:
            request, now = self.sent, clock._now
            while request < count and arrival_s[request] <= now:
                send(request)
                request += 1
            self.sent = request
            if request < count:
                Alarm(clock, arrival_s[request], URGENT).callbacks.append(arrive)

        Alarm(clock, 0.0, URGENT).callbacks.append(arrive)

    def _client(self, loop: ClosedLoop) -> Generator[Event, None, None]:
        """Closed loop: one client sends, waits for the last token, thinks, and sends again."""
        until = float("inf") if loop.until_s is None else loop.until_s
        while self.sent < self.count and self.clock.now < until:
            request = self.sent
            self.sent += 1
            answered = Event(self.clock)
            self.answers[request] = answered
            if self._send(request):
                yield answered
            if loop.think_time_s:
                yield self.clock.alarm(self.clock.now + loop.think_time_s, URGENT)

    def _send(self, request: int) -> bool:
        """Routes one request; False when it is not let in, or can never be served."""
        now = self.arrived_s[request] = self.clock._now
        if not self.servable[request]:
            self._reject(request)
            return False
        sequence = inflight.Sequence(request, now, self.prompt_tokens[request], self.max_tokens[request])
        if self.priority is not None:
            sequence.priority = self.priority[request]
        if self.session_id is not None:
            sequence.session_id = self.session_id[request]
        if self.units is not None:
            sequence.units, sequence.unit_tokens = self.units[request], self.unit_tokens
            if self.context_units is not None:
                sequence.context_units = self.context_units[request]
        number = 0 if self.group_of is None else self.group_of[request]
        members = self.members[number]
        chosen = members[self.routers[number].choose(sequence, members)] if len(members) > 1 else members[0]
        if not chosen.admission.admits(sequence, chosen):
            self._reject(request)
            return False
        self.log.replica[request] = chosen.index
        chosen.arrive(sequence)
        if self.patience_s is not None and self.patience_s[request] != float("inf"):
            self._hurry(request, sequence)
        return True

    def _hurry(self, request: int, sequence: inflight.Sequence) -> None:
        """The client leaves when its patience ends, unless it has its answer by then."""

        def leave(_event: Event) -> None:
            if self.log.status[request] == UNFINISHED:
                self.replicas[self.log.replica[request]].cancel(sequence)

        assert self.patience_s is not None
        alarm = self.clock.alarm(self.clock.now + self.patience_s[request], URGENT)
        assert alarm.callbacks is not None
        alarm.callbacks.append(leave)

    def _reject(self, request: int) -> None:
        self.log.status[request] = REJECTED
        self.answers.pop(request, None)
        if self.on_done is not None:
            self.on_done(request)

    def _on_done(self, request: int) -> None:
        if self.answers and (answered := self.answers.pop(request, None)) is not None:
            answered.succeed()
        self.done += 1
        if self.progress is not None and self.done % PROGRESS_EVERY == 0:
            self.progress(
                Underway(self.done, self.count, self.clock.now, self.arrived_s, self.output_tokens, self.log)
            )

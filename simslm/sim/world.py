"""The simulated world: arrivals, a router, replicas, one clock."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from simpy.events import Event

from simslm.cost.model import CostModel
from simslm.policies.plan import BatchingPolicy
from simslm.policies.route import Router
from simslm.sim.clock import URGENT, Clock
from simslm.sim.log import REJECTED, RequestLog, SimulationLog
from simslm.sim.replica import UNBOUNDED, EngineConfig, Replica
from simslm.sim.sequence import Sequence

PROGRESS_EVERY = 1024
"""Requests done between two calls of a progress callback."""


class Requests(Protocol):
    """The workload, one entry per request, in order of arrival; closed-loop clients set ``closed_loop``."""

    @property
    def arrival_s(self) -> np.ndarray: ...
    @property
    def prompt_tokens(self) -> np.ndarray: ...
    @property
    def output_tokens(self) -> np.ndarray: ...
    @property
    def max_tokens(self) -> np.ndarray: ...
    @property
    def closed_loop(self) -> ClosedLoop | None: ...


class ClosedLoop(Protocol):
    """Clients that each send the next request when the last is answered, ``think_time_s`` later, while
    there are requests and it is not yet ``until_s``."""

    @property
    def concurrency(self) -> int: ...
    @property
    def think_time_s(self) -> float: ...
    @property
    def until_s(self) -> float | None: ...


@dataclass(frozen=True, slots=True)
class Deployment:
    """Replicas of one engine, each on a device of its own, behind one router.

    ``batching`` and ``router`` make fresh policies, so that two runs share no state.
    """

    engine: EngineConfig
    replicas: int
    cost: CostModel
    batching: Callable[[], BatchingPolicy]
    router: Callable[[], Router]
    max_model_len: int


Progress = Callable[[int, int, float], None]
"""Called with requests done, requests in all, and the simulated time in seconds."""


def run(
    requests: Requests, deployment: Deployment, *, jump: bool = True, progress: Progress | None = None
) -> SimulationLog:
    """Simulates a workload until its last request is done.

    Args:
        requests: the workload.
        deployment: what serves it.
        jump: take iterations in which nothing can change in one step; False steps through each, to the same bits.
        progress: see :data:`Progress`.

    Returns:
        The log; after a KeyboardInterrupt it holds what had happened and says ``interrupted``.
    """
    world = _World(requests, deployment, UNBOUNDED if jump else 1, progress)
    interrupted = False
    try:
        world.clock.run()
    except KeyboardInterrupt:
        interrupted = True
    return SimulationLog(
        np.array(world.arrived_s),
        world.log,
        tuple(replica.log for replica in world.replicas),
        next(world.clock._eid),
        interrupted,
    )


@dataclass
class _World:
    requests: Requests
    deployment: Deployment
    most_iterations: int
    progress: Progress | None
    clock: Clock = field(default_factory=Clock)
    answers: dict[int, Event] = field(default_factory=dict)
    done: int = 0
    sent: int = 0

    def __post_init__(self) -> None:
        count = len(self.requests.prompt_tokens)
        self.log = RequestLog(count)
        self.prompt_tokens: list[int] = self.requests.prompt_tokens.tolist()
        self.output_tokens: list[int] = self.requests.output_tokens.tolist()
        self.max_tokens: list[int] = self.requests.max_tokens.tolist()
        self.arrived_s: list[float] = [float("nan")] * count
        self.router = self.deployment.router()
        self.replicas = [self._replica(index) for index in range(self.deployment.replicas)]
        loop = self.requests.closed_loop
        if loop is None:
            self.clock.process(self._arrivals())
        else:
            for _ in range(min(loop.concurrency, count)):
                self.clock.process(self._client(loop))

    def _replica(self, index: int) -> Replica:
        deployment = self.deployment
        replica = Replica(
            index,
            self.clock,
            deployment.engine,
            deployment.cost,
            deployment.batching(),
            self.output_tokens,
            self.log,
            self._on_finish,
            self.most_iterations,
        )
        self.clock.process(replica.run())
        return replica

    def _arrivals(self) -> Generator[Event, None, None]:
        """Open loop: requests arrive at their times, whatever has become of the others."""
        clock = self.clock
        for request, time in enumerate(self.requests.arrival_s.tolist()):
            if time > clock.now:
                yield clock.alarm(time, URGENT)
            self._send(request)

    def _client(self, loop: ClosedLoop) -> Generator[Event, None, None]:
        """Closed loop: one client sends, waits for the last token, thinks, and sends again."""
        until = float("inf") if loop.until_s is None else loop.until_s
        while self.sent < len(self.prompt_tokens) and self.clock.now < until:
            request = self.sent
            self.sent += 1
            answered = Event(self.clock)
            self.answers[request] = answered
            if self._send(request):
                yield answered
            if loop.think_time_s:
                yield self.clock.alarm(self.clock.now + loop.think_time_s, URGENT)

    def _send(self, request: int) -> bool:
        """Routes one request; False when it can never be served and was rejected."""
        now = self.arrived_s[request] = self.clock.now
        prompt, output = self.prompt_tokens[request], self.output_tokens[request]
        if not self._fits(prompt, output):
            self.log.status[request] = REJECTED
            self._count()
            return False
        blocks = self.replicas[0].pool.blocks(prompt)
        sequence = Sequence(request, now, prompt, self.max_tokens[request], prompt, prompt, blocks)
        chosen = self.router.choose(sequence, self.replicas)
        self.log.replica[request] = chosen
        self.replicas[chosen].arrive(sequence)
        return True

    def _fits(self, prompt: int, output: int) -> bool:
        """Whether a request can be served at all: context, KV blocks and, for unsplit prompts, token budget."""
        replica = self.replicas[0]
        whole = replica.batching.whole_prompts
        return (
            prompt + output <= self.deployment.max_model_len
            and replica.pool.blocks(prompt + output - 1) <= replica.pool.num_blocks
            and not (whole and prompt > replica.max_num_batched_tokens)
        )

    def _on_finish(self, request: int) -> None:
        self._count()
        answered = self.answers.pop(request, None)
        if answered is not None:
            answered.succeed()

    def _count(self) -> None:
        self.done += 1
        if self.progress is not None and self.done % PROGRESS_EVERY == 0:
            self.progress(self.done, len(self.prompt_tokens), self.clock.now)

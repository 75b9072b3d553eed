"""What policies of the control plane see of a group of replicas: frozen, taken at one instant between two events."""

from __future__ import annotations

from dataclasses import dataclass

STATES = ("starting", "serving", "draining", "asleep", "failed", "gone")
"""What a replica may be.

``starting`` is on its way to serve; ``serving`` gets requests; ``draining`` finishes those it has and gets no more;
``asleep`` holds its device and no request; ``failed`` is being repaired; ``gone`` has given its device back.
"""

STARTING, SERVING, DRAINING, ASLEEP, FAILED, GONE = STATES


@dataclass(frozen=True, slots=True)
class RequestView:
    """A request of a replica that can be moved; how long its output will be is not known.

    Attributes:
        request_id: its number.
        tokens: of its prompt and its output so far.
        blocks: KV blocks it holds; 0 while it waits.
        priority: the lower, the sooner.
        running: whether it decodes; else it waits, with nothing computed.
    """

    request_id: int
    tokens: int
    blocks: int
    priority: int
    running: bool


@dataclass(frozen=True, slots=True)
class MemberView:
    """A replica of a group.

    Attributes:
        replica: its number.
        state: one of :data:`STATES`.
        outstanding: its requests, waiting or running.
        queued: those of them that wait.
        running: those of them that run.
        free_blocks, num_blocks: KV blocks that no request holds, and all of them.
        block_size: tokens in a block.
        wanted_blocks: blocks that the first waiting request needs; 0 where none waits.
        requests: those that can be moved, in order of their numbers; empty for policies that move none.
    """

    replica: int
    state: str
    outstanding: int
    queued: int
    running: int
    free_blocks: int
    num_blocks: int
    block_size: int
    wanted_blocks: int
    requests: tuple[RequestView, ...] = ()

    @property
    def kv_utilization(self) -> float:
        """Share of the KV blocks in use, 0 to 1."""
        return 1 - self.free_blocks / self.num_blocks


@dataclass(frozen=True, slots=True)
class GroupView:
    """A group of replicas.

    Attributes:
        now_s: the time, seconds.
        members: all replicas that the group may ever have.
        held: requests that wait because no replica serves.
    """

    now_s: float
    members: tuple[MemberView, ...]
    held: int

    def of(self, *states: str) -> tuple[MemberView, ...]:
        """The replicas in some states."""
        return tuple(member for member in self.members if member.state in states)

    @property
    def coming(self) -> int:
        """Replicas that serve, or will without another order: those that start or are being repaired count."""
        return len(self.of(SERVING, STARTING, FAILED))

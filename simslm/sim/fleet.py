"""The fleet: the replicas of all groups, which of them serve, and where requests go.

All replicas that a group may ever have are there from the beginning, and keep their numbers. Only the fleet changes
who serves; routers see those that do. Where none does, requests wait here, in order of arrival.

Invariants: a request that has arrived is at one replica, waits here, or is done; a replica that does not serve gets no
request but one whose blocks were under way to it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from simpy.events import Event

from simslm.policies.fleet import DRAINING, FAILED, GONE, SERVING, STARTING
from simslm.policies.route import Router
from simslm.sim import log as codes
from simslm.sim.clock import Clock
from simslm.sim.device import OwnDevice, SharedDevice
from simslm.sim.log import Life, Move, RequestLog, Window
from simslm.sim.partition import Partitioner
from simslm.sim.parts.membership import Membership, membership_of
from simslm.sim.phases import Phases, Stores, partitioners, role_of
from simslm.sim.replica import Replica
from simslm.sim.rows import RequestRows
from simslm.sim.setup import Setup
from simslm.sim.state import sequence as inflight

if TYPE_CHECKING:
    from simslm.sim.deployment import Deployment

NOWHERE = -1
"""The number of the replica of a request that waits in the fleet."""


class Held(NamedTuple):
    """A sequence that waits because no replica of its group serves.

    Attributes:
        sequence: that waits.
        source: the replica that prefilled it and still holds its blocks; None where nothing of it is anywhere.
        let_in: whether it has passed admission.
    """

    sequence: inflight.Sequence
    source: Replica | None
    let_in: bool


@dataclass(slots=True)
class Member:
    """A replica in the fleet.

    Attributes:
        replica: the replica.
        group: its group's number.
        state: one of :data:`~simslm.policies.fleet.STATES`.
        since_s: when it came to be that.
        afterwards, keep_cache: what it becomes when it has drained, and whether with what it has cached.
        order: counts its changes, so that an order that has been overtaken is known as one.
        lives: what it was before.
    """

    replica: Replica
    group: int
    state: str = SERVING
    since_s: float = 0.0
    afterwards: str = GONE
    keep_cache: bool = False
    order: int = 0
    lives: list[Life] = field(default_factory=list[Life])

    @property
    def membership(self) -> Membership:
        """Its part of that name."""
        return membership_of(self.replica)


@dataclass(slots=True)
class Team:
    """The replicas of a group.

    Attributes:
        members: all of them.
        serving: those that serve, in order of their numbers.
        router: chooses among these.
        held: sequences that wait for one of them.
        waits: whether they wait; else they are rejected.
    """

    members: list[Member]
    serving: list[Replica]
    router: Router
    held: deque[Held] = field(default_factory=deque[Held])
    waits: bool = True


class Fleet:
    """Makes the replicas of a deployment, sends them requests, and carries out orders about them.

    Args:
        clock: the simulation's clock.
        deployment: the groups.
        rows: of the requests.
        on_done: called with a request's row when it is done, if anything waits for that.
        most_iterations: longest jump of a replica.
        on_window: takes the log of a replica whenever it is full.

    Attributes:
        replicas: all of them, by number.
        teams: by group.
        moves: every time a sequence went to another replica, in order, since some were let go.
        migrating: sequences whose blocks are being copied to another replica while they go on.
        moved: how many of each kind, also of those that were let go.
        faulted: how often a fault took what a request had computed (``lost_work``), and the request (``killed``).
    """

    def __init__(
        self,
        clock: Clock,
        deployment: Deployment,
        rows: RequestRows,
        *,
        on_done: Callable[[int], None] | None,
        most_iterations: int,
        on_window: Callable[[int, Window], None] | None,
    ) -> None:
        self.clock = clock
        self.replicas: list[Replica] = []
        self.teams: list[Team] = []
        self.moves: list[Move] = []
        self.migrating: set[inflight.Sequence] = set()
        self.moved: Counter[str] = Counter()
        self.faulted: Counter[str] = Counter()
        self._rows, self._on_done = rows, on_done
        self._deploy(deployment, most_iterations, on_window)
        self.members = [member for team in self.teams for member in team.members]
        self.phases: Phases | None = None
        self.partitioners: dict[int, Partitioner] = {}
        if any(group.role != "both" for group in deployment.groups):
            self._connect(deployment)

    @property
    def _log(self) -> RequestLog:
        return self._rows.log

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
        stores = Stores()
        for number, group in enumerate(deployment.groups):
            members: list[Member] = []
            for place, device in enumerate(group.devices):
                setup = Setup(
                    index=len(self.replicas),
                    clock=self.clock,
                    device=shared.get(device) or OwnDevice(self.clock),
                    engine=group.engine,
                    cost=group.cost,
                    demand=group.demand,
                    policies=group.policies(),
                    output_tokens=self._rows.output_tokens,
                    requests=self._rows.log,
                    on_done=self._on_done,
                    most_iterations=most_iterations,
                    on_window=on_window,
                    role=group.role,
                    store=stores.of(group, number, place),
                    control=deployment.control(number),
                )
                replica = Replica(setup)
                self.clock.live(replica.run())
                self.replicas.append(replica)
                members.append(Member(replica, number))
            serving = [member.replica for member in members]
            self.teams.append(Team(members, serving, group.router(), waits=group.waits))

    def _connect(self, deployment: Deployment) -> None:
        """Replicas of one phase find those of the other, and the split of their devices its partitioner."""
        self.phases = Phases(self, deployment.groups)
        if deployment.partition is not None:
            devices = [device for group in deployment.groups for device in group.devices]
            slos = deployment.ttft_slo_s, deployment.tpot_slo_s
            self.partitioners = partitioners(self.clock, self.replicas, devices, deployment.partition, slos)

    # ---- requests --------------------------------------------------------------------------------------------

    def send(self, sequence: inflight.Sequence, group: int) -> bool:
        """A request that has just arrived goes to a replica of its group; False when it is not let in."""
        team = self.teams[group]
        serving = team.serving
        if not serving:
            if team.waits:
                team.held.append(Held(sequence, None, False))
            return team.waits
        chosen = serving[team.router.choose(sequence, serving)] if len(serving) > 1 else serving[0]
        if not chosen.admission.admits(sequence, chosen):
            return False
        self._log.replica[sequence.row] = chosen.index
        chosen.arrive(sequence)
        return True

    def cancel(self, sequence: inflight.Sequence) -> None:
        """The client of a request that is not done has gone."""
        index = self._log.replica[sequence.row]
        if index == NOWHERE:
            self._drop(sequence)
            return
        self.replicas[index].cancel(sequence)
        if self.members[index].state == DRAINING:
            self.members[index].membership.settle()

    def choose(self, group: int, sequence: inflight.Sequence, near: Replica | None) -> Replica | None:
        """A replica of the group for a sequence that comes from another: one on the same blocks, where there is one.

        None where none serves.
        """
        team = self.teams[group]
        serving = team.serving
        if near is not None:
            serving = [each for each in serving if each.store is near.store] or serving
        if len(serving) > 1:
            return serving[team.router.choose(sequence, serving)]
        return serving[0] if serving else None

    def recompute(self, sequence: inflight.Sequence, kind: str) -> None:
        """A sequence of which nothing is left but its text goes to a replica of its group, or waits for one."""
        group, left = sequence.group, self._log.replica[sequence.row]
        target = self.choose(group, sequence, None if left == NOWHERE else self.replicas[left])
        self.note(sequence, target, kind)
        if target is not None:
            target.arrive(sequence)
        elif self.teams[group].waits:
            self.teams[group].held.append(Held(sequence, None, True))
        else:
            self._kill(sequence)

    def hold(self, group: int, sequence: inflight.Sequence, source: Replica) -> None:
        """A sequence that has been prefilled waits for a replica that decodes; its blocks stay where they are."""
        self.teams[group].held.append(Held(sequence, source, True))

    def note(self, sequence: inflight.Sequence, target: Replica | None, kind: str) -> None:
        """A sequence leaves where it was, a replica or the fleet's queue, for a replica, or (None) for the queue."""
        source, index = self._log.replica[sequence.row], NOWHERE if target is None else target.index
        if source == index:
            return
        self._log.replica[sequence.row] = index
        self.moved_on(sequence, source, kind)

    def moved_on(self, sequence: inflight.Sequence, source: int, kind: str) -> None:
        """A request has gone from a replica, by number, to the one that it is on now; or from, or to, the queue."""
        target = self._log.replica[sequence.row]
        self.moves.append(Move(sequence.request_id, source, target, self.clock.now, kind))
        self.moved[kind] += 1

    def let_go_of_moves(self) -> tuple[Move, ...]:
        """The moves so far, which are forgotten."""
        moves = tuple(self.moves)
        self.moves.clear()
        return moves

    @property
    def holds(self) -> int:
        """Requests that wait because no replica of their group serves."""
        return sum(len(team.held) for team in self.teams)

    @property
    def over(self) -> bool:
        """Whether nothing is left to do but for the control plane: no request comes, none runs, none waits."""
        return not self.holds and not self.clock.busy()

    def _release(self, team: Team) -> None:
        """A replica serves again: what waited for one goes on, in order."""
        waiting, team.held = team.held, deque()
        for held in waiting:
            sequence = held.sequence
            if held.source is not None:
                assert self.phases is not None
                self.phases.hand_over(self.teams.index(team), sequence, held.source)
            elif held.let_in:
                self.recompute(sequence, "held")
            elif self.send(sequence, sequence.group):
                self.moved_on(sequence, NOWHERE, "held")
            else:
                self._log.status[sequence.row] = codes.REJECTED
                self._done(sequence.row)

    def _drop(self, sequence: inflight.Sequence) -> None:
        """The client of a request that waits here has gone."""
        for team in self.teams:
            for held in team.held:
                if held.sequence is sequence:
                    team.held.remove(held)
                    self._let_go(held)
                    self._fail(sequence)
                    return

    def _let_go(self, held: Held) -> None:
        if held.source is not None:
            role_of(held.source).let_go(held.sequence, held.source.held_blocks(held.sequence))

    def _kill(self, sequence: inflight.Sequence) -> None:
        """A request fails because its replica has, and not because its client left."""
        self.faulted["killed"] += 1
        self._fail(sequence)

    def _fail(self, sequence: inflight.Sequence) -> None:
        self._log.status[sequence.row] = codes.FAILED
        self._done(sequence.row)

    def _done(self, row: int) -> None:
        if self._on_done is not None:
            self._on_done(row)

    # ---- orders ----------------------------------------------------------------------------------------------

    def begin(self, member: Member, state: str) -> None:
        """What a member is at the beginning, if it does not serve."""
        member.state = state
        self._count(member)

    def start(self, member: Member, after_s: float) -> None:
        """A replica that is gone or asleep will serve in so many seconds."""
        self._turn(member, STARTING)
        self._later(member, after_s)

    def stop(self, member: Member) -> None:
        """A replica that starts is given up."""
        self._turn(member, GONE)

    def drain(self, member: Member, afterwards: str, *, keep_cache: bool = False) -> None:
        """A replica that serves gets no more requests, and is gone or asleep when it has none.

        Args:
            member: that serves.
            afterwards: what it becomes.
            keep_cache: it keeps what it has cached for later requests.
        """
        member.afterwards, member.keep_cache = afterwards, keep_cache
        self._turn(member, DRAINING)
        member.membership.on_empty = lambda: self._drained(member)
        member.membership.settle()

    def take_back(self, member: Member) -> None:
        """A replica that drains serves again."""
        member.membership.on_empty = None
        self._serve(member)

    def fail(self, member: Member, down_s: float, *, recompute: bool) -> None:
        """A replica fails when its iteration is over, and serves (or goes on to leave) when it has been repaired.

        Args:
            member: that serves or drains.
            down_s: until then, seconds.
            recompute: its requests are computed again elsewhere; else they fail.
        """
        member.membership.between(lambda: self._failed(member, down_s, recompute))

    def _failed(self, member: Member, down_s: float, recompute: bool) -> None:
        if member.state not in (SERVING, DRAINING):
            return
        leaving, membership, source = member.state == DRAINING, member.membership, member.replica
        self._turn(member, FAILED)
        membership.on_empty = None
        if membership.transit is not None:
            membership.transit.turned_away = lambda sequence: self._turned_away(member, sequence, recompute)
        referred: list[tuple[inflight.Sequence, Replica]] = []
        role, gone = role_of(source), membership.evacuate()
        if role is not None and source.prefills:
            gone += self._lose(role)
        elif role is not None:
            referred = role.refer()
        membership.forget()
        for sequence in gone:
            self._displace(sequence, recompute)
        for sequence, holder in referred:
            assert self.phases is not None
            self.phases.hand_over(member.group, sequence, holder)
        self._later(member, down_s, GONE if leaving else SERVING)

    def _lose(self, role: object) -> list[inflight.Sequence]:
        """The sequences whose blocks a prefill replica held for others; it has failed."""
        lost: list[inflight.Sequence] = []
        for replica in self.replicas:
            other = role_of(replica)
            if other is not None and not replica.prefills:
                lost += other.lose(role)
        for team in self.teams:
            for held in list(team.held):
                if held.source is not None and role_of(held.source) is role:
                    team.held.remove(held)
                    held.sequence.lost = held.sequence.prefill_tokens
                    self._let_go(held)
                    lost.append(held.sequence)
        return sorted(lost, key=lambda sequence: sequence.request_id)

    def _turned_away(self, member: Member, sequence: inflight.Sequence, recompute: bool) -> None:
        member.membership.turn_away(sequence)
        self._displace(sequence, recompute)

    def _displace(self, sequence: inflight.Sequence, recompute: bool) -> None:
        """A sequence has lost its replica; what was computed and not yet out, or would be read again, is lost."""
        if sequence.lost:
            self._log.preemptions[sequence.row] += 1
            self.faulted["lost_work"] += 1
        if recompute:
            self.recompute(sequence, "failure")
        else:
            self._kill(sequence)

    def _later(self, member: Member, after_s: float, then: str = SERVING) -> None:
        """A replica serves, or is gone, in so many seconds, if no other order comes before."""
        order = member.order

        def ready(_event: Event) -> None:
            if member.order != order or self.over:
                return
            if then == SERVING:
                self._serve(member)
            else:
                self._turn(member, then)

        self.clock.background(self.clock.now + after_s, ready)

    def _serve(self, member: Member) -> None:
        transit = member.membership.transit
        if transit is not None:
            transit.turned_away = None
        self._turn(member, SERVING)
        self._release(self.teams[member.group])

    def _drained(self, member: Member) -> None:
        membership = member.membership
        membership.on_empty = None
        if not member.keep_cache:
            membership.forget()
        self._turn(member, member.afterwards)

    def _turn(self, member: Member, state: str) -> None:
        """A member becomes something else."""
        now = self.clock.now
        member.lives.append(Life(member.replica.index, member.state, member.since_s, now))
        member.state, member.since_s = state, now
        member.order += 1
        self._count(member)

    def _count(self, member: Member) -> None:
        team = self.teams[member.group]
        team.serving = [each.replica for each in team.members if each.state == SERVING]

    def lives(self) -> tuple[Life, ...]:
        """What each replica was from when to when, in order."""
        return tuple(
            life
            for member in self.members
            for life in (
                *member.lives,
                Life(member.replica.index, member.state, member.since_s, float("inf")),
            )
        )

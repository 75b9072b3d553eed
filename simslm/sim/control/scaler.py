"""Scaling: replicas of a group start, wake and drain as its policy says."""

from __future__ import annotations

from collections.abc import Iterator

from simslm.errors import SimslmError
from simslm.policies.fleet import ASLEEP, DRAINING, GONE, SERVING, STARTING
from simslm.sim.control.seen import seen_of
from simslm.sim.control.spec import Scaling
from simslm.sim.fleet import Fleet, Member

MOST_LOOKS = 100_000
"""Looks at requests that wait, while nothing else happens and no replica is asked for, before that is an error."""


class Scaler:
    """Scales a group.

    Args:
        fleet: of its replicas.
        group: by number.
        spec: what it is set to.
    """

    def __init__(self, fleet: Fleet, group: int, spec: Scaling) -> None:
        self._fleet, self._group, self._spec = fleet, group, spec
        self._members = fleet.teams[group].members
        self._policy = spec.policy()
        self._idle_looks = 0
        for member in self._members[spec.initial_replicas :]:
            fleet.begin(member, GONE)

    def look(self) -> None:
        """Asks how many replicas should serve, and gives the orders that lead there."""
        spec, seen = self._spec, seen_of(self._fleet, self._group)
        wanted = min(max(self._policy.wanted(seen), spec.min_replicas), spec.max_replicas)
        if wanted > seen.coming:
            for _, member in zip(range(wanted - seen.coming), self._more(), strict=False):
                self._call(member)
        for _, member in zip(range(seen.coming - wanted), self._fewer(), strict=False):
            if member.state == STARTING:
                self._fleet.stop(member)
            else:
                self._fleet.drain(member, ASLEEP if spec.sleeps else GONE, keep_cache=spec.keep_cache)

        self._check(wanted)

    def _check(self, wanted: int) -> None:
        """Requests do not wait for ever.

        Raises:
            SimslmError: nothing happens but that the policy asks for no replica, again and again.
        """
        waits = self._fleet.teams[self._group].held and not wanted and not self._fleet.clock.busy()
        self._idle_looks = self._idle_looks + 1 if waits else 0
        if self._idle_looks == MOST_LOOKS:
            raise SimslmError(
                f"{self._fleet.holds} requests wait, no replica serves, and the scaling policy has asked for none "
                f"{MOST_LOOKS:,} times",
                remedy="raise scaling.min_replicas, or choose a policy that starts replicas for requests that wait",
            )

    def _more(self) -> Iterator[Member]:
        """Who may come to serve, the quickest first."""
        for state in (DRAINING, ASLEEP, GONE):
            yield from [member for member in self._members if member.state == state]

    def _call(self, member: Member) -> None:
        if member.state == DRAINING:
            self._fleet.take_back(member)
        else:
            self._fleet.start(member, self._spec.wake_s if member.state == ASLEEP else self._spec.start_s)

    def _fewer(self) -> Iterator[Member]:
        """Who may be let go: the last that starts, then who has the fewest requests, of equals the last."""
        yield from [member for member in reversed(self._members) if member.state == STARTING]
        serving = [member for member in reversed(self._members) if member.state == SERVING]
        yield from sorted(serving, key=lambda member: member.replica.outstanding)

"""What a request goes through beside replicas: the gateway, the choice of a group, the verdict on an answer.

A request that is escalated is served anew, from its prompt, by another group. It keeps its row and its number: it
counts once, its times are from its first arrival to the last token of the answer that goes out, and its energy,
preemptions and cached tokens are those of all groups that served it.

Invariants: a request is in one place: held here, or on a replica; a group serves it once at most; it is over once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import nan

from simpy.events import Event

from simslm.policies.gateway import Answer, GatewayPolicy
from simslm.policies.group_routing import GroupAnswer
from simslm.sim.clock import URGENT, Clock
from simslm.sim.fleet import NOWHERE, Fleet
from simslm.sim.group_routing import GroupChoice
from simslm.sim.log import FAILED, FINISHED, UNFINISHED, GroupCounts
from simslm.sim.rows import RequestRows
from simslm.sim.state.sequence import Sequence as InFlight


@dataclass(slots=True)
class _Earlier:
    """What is to be said of a request beside what happens to it at the last group: its groups, and what they noted."""

    groups: list[int] = field(default_factory=list[int])
    first_scheduled_s: float = nan
    cached_prompt_tokens: int = 0


class Dispatch:
    """Sends requests to groups, and hears what becomes of them.

    Args:
        clock: the simulation's clock.
        rows: of the requests.
        gateway: answers some of them, if there is one.
        done: called with the row of each request that is over, if there is one.

    Attributes:
        answered: requests that the gateway answered.
    """

    def __init__(
        self,
        clock: Clock,
        rows: RequestRows,
        *,
        gateway: GatewayPolicy | None,
        done: Callable[[int], None] | None,
    ) -> None:
        self._clock, self._rows = clock, rows
        self._gateway, self._done = gateway, done
        self._judged = frozenset[int]()
        self._held: dict[int, InFlight] = {}
        self._served: dict[int, InFlight] = {}
        self._earlier: dict[int, _Earlier] = {}
        self._let_in: dict[int, int] = {}
        self._accepted: dict[int, int] = {}
        self._passed_on: dict[int, int] = {}
        self.answered = 0

    def open(self, fleet: Fleet, choice: GroupChoice | None) -> None:
        """Requests may come: they go to the fleet, each to the group of its choice, or to the first without one."""
        self._fleet, self._choice = fleet, choice
        if choice is not None:
            self._judged = choice.judged

    @property
    def empty(self) -> bool:
        """Whether no request is under way."""
        return not self._held and not self._served

    def counts(self, names: Sequence[str]) -> tuple[GroupCounts, ...]:
        """What became of the requests of each group, by the names of all groups; nothing where none is chosen."""
        if self._choice is None:
            return ()
        counted = (self._let_in, self._accepted, self._passed_on)
        return tuple(
            GroupCounts(name, *(each.get(number, 0) for each in counted)) for number, name in enumerate(names)
        )

    # ---- a request arrives -----------------------------------------------------------------------------------

    def send(self, request: InFlight) -> bool:
        """The gateway answers it, or a group serves it; False when none can, or it is not let in."""
        answer = None if self._gateway is None else self._gateway.answer(request)
        if answer is not None:
            self._answer(request, answer)
            return True
        if not self._rows.servable[request.row]:
            return False
        return self._give(request, 0 if self._choice is None else self._choice.choose(request))

    def _give(self, request: InFlight, group: int) -> bool:
        request.group = group
        if not self._fleet.send(request, group):
            return False
        self._served[request.row] = request
        _count(self._let_in, group)
        return True

    def _answer(self, request: InFlight, answer: Answer) -> None:
        """The gateway's tokens go out; no replica hears of the request."""
        first_s = self._clock.now + answer.latency_s
        others = self._rows.output_tokens[request.row] - 1
        pace = answer.tokens_per_s

        def out() -> None:
            self._rows.log.first_token_s[request.row] = first_s
            self._end(request.row, FINISHED)
            self.answered += 1
            self._tell(request.row)

        self._hold(request, first_s if pace is None else first_s + others / pace, out)

    def _hold(self, request: InFlight, until_s: float, then: Callable[[], None]) -> None:
        """A request waits here, on no replica; a client that leaves meanwhile takes it away."""
        self._held[request.row] = request

        def go_on(_event: Event) -> None:
            if self._held.get(request.row) is request:
                del self._held[request.row]
                then()

        self._clock.alarm(until_s, URGENT, go_on)

    # ---- it is over, or not yet --------------------------------------------------------------------------------

    def leaves(self, request: InFlight) -> InFlight | None:
        """The client of a request goes; returns the sequence on a replica that has to go, if there is one."""
        row = request.row
        if row in self._served:
            return self._served[row]
        del self._held[row]
        self._end(row, FAILED)
        self._tell(row)
        return None

    def done(self, row: int) -> None:
        """A replica is done with a request: its last token is computed, or its client has gone."""
        request, log = self._served.pop(row), self._rows.log
        judged = request.group in self._judged
        if log.status[row] != FINISHED:
            if judged:
                log.first_token_s[row] = nan  # the client never saw it
            self._restore(row)
            self._tell(row)
        elif judged:
            self._judge(request)
        else:
            self._accept(request)

    def _judge(self, request: InFlight) -> None:
        """The verdict on an answer, which is held back until then."""
        assert self._choice is not None
        row, log = request.row, self._rows.log
        answer = GroupAnswer(request.group, self._rows.output_tokens[row], self._clock.now)
        tried = [*self._earlier[row].groups, request.group] if row in self._earlier else [request.group]
        target, after_s = self._choice.escalate(request, answer, tried), self._choice.verdict_s
        if target is None and not after_s:
            self._release(request)
            return
        log.status[row], log.first_token_s[row], log.finish_s[row] = UNFINISHED, nan, nan
        then = self._release if target is None else partial(self._escalate, target=target)
        self._hold(request, self._clock.now + after_s, partial(then, request))

    def _release(self, request: InFlight) -> None:
        """An answer that was held back goes out, whole."""
        self._end(request.row, FINISHED)
        self._rows.log.first_token_s[request.row] = self._clock.now
        self._accept(request)

    def _escalate(self, request: InFlight, target: int) -> None:
        """Another group serves a request anew; where that does not let it in, the answer at hand goes out."""
        row, log = request.row, self._rows.log
        source, noted = log.replica[row], (log.first_scheduled_s[row], log.cached_prompt_tokens[row])
        log.replica[row] = NOWHERE
        log.first_scheduled_s[row], log.cached_prompt_tokens[row] = nan, 0
        again = InFlight(request.request_id, self._clock.now, request.prompt_tokens, request.max_tokens, row)
        if self._rows.described:
            self._rows.describe(again)
        if not self._give(again, target):
            log.replica[row] = source
            log.first_scheduled_s[row], log.cached_prompt_tokens[row] = noted
            self._release(request)
            return
        earlier = self._earlier.setdefault(row, _Earlier(first_scheduled_s=noted[0]))
        earlier.groups.append(request.group)
        earlier.cached_prompt_tokens += noted[1]
        log.escalations[row] += 1
        _count(self._passed_on, request.group)
        self._fleet.moved_on(again, source, "escalation")

    def _accept(self, request: InFlight) -> None:
        """The answer of a replica has gone out."""
        self._restore(request.row)
        _count(self._accepted, request.group)
        if self._gateway is not None:
            self._gateway.finished(request, self._clock.now)
        self._tell(request.row)

    def _end(self, row: int, status: int) -> None:
        log = self._rows.log
        log.status[row] = status
        if status == FINISHED:
            log.finish_s[row] = self._clock.now
        self._restore(row)

    def _restore(self, row: int) -> None:
        """What earlier groups noted of a request is said of it again."""
        earlier, log = self._earlier.pop(row, None), self._rows.log
        if earlier is not None:
            log.first_scheduled_s[row] = earlier.first_scheduled_s
            log.cached_prompt_tokens[row] += earlier.cached_prompt_tokens

    def _tell(self, row: int) -> None:
        if self._done is not None:
            self._done(row)

    def close(self) -> None:
        """The run is over, perhaps early: what is said of requests under way is what their clients saw."""
        for row, request in self._served.items():
            if request.group in self._judged:
                self._rows.log.first_token_s[row] = nan
        for row in tuple(self._earlier):
            self._restore(row)


def _count(counts: dict[int, int], group: int) -> None:
    counts[group] = counts.get(group, 0) + 1

"""The loop: form a batch, run it, apply it, and between two iterations look for arrivals.

Arrivals are polled, not heard by a thread of their own. A request cannot join a batch while an iteration runs, so
a thread would gain nothing, and it would take the interpreter from the loop at moments of its own choosing: what is
measured here is what one iteration costs. A request counts as arrived when it was due, whenever it is seen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Many

from profiler.engine.batch import Chunk
from profiler.measure.timing import Timing
from profiler.serving.clock import Clock
from profiler.serving.log import Log, Served
from profiler.serving.replica import Replica
from profiler.serving.sequence import Sequence
from simslm.policies.plan import Plan

Run = Callable[[Many[Chunk]], tuple[list[int], Timing]]
"""Runs one iteration: the next token of every chunk, and how long it took."""


class Loop:
    """Serves one workload.

    Args:
        replica: requests that wait and that run.
        run: the engine.
        clock: the time that arrivals and tokens have.
        sequences: the workload, in order of arrival.
    """

    def __init__(self, replica: Replica, run: Run, clock: Clock, sequences: Iterable[Sequence] = ()) -> None:
        self.replica, self.clock, self.log = replica, clock, Log()
        self._run = run
        self._sequences = list(sequences)
        self._due = deque(self._sequences)

    def serve(self, stopping: Callable[[], bool] = lambda: False) -> Served:
        """Serves all to their last token.

        Args:
            stopping: asked before every iteration; once it says so, the run is abandoned.

        Raises:
            KeyboardInterrupt: it was told to stop.
        """
        while self.replica.outstanding or self._due:
            if stopping():
                raise KeyboardInterrupt
            if self.replica.outstanding:
                self.step()
            else:
                self.clock.wait_until(self._due[0].arrival_s)
                self._receive(self.clock.now())
        return self.log.served(self._sequences)

    def step(self) -> Timing:
        """One iteration, from the plan to the books; some request must wait or run."""
        replica, clock = self.replica, self.clock
        start_s = clock.now()
        plan = replica.plan()
        work = replica.begin(plan)
        _note_scheduled(plan, start_s)
        tokens, timing = self._run(work.chunks)
        now = clock.now()
        self._receive(now)
        emitted, finished = replica.apply(plan, tokens)
        self.log.tokens(emitted, now)
        for sequence in finished:
            sequence.finish_s = now
        duration_s = clock.now() - start_s
        host_s = duration_s - timing.device_s
        self.log.iteration(start_s, duration_s, host_s, work)
        return Timing(duration_s, host_s)

    def _receive(self, now: float) -> None:
        """Requests that have arrived by now find the replica as it was while the iteration ran."""
        due = self._due
        while due and due[0].arrival_s <= now:
            self.replica.arrive(due.popleft())


def _note_scheduled(plan: Plan, now: float) -> None:
    for prompt, _ in plan.chunks:
        assert isinstance(prompt, Sequence)
        if prompt.first_scheduled_s != prompt.first_scheduled_s:
            prompt.first_scheduled_s = now

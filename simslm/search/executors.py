"""Where trials run: in this process, in processes of this machine, or on a Ray cluster.

All of them give the same outcomes; only their order differs.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.connection import wait as wait_for
from typing import Any, Protocol

from simslm.errors import DeviceError, UsageError
from simslm.search.evaluation import Evaluator, Question, answer
from simslm.search.trial import Outcome, Trial
from simslm.sim.world import OnStart

PATIENCE_S = 0.2
"""How long a wait lasts before it is looked whether to go on."""

AHEAD = 4
"""Trials handed out for each worker, those under way among them."""

Obey = Callable[[], None]
"""Called between two pieces of work; raises KeyboardInterrupt to end it."""

Done = Iterator[tuple[Trial, Outcome]]


class Executor(AbstractContextManager["Executor", None], Protocol):
    """Runs trials; used as a context, in which its workers live."""

    def run(self, trials: Sequence[Trial]) -> Done:
        """The trials with their outcomes, in any order."""
        ...


def executor(name: str, question: Question, jobs: int, obey: Obey, on_start: OnStart | None) -> Executor:
    """An executor by its name.

    Args:
        name: ``local`` or ``ray``.
        question: what the trials are about.
        jobs: workers; one local worker is this process.
        obey: see :data:`Obey`.
        on_start: see :func:`simslm.api.simulate`; only where simulations run in this process.

    Raises:
        UsageError: there is none of that name, or its library is missing.
    """
    if name == "ray":
        return RayCluster(question, jobs, obey)
    if name != "local":
        raise UsageError(f"no executor {name!r}; known: local, ray")
    return InProcess(question, obey, on_start) if jobs == 1 else LocalProcesses(question, jobs, obey)


class InProcess:
    """One after the other."""

    def __init__(self, question: Question, obey: Obey, on_start: OnStart | None) -> None:
        self._evaluator = Evaluator(question)
        self._obey = obey
        self._on_start = on_start

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def run(self, trials: Sequence[Trial]) -> Done:
        for trial in trials:
            self._obey()
            yield trial, self._evaluator.evaluate(trial, self._on_start)


class LocalProcesses:
    """Fresh processes, each with what it has looked up so far; they end with this one, however that ends."""

    def __init__(self, question: Question, jobs: int, obey: Obey) -> None:
        self._question = question
        self._jobs = jobs
        self._obey = obey

    def __enter__(self) -> LocalProcesses:
        # Children of the caller, which are not to be ended with the workers.
        self._others = set(active_children())
        # Spawned, not forked: threads of numpy and pyarrow do not survive a fork.
        self._pool = ProcessPoolExecutor(self._jobs, get_context("spawn"), _settle)
        return self

    def __exit__(self, kind: object, *_error: object) -> None:
        if kind is not None:
            for process in set(active_children()) - self._others:
                process.terminate()
        self._pool.shutdown(cancel_futures=True)

    def run(self, trials: Sequence[Trial]) -> Done:
        """Raises:
        DeviceError: a worker died.
        """
        waiting, under_way = iter(trials), dict[Future[Outcome], Trial]()
        try:
            while True:
                # Not all at once: all trials of a large grid would be pickled and queued before the first is done.
                while len(under_way) < AHEAD * self._jobs and (trial := next(waiting, None)) is not None:
                    under_way[self._pool.submit(answer, self._question, trial)] = trial
                if not under_way:
                    return
                done, _ = wait(under_way, PATIENCE_S, FIRST_COMPLETED)
                for future in done:
                    yield under_way.pop(future), future.result()
                self._obey()
        except BrokenProcessPool:
            raise DeviceError(
                "a worker process died, perhaps for want of memory",
                remedy="run it again with --resume and fewer --jobs",
            ) from None


def _settle() -> None:
    """Prepares a worker: it ignores Ctrl-C, which the parent answers for the whole process group, and ends with the
    parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def follow() -> None:
        wait_for([parent.sentinel])
        # Not ``sys.exit``, which would end this thread alone while the simulation goes on.
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


class RayCluster:
    """The cluster at ``RAY_ADDRESS``, else one of this machine with ``jobs`` workers, for as long as it is used.

    On several machines simslm must be installed on each, and the scenario's traces and files lie at the same place.
    """

    def __init__(self, question: Question, jobs: int, obey: Obey) -> None:
        try:
            import ray
        except ModuleNotFoundError:
            raise UsageError(
                "--executor ray needs Ray", remedy="install it with: pip install 'simslm[ray]'"
            ) from None
        self._ray: Any = ray
        self._question = question
        self._jobs = jobs
        self._obey = obey
        self._ours = False

    def __enter__(self) -> RayCluster:
        ray = self._ray
        self._ours = not ray.is_initialized()
        if self._ours:
            elsewhere = "RAY_ADDRESS" in os.environ
            size = {} if elsewhere else {"num_cpus": self._jobs, "include_dashboard": False}
            try:
                ray.init(logging_level="ERROR", log_to_driver=False, **size)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise DeviceError(f"no Ray cluster: {error}") from None
        self._answer = ray.remote(answer)
        return self

    def __exit__(self, *_error: object) -> None:
        if self._ours:
            self._ray.shutdown()

    def run(self, trials: Sequence[Trial]) -> Done:
        ray = self._ray
        workers = max(int(ray.cluster_resources().get("CPU", self._jobs)), 1)
        waiting, under_way = iter(trials), dict[Any, Trial]()
        while True:
            while len(under_way) < AHEAD * workers and (trial := next(waiting, None)) is not None:
                under_way[self._answer.remote(self._question, trial)] = trial
            if not under_way:
                return
            done, _ = ray.wait(list(under_way), num_returns=1, timeout=PATIENCE_S)
            for reference in done:
                yield under_way.pop(reference), self._outcome(reference)
            self._obey()

    def _outcome(self, reference: Any) -> Outcome:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayError as error:
            raise DeviceError(f"a Ray worker failed: {error}", remedy="run it again with --resume") from None

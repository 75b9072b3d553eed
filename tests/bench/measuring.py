"""Running a work and timing it, with the speed of bare SimPy beside it."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import simpy
from opening import open_s
from works import Work

from simslm.api import Prepared, load_scenario, prepare
from simslm.metrics.books import Basis, Books, Forget, TableSink
from simslm.metrics.files import RunWriter
from simslm.metrics.iterations import IterationTable
from simslm.metrics.result import Result, summarize
from simslm.preparation.manifest import manifest
from simslm.report import write_report
from simslm.sim.log import Move, Settled, Window
from simslm.sim.world import run

BARE_TIMEOUTS = 300_000


@dataclass(frozen=True)
class PageFigures:
    """What the page of a work's last variant takes.

    Attributes:
        make_s: to make it of the files, in processor time.
        peak_bytes: resident memory of the process at its peak after that.
        size_bytes: of the file.
        open_s: until a browser has drawn it, on the wall; median of several, None without a browser.
    """

    make_s: float
    peak_bytes: int
    size_bytes: int
    open_s: float | None


@dataclass(frozen=True)
class Figures:
    """What a work took; times in seconds of processor time, of all its variants together.

    Other programs on the machine disturb processor time less than they do the clock on the wall.

    Attributes:
        requests: simulated.
        finished: requests that got all their tokens.
        events: that SimPy processed.
        iterations: of all replicas.
        simulate_s: the simulation alone, logs included; median of the repeats.
        bare_rate: bare SimPy timeouts per second just before and after, mean over the repeats.
        ratio: requests per second divided by bare timeouts per second; median of the repeats.
        observe_s: the same with tables, percentiles and energy made of the logs.
        write_s: the same with Parquet and JSON files written.
        peak_bytes: resident memory of the process at its peak, before the page is made.
        page: of the files, what they take as a page.
    """

    requests: int
    finished: int
    events: int
    iterations: int
    simulate_s: float
    bare_rate: float
    ratio: float
    observe_s: float
    write_s: float
    peak_bytes: int
    page: PageFigures

    @property
    def counts(self) -> dict[str, int]:
        """What depends on the scenario and its seed alone."""
        return {name: getattr(self, name) for name in ("requests", "finished", "events", "iterations")}

    @property
    def rate(self) -> float:
        """Requests per second of simulation."""
        return self.requests / self.simulate_s


def measure(work: Work) -> Figures:
    """Runs a work; to be called in a process of its own."""
    runs = [prepared(work, variant) for variant in work.variants]
    requests = sum(len(each.requests) for each in runs)
    times, rates = timed(work, runs)
    counter = Counter()
    begun = time.process_time()
    results = [observed(each, counter) for each in runs]
    observe_s = time.process_time() - begun
    write_s, peak, page = written(runs)
    return Figures(
        requests,
        sum(result.summary["requests"]["finished"] for result in results),
        sum(result.log.events for result in results),
        counter.iterations,
        median(times),
        sum(rates) / len(rates),
        median(requests / took / rate for took, rate in zip(times, rates, strict=True)),
        observe_s,
        write_s,
        peak,
        page,
    )


def timed(work: Work, runs: list[Prepared]) -> tuple[list[float], list[float]]:
    """Seconds of the simulation, and bare timeouts per second around it, for every repeat."""
    times, rates = [], []
    for _ in range(work.repeats):
        before = bare_rate()
        begun = time.process_time()
        for each in runs:
            run(each.requests, each.deployment(), sink=Nowhere() if work.full else None)
        times.append(time.process_time() - begun)
        rates.append((before + bare_rate()) / 2)
    return times, rates


class Nowhere:
    """Takes the log and drops it."""

    def take_window(self, replica: int, window: Window) -> None: ...

    def take_requests(self, settled: Settled) -> None: ...

    def take_moves(self, moves: Sequence[Move]) -> None: ...


class Counter(Forget):
    """A sink that counts iterations."""

    def __init__(self) -> None:
        self.iterations = 0

    def take(self, replica: int, window: Window, table: IterationTable) -> None:
        self.iterations += len(table)


def observed(each: Prepared, sink: TableSink) -> Result:
    basis = Basis(
        name=each.scenario.name, replicas=each.priced, requests=len(each.requests), slo={"ttft_s": 1.0}
    )
    books = Books(basis, sink)
    return summarize(books, run(each.requests, each.deployment(), sink=books))


def prepared(work: Work, variant: Any) -> Prepared:
    """A variant of a work, its arrival rate set to the work's load."""
    if work.load is None:
        return prepare(load_scenario(work.base, variant))
    at_once = observed(prepare(load_scenario(work.base, variant)), Forget())
    capacity = at_once.summary["throughput"]["requests_per_s"]
    arrivals = {"process": "poisson", "rate_rps": round(work.load * capacity, 1)}
    own = {"workload.arrivals": arrivals, "workload.num_requests": work.num_requests}
    return prepare(load_scenario(work.base, {**variant, **own}))


def written(runs: list[Prepared]) -> tuple[float, int, PageFigures]:
    """Simulating and writing everything: seconds, peak memory in bytes, and then the page of the last."""
    with tempfile.TemporaryDirectory() as directory:
        begun = time.process_time()
        for i, each in enumerate(runs):
            with RunWriter(Path(directory) / str(i)) as writer:
                result = observed(each, writer)
                result.manifest.update(manifest(each, result.log.events, False, 0.0, ""))
                writer.finish(result)
        took, peak = time.process_time() - begun, peak_bytes()
        begun = time.process_time()
        page = write_report([Path(directory) / str(len(runs) - 1)])
        make_s = time.process_time() - begun
        return took, peak, PageFigures(make_s, peak_bytes(), page.stat().st_size, open_s(page))


def bare_rate() -> float:
    """Timeouts per second of a SimPy environment in which nothing else happens."""
    environment = simpy.Environment()

    def wait() -> Any:
        for _ in range(BARE_TIMEOUTS):
            yield environment.timeout(1.0)

    environment.process(wait())
    begun = time.process_time()
    environment.run()
    return BARE_TIMEOUTS / (time.process_time() - begun)


def peak_bytes() -> int:
    """Resident memory at its peak; Linux counts it anew for every program, ``getrusage`` does not."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def help_s(times: int = 5) -> float:
    """Wall time of ``simslm --help``, median of several."""
    program = (str(Path(sys.executable).with_name("simslm")), "--help")
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        subprocess.run(program, check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - begun)
    return median(taken)

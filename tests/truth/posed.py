"""The points of a scenario's search, as runs without measurements: compared like those of a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from simslm.api import simulate
from simslm.errors import InfeasibleError, SimslmError, UsageError
from simslm.fidelity.comparison import Comparison
from simslm.fidelity.recorded import read_sources
from simslm.runs.replay import simulated
from simslm.runs.table import MeasuredRun
from simslm.scenario.load import load_scenario
from simslm.scenario.schema import Scenario
from simslm.search.space import space

ENGINE = "vllm-0.6.3-v0"
"""What the scenarios stand for."""

CHAT = "sharegpt"
"""Workload of the scenarios whose lengths are drawn."""


@dataclass(frozen=True)
class Posed:
    """A scenario and what became of its points.

    Attributes:
        path: of the scenario.
        source: ``calibrated``, ``measured``, ``imported`` or ``roofline``.
        comparisons: a run without measurements, and its simulation, for each point that can be.
        infeasible: the others, and why.
    """

    path: Path
    source: str
    comparisons: tuple[Comparison, ...]
    infeasible: tuple[tuple[str, str], ...]


def posed(paths: Iterable[Path], jobs: int) -> tuple[Posed, ...]:
    """Simulates every point of the scenarios, each under the scenario's own seed.

    Raises:
        SimslmError: a scenario is wrong, or its points cannot be simulated.
    """
    paths = tuple(paths)
    tasks = [(path, point) for path in paths for point in _points(path)]
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        answers = list(pool.map(_answer, *zip(*tasks, strict=True), chunksize=4)) if tasks else []
    found = dict.fromkeys(paths, ())
    for (path, _), answer in zip(tasks, answers, strict=True):
        found[path] += (answer,)
    return tuple(
        Posed(
            path,
            _source(load_scenario(path)),
            tuple(each for each in found[path] if isinstance(each, Comparison)),
            tuple(each for each in found[path] if not isinstance(each, Comparison)),
        )
        for path in paths
    )


def _points(path: Path) -> Iterator[Mapping[str, Any]]:
    scenario = load_scenario(path)
    if scenario.search is None:
        raise UsageError("has no search section", where=str(path))
    return space(scenario, scenario.search).grid()


def _source(scenario: Scenario) -> str:
    if scenario.cost.trace is None:
        return "roofline"
    return read_sources([scenario.base_dir / scenario.cost.trace])[0].source


def _answer(path: Path, point: Mapping[str, Any]) -> Comparison | tuple[str, str]:
    """One point simulated, or what it is and why it cannot be."""
    scenario = load_scenario(path, dict(point))
    name = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in point.items())
    try:
        result = simulate(scenario, with_intervals=False)
    except InfeasibleError as error:
        return name, str(error)
    counts, kv = result.summary["requests"], result.summary["kv"]
    if counts["finished"] < counts["arrived"]:
        raise SimslmError(
            f"{scenario.name}, {name}: not all of its {counts['arrived']} requests can be served"
        )
    run = as_run(scenario, f"{scenario.name}: {name}", kv["num_gpu_blocks"], result.request_columns)
    trace = scenario.cost.trace
    startup_s = read_sources([scenario.base_dir / trace])[0].startup_s if trace else 0.0
    found = simulated(result, run, startup_s)
    return Comparison(run, found | {"host_gap": result.summary["utilization"]["host_gap"]})


def as_run(
    scenario: Scenario, name: str, num_gpu_blocks: int, requests: Mapping[str, Sequence[float] | Any]
) -> MeasuredRun:
    """A scenario of one group and named model as a row of a table in which nothing was measured.

    Args:
        scenario: with all requests at once.
        name: of the run.
        num_gpu_blocks: of each replica.
        requests: columns ``prompt_tokens`` and ``output_tokens``, for their means.
    """
    deployment, workload = scenario.deployment, scenario.workload
    engine = deployment.engine
    mean = partial(_mean, requests)
    alike = workload.prompt_tokens.dist == workload.output_tokens.dist == "fixed"
    return MeasuredRun(
        run=name,
        model=str(scenario.model),
        device=str(scenario.device),
        engine=ENGINE,
        workload="fixed" if alike else CHAT,
        prompt_tokens=mean("prompt_tokens"),
        output_tokens=mean("output_tokens"),
        lengths_file=None,
        num_requests=len(requests["prompt_tokens"]),
        arrivals=workload.arrivals.process,
        max_num_seqs=engine.max_num_seqs,
        max_num_batched_tokens=engine.max_num_batched_tokens,
        batching=engine.batching.policy,
        replicas=deployment.replicas_per_device,
        sharing=deployment.sharing,
        num_gpu_blocks=num_gpu_blocks,
        sm_clock_mhz=None,
        measured={},
    )


def _mean(requests: Mapping[str, Any], column: str) -> float:
    return float(sum(requests[column]) / len(requests[column]))

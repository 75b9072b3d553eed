"""The files of a search: ``trials.parquet`` and ``frontier.json``, each written whole or not at all.

Neither holds a wall-clock time or the place it is written to: the same search gives the same bytes for any number of
workers, and however often it was resumed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from simslm.cost.load import flagged
from simslm.metrics.figure_paths import FIGURES
from simslm.metrics.files import write_json
from simslm.metrics.whole import write_whole
from simslm.scenario.search import Advisor
from simslm.search.advisor import advice
from simslm.search.commands import serve_commands, simulate_command
from simslm.search.frontier import Choice, Point, nearness, points, possible
from simslm.search.intervals import TEST, interval
from simslm.search.objectives import CAPACITY, SHARES, Goals, finite
from simslm.search.run_length import TIMES_IN_FLIGHT, recorded
from simslm.search.space import Parameters, overridden, plain
from simslm.search.trial import INFEASIBLE, Outcome
from simslm.traces.schema import SOURCES

if TYPE_CHECKING:
    from simslm.search.run import SearchResult

SCHEMA_VERSION = 1
OF_CAPACITY = ("value", "missed", "simulations", "short")


def write(directory: Path, result: SearchResult) -> None:
    """Writes both files; the directory is made if it is not there."""
    directory.mkdir(parents=True, exist_ok=True)
    table = trials_arrow(result)
    write_whole(directory / "trials.parquet", lambda path: pq.write_table(table, path))
    write_json(directory / "frontier.json", result.frontier)


def trials_arrow(result: SearchResult) -> pa.Table:
    """One row per trial, by number: what was simulated, every figure of its summary, the hypervolume once its point is
    known, and at the first trial of a point that can be what one does with it."""
    grown = dict(result.volume.growth) if result.volume else {}
    trials = [trial for trial, _ in result.done]
    outcomes = [outcome for _, outcome in result.done]
    base = result.scenario.seed
    columns: dict[str, pa.Array] = {
        "trial": pa.array([trial.number for trial in trials], pa.int64()),
        "point": pa.array([trial.point for trial in trials], pa.int64()),
        "seed": pa.array([_seed(trial.parameters, base, trial.replication) for trial in trials], pa.int64()),
        "share": pa.array([trial.share for trial in trials], pa.float64()),
        "requests": pa.array([outcome.requests for outcome in outcomes], pa.int64()),
        "status": pa.array([outcome.status for outcome in outcomes], pa.string()),
        "reason": pa.array([outcome.reason or None for outcome in outcomes], pa.string()),
        "hypervolume": pa.array([grown.get(trial.number) for trial in trials], pa.float64()),
    }
    for path in _space(result):
        columns[f"parameters.{path}"] = _parameter([trial.parameters.get(path) for trial in trials])
    for path in _figures(result):
        columns[path] = pa.array([outcome.values.get(path) for outcome in outcomes], pa.float64())
    uses = {point.trial: _use(result, point) for point in points(result.done) if point.outcomes}
    for name in ("command", "vllm"):
        columns[name] = pa.array([uses.get(trial.number, {}).get(name) for trial in trials], pa.string())
    scenarios = [uses[trial.number]["scenario"] if trial.number in uses else None for trial in trials]
    columns["scenario"] = pa.array([each and json.dumps(each) for each in scenarios], pa.string())
    if result.search.capacity is not None:
        for name in OF_CAPACITY:
            values = [getattr(outcome.capacity, name, None) for outcome in outcomes]
            columns[f"capacity.{name}"] = pa.array(values, pa.float64())
    return pa.table(columns)


def _figures(result: SearchResult) -> list[str]:
    """What was looked for, and every other figure that some trial has."""
    known = {path for _, outcome in result.done for path in outcome.values}
    return list(
        dict.fromkeys(
            (*result.goals.paths, *(path for path in (*FIGURES, *SHARES, CAPACITY) if path in known))
        )
    )


def _seed(parameters: Parameters, base: int, replication: int) -> int:
    return parameters.get("seed", base) + replication


def _parameter(values: Sequence[Any]) -> pa.Array:
    """A column of numbers, truths or texts; of anything else, or a mixture, as JSON."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} or len(kinds & {bool, str}) == len(kinds) == 1:
        return (
            pa.array(values, from_pandas=False) if kinds != {int, float} else pa.array(values, pa.float64())
        )
    return pa.array([None if value is None else json.dumps(value) for value in values], pa.string())


def _space(result: SearchResult) -> dict[str, Any]:
    """What varies: what the search states, and the values of further keys that its method tried."""
    stated = result.search.model_dump(mode="json")["space"]
    tried: dict[str, dict[str, Any]] = {}
    for trial, _ in result.done:
        for path, value in trial.parameters.items():
            tried.setdefault(path, {})[json.dumps(value)] = value
    return stated | {path: list(values.values()) for path, values in tried.items() if path not in stated}


def content(result: SearchResult) -> dict[str, Any]:
    """What ``frontier.json`` holds."""
    search = result.search
    known = points(result.done)
    return {
        "schema_version": SCHEMA_VERSION,
        "name": result.scenario.name,
        "interrupted": result.interrupted,
        "method": search.method.model_dump(mode="json"),
        "space": _space(result),
        "objectives": dict(search.objectives),
        "constraints": [each.text for each in result.goals.constraints],
        "bounds": [
            {"path": each.path, "sign": each.sign, "bound": each.bound, "origin": each.origin}
            for each in result.goals.constraints
        ],
        "capacity": _capacity(result, known),
        "slo": None if result.scenario.slo is None else result.scenario.slo.model_dump(mode="json"),
        "test": {
            "rule": TEST,
            "confidence": search.confidence,
            "replications": search.replications,
            "near": nearness(search),
            "margin": search.margin,
            "seedless": sum(bool(point.outcomes) and point.seedless for point in known),
            "recorded": recorded(result.scenario),
        },
        "cost": _cost([outcome for point in known for outcome in point.outcomes]),
        "flags": flagged(result.scenario),
        "counts": _counts(result, known),
        "infeasible": _reasons(result),
        "violated": _violated(result, known),
        "nearest": _nearest(result, known),
        "reference_point": None if result.volume is None else dict(result.volume.reference),
        "reference_stated": search.reference is not None,
        "hypervolume": None if result.volume is None else result.volume.total,
        "deciding": result.goals.deciding.path,
        "best": result.points[0].number if result.points else None,
        "topmost": _topmost(result),
        "points": [_point(result, each.point) | {"same": _same(each)} for each in result.choices],
        "advice": _advice(result, known),
    }


def _capacity(result: SearchResult, known: Sequence[Point]) -> dict[str, Any] | None:
    """What the search asked of each point, and what to know of the answers; None where it did not ask."""
    asked = result.search.capacity
    if asked is None:
        return None
    short = sum(
        any(each.capacity is not None and each.capacity.short for each in point.outcomes) for point in known
    )
    note = (
        f"{short} of {len(known)} capacities come from recorded requests, fewer than {TIMES_IN_FLIGHT} times those in "
        "flight at once: too few to show an overload, so that these capacities may be too high"
    )
    return {**asked.model_dump(mode="json"), "note": note if short else ""}


def _advice(result: SearchResult, known: Sequence[Point]) -> dict[str, Any] | None:
    """What the advisor says; None where it was not asked, or not all it needs was simulated."""
    method = result.search.method
    if not isinstance(method, Advisor) or result.interrupted:
        return None
    found = advice(method, result.scenario, result.goals, known)
    chosen = next((point for point in known if point.number == found["recommended"]), None)
    return found | {"recommended": None if chosen is None else _point(result, chosen)}


def _cost(outcomes: Sequence[Outcome]) -> dict[str, str] | None:
    """Of all costs the one furthest from a measurement; the whole answer is named after its source."""
    if not outcomes:
        return None
    weakest = max(outcomes, key=lambda outcome: SOURCES.index(outcome.source))
    return {"source": weakest.source, "engine": weakest.engine}


def _counts(result: SearchResult, known: Sequence[Point]) -> dict[str, int]:
    """How many points there were and what became of them, and how much work they were."""
    impossible = {trial.point for trial, outcome in result.done if outcome.status == INFEASIBLE}
    return {
        "points": len({trial.point for trial, _ in result.done}),
        "infeasible": len(impossible),
        "violating": sum(bool(point.outcomes) for point in known) - len(result.feasible),
        "feasible": len(result.feasible),
        "frontier": len(result.points),
        "trials": len(result.done),
        "requests": sum(outcome.requests for _, outcome in result.done),
    }


def _reasons(result: SearchResult) -> list[dict[str, Any]]:
    """Why points cannot be, the most frequent reason first, each with its first point."""
    bad = {trial.point: (trial, outcome) for trial, outcome in reversed(result.done) if outcome.reason}
    first = {outcome.reason: trial.parameters for _, (trial, outcome) in sorted(bad.items(), reverse=True)}
    counts = Counter(outcome.reason for _, outcome in bad.values())
    return [
        {"reason": reason, "points": count, "example": dict(first[reason])}
        for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]


def _violated(result: SearchResult, known: Sequence[Point]) -> list[dict[str, Any]]:
    """For each constraint that some points break, how many, and the figure that comes closest to keeping it."""
    found = []
    for constraint in result.goals.constraints:
        values = [point.mean(constraint.path) for point in known if point.outcomes]
        breaking = [value for value in values if constraint.excess(value) > 0]
        if breaking:
            closest = min(breaking, key=constraint.excess)
            found.append(
                {
                    "constraint": constraint.text,
                    "points": len(breaking),
                    "of": len(values),
                    "closest": finite(closest),
                    "excess": finite(constraint.excess(closest)),
                }
            )
    return found


def _nearest(result: SearchResult, known: Sequence[Point]) -> dict[str, Any] | None:
    """Where no point keeps all constraints, the one that breaks them least."""
    able = [point for point in known if point.outcomes]
    if result.feasible or not able:
        return None
    goals = result.goals
    point = min(able, key=lambda each: goals.distance(each.means(goals) | each.shares))
    excess = {text: finite(each) for text, each in goals.excesses(point.means(goals)).items()}
    return _point(result, point) | {"same": [], "excess": excess}


def _topmost(result: SearchResult) -> bool:
    """Whether no point that keeps all constraints is better than the best by more than the margin, where it decides;
    one that is loses elsewhere, or has no value there."""
    if not result.points:
        return False
    deciding = result.goals.deciding
    gains = [deciding.gain(point.mean(deciding.path)) for point in result.feasible]
    best = deciding.gain(result.points[0].mean(deciding.path))
    most = max(gains)
    return most - best <= result.search.margin * max(abs(most), abs(best))


def _same(choice: Choice) -> list[dict[str, Any]]:
    """The points that one point of the frontier stands for, beside itself."""
    return [
        {
            "point": each.number,
            "parameters": dict(each.parameters),
            "equal": each.number in choice.equal,
        }
        for each in choice.same
    ]


def _point(result: SearchResult, point: Point) -> dict[str, Any]:
    """A point of the frontier: its figures, what stands for it, and the commands that use it."""
    base = _seed(point.parameters, result.scenario.seed, 0)
    return {
        "point": point.number,
        "parameters": dict(point.parameters),
        "objectives": {each.path: _estimate(result, point, each.path) for each in result.goals.objectives},
        "constraints": {each.text: _estimate(result, point, each.path) for each in result.goals.constraints},
        "requests": {path.partition(".")[2]: share for path, share in point.shares.items()},
        "seedless": point.seedless,
        "runs": [
            _run(result.goals, base + i, outcome)
            for i, outcome in enumerate(point.outcomes[:1] if point.seedless else point.outcomes)
        ],
        **_use(result, point),
    }


def _use(result: SearchResult, point: Point) -> dict[str, Any]:
    """What one does with a point: simulate it, serve it, or write on from its scenario."""
    capacity = result.search.capacity
    parameters = dict(point.parameters)
    first = point.outcomes[0]
    if capacity is not None and first.capacity is not None:
        parameters |= {capacity.of: first.capacity.value, **first.changes}
    scenario = overridden(plain(result.scenario), parameters)
    return {
        "command": simulate_command(result.again, parameters),
        "vllm": serve_commands(scenario),
        "scenario": scenario.model_dump(mode="json", exclude_unset=True),
    }


def _estimate(result: SearchResult, point: Point, path: str) -> dict[str, Any]:
    """A figure and its interval; null where it is infinite, because requests were missed."""
    most = possible(path)[1]
    if point.seedless:
        return {
            "value": finite(point.outcomes[0].values[path]),
            "interval": point.outcomes[1].sampled.get(path),
        }
    values = [outcome.values[path] for outcome in point.outcomes]
    found = interval(values, result.search.confidence, most)
    return {"value": finite(point.mean(path)), "interval": found}


def _run(goals: Goals, seed: int, outcome: Outcome) -> dict[str, Any]:
    capacity = outcome.capacity
    found = {"seed": seed, "values": {path: finite(outcome.values[path]) for path in goals.paths}}
    if capacity is not None:
        found["capacity"] = {name: getattr(capacity, name) for name in OF_CAPACITY}
    return found

# ruff: noqa: T201 (a program prints)
"""How often the intervals of a comparison hold the truth, and how often equal configurations are told apart.

    PYTHONPATH=tests python -m comparison.study -o reports/intervals.md

Every run is of ``tests/comparison/queue.yaml`` or of the same with smaller batches, at four shares of its capacity.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from simslm.api import load_scenario, simulate
from simslm.comparison.configuration_deltas import over
from simslm.comparison.intervals import difference, interval
from simslm.comparison.sampled import OF_REQUESTS, RATES, Sampled
from simslm.comparison.student import quantile, welch
from simslm.metrics.figure_paths import title
from simslm.metrics.quantiles import LEVELS
from simslm.metrics.whole import write_whole
from simslm.sim.log import FINISHED

SCENARIO = Path(__file__).with_name("queue.yaml")
OTHER = {"deployment.engine.max_num_batched_tokens": 256}
"""What the second configuration changes."""

LOADS = (0.3, 0.6, 0.85, 0.95)
SEEDS = 40
LENGTHS = (2_000, 10_000)
"""Requests of a run; the longest runs together are the truth."""

NEIGHBOURS = (1, 2, 3)
"""Each run is compared with those of the next seeds, which are under the same configuration."""

GROUP = 5
"""Seeds of a configuration where runs under several seeds are compared."""

FIGURES = (
    "ttft_s.mean", "ttft_s.p50", "ttft_s.p90", "ttft_s.p99", "tpot_s.mean", "tpot_s.p99", "e2e_s.mean", "e2e_s.p99",
    "slo.attainment", "slo.goodput_rps", "throughput.requests_per_s", "throughput.output_tokens_per_s",
)  # fmt: skip

Bounds = tuple[float, float] | None
NOW, BEFORE, SEVERAL = "now", "before", "seeds"


@dataclass
class Score:
    """How often an interval was given, and how often it was right."""

    given: int = 0
    right: int = 0
    asked: int = 0

    def add(self, bounds: Bounds, truth: float) -> None:
        self.asked += 1
        if bounds is not None:
            slack = 1e-9 * max(abs(truth), abs(bounds[0]), abs(bounds[1]))
            self.given += 1
            self.right += bounds[0] - slack <= truth <= bounds[1] + slack

    def __add__(self, other: Score) -> Score:
        return Score(self.given + other.given, self.right + other.right, self.asked + other.asked)


@dataclass
class Scores:
    """Of one figure under one load."""

    one: dict[str, Score] = field(default_factory=lambda: {NOW: Score(), BEFORE: Score()})
    equal: dict[str, Score] = field(default_factory=lambda: {NOW: Score(), BEFORE: Score(), SEVERAL: Score()})
    paired: dict[str, Score] = field(
        default_factory=lambda: {NOW: Score(), BEFORE: Score(), SEVERAL: Score()}
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="the report")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    options = parser.parse_args()
    capacity = _capacity()
    found: dict[tuple[int, float], dict[str, Scores]] = {}
    for load in LOADS:
        print(f"load {load}", file=sys.stderr)
        runs = {
            (length, name): [_run(more, length, load * capacity, seed) for seed in range(options.seeds)]
            for length in LENGTHS
            for name, more in (("a", {}), ("b", OTHER))
        }
        truth = {name: truths(runs[max(LENGTHS), name]) for name in "ab"}
        for length in LENGTHS:
            found[length, load] = scores(runs[length, "a"], runs[length, "b"], truth["a"], truth["b"])
    text = report(found, capacity, options.seeds)
    write_whole(options.output, lambda path: path.write_text(text, encoding="utf-8", newline="\n"))
    print(options.output)
    return 0


def _capacity() -> float:
    """Requests per second when all are there from the start."""
    every = {"workload.arrivals": {"process": "all-at-once"}, "workload.num_requests": 20_000}
    return simulate(load_scenario(SCENARIO, every), with_intervals=False).summary["throughput"][
        "requests_per_s"
    ]


def _run(more: dict[str, Any], length: int, rate_rps: float, seed: int) -> Sampled:
    asked = {"seed": seed, "workload.num_requests": length, "workload.arrivals.rate_rps": rate_rps, **more}
    result = simulate(load_scenario(SCENARIO, asked), with_intervals=False)
    columns = {**result.request_columns, "finished": result.request_columns["status"] == FINISHED}
    return Sampled(columns, result.summary, result.manifest["scenario"]["slo"])


def truths(runs: Sequence[Sampled]) -> dict[str, float]:
    """Of all requests of some long runs; rates from the middle of each run."""
    found: dict[str, float] = {}
    for key in OF_REQUESTS:
        values = np.concatenate([run.column(key) for run in runs])
        values = values[np.isfinite(values)]
        found |= {f"{key}.mean": float(np.mean(values))}
        found |= {f"{key}.{name}": float(np.quantile(values, level)) for name, level in LEVELS.items()}
    found["slo.attainment"] = fmean(float(np.mean(run.good)) for run in runs)
    for path in FIGURES:
        if path not in found:
            found[path] = fmean(run.steady_rate(run.amount(path)) for run in runs)
    return found


def scores(
    first: Sequence[Sampled], second: Sequence[Sampled], before: dict[str, float], after: dict[str, float]
) -> dict[str, Scores]:
    """Of every figure: one run, pairs of the first configuration, and both under the same seed."""
    found = {path: Scores() for path in FIGURES}
    count = len(first)
    for path, each in found.items():
        truth = after[path] - before[path]
        for i, (a, b) in enumerate(zip(first, second, strict=True)):
            each.one[NOW].add(interval(a, path).interval, before[path])
            each.one[BEFORE].add(_ten(a, path), before[path])
            each.paired[NOW].add(difference(a, b, path, True).interval, truth)
            each.paired[BEFORE].add(_ten_paired(a, b, path), truth)
            for step in NEIGHBOURS:
                other = first[(i + step) % count]
                each.equal[NOW].add(difference(a, other, path, False).interval, 0.0)
                each.equal[BEFORE].add(_ten_unpaired(a, other, path), 0.0)
        groups = [slice(i, i + GROUP) for i in range(0, count - GROUP + 1, GROUP)]
        alike = (
            truth
            if path in RATES
            else fmean(b.figures[path] - a.figures[path] for a, b in zip(first, second, strict=True))
        )
        for i, group in enumerate(groups):
            each.paired[SEVERAL].add(over(path, first[group], second[group], paired=True).interval, alike)
            for other in groups[i + 1 :]:
                each.equal[SEVERAL].add(over(path, first[group], first[other], paired=False).interval, 0.0)
    return found


def _sections(run: Sampled, path: str) -> np.ndarray | None:
    """The figure in ten consecutive sections, as the method before had it."""
    key, _, name = path.rpartition(".")
    if key in OF_REQUESTS:
        parts = [part[np.isfinite(part)] for part in np.array_split(run.column(key), 10)]
        level = LEVELS.get(name)
        if min(map(len, parts)) < (10 if level is None else max(10, round(1 / (1 - level)))):
            return None
        return np.array([np.mean(part) if level is None else np.quantile(part, level) for part in parts])
    if path == "slo.attainment":
        return np.array([np.mean(part) for part in np.array_split(run.good, 10)])
    arrival, makespan = run.column("arrival_s"), run.summary["makespan_s"]
    over = arrival + run.column("e2e_s") - arrival.min()
    part = np.clip(over / makespan * 10, 0, 9).astype(int)
    return np.bincount(part, run.amount(path), 10) / (makespan / 10)


def _ten(run: Sampled, path: str) -> Bounds:
    values = _sections(run, path)
    return None if values is None else _student(run.figures[path], values)


def _ten_paired(a: Sampled, b: Sampled, path: str) -> Bounds:
    one, two = _sections(a, path), _sections(b, path)
    if one is None or two is None:
        return None
    return _student(b.figures[path] - a.figures[path], two - one)


def _ten_unpaired(a: Sampled, b: Sampled, path: str) -> Bounds:
    found = [(run.figures[path], _sections(run, path)) for run in (a, b)]
    if any(values is None for _, values in found):
        return None
    spreads = [(float(np.sum((values - about) ** 2)) / 9 / 10, 10) for about, values in found]
    return welch(found[1][0] - found[0][0], *spreads, 0.95)


def _student(about: float, values: np.ndarray) -> Bounds:
    half = quantile(0.95, 9) * sqrt(float(np.sum((values - about) ** 2)) / 9 / 10)
    return about - half, about + half


Part = Callable[[Scores], dict[str, Score]]
PARTS: tuple[tuple[str, Part, tuple[str, ...], bool], ...] = (
    ("Equal configurations told apart", lambda each: each.equal, (BEFORE, NOW, SEVERAL), True),
    ("Paired differences that hold the truth", lambda each: each.paired, (BEFORE, NOW, SEVERAL), False),
    ("Intervals of one run that hold the long-run figure", lambda each: each.one, (BEFORE, NOW), False),
)


def report(found: dict[tuple[int, float], dict[str, Scores]], capacity: float, seeds: int) -> str:
    """The whole page."""
    return "\n".join(_lines(found, capacity, seeds)) + "\n"


def _lines(found: dict[tuple[int, float], dict[str, Scores]], capacity: float, seeds: int) -> Iterator[str]:
    yield "# How often intervals are right"
    yield ""
    yield "Made by `make intervals`; the method is in [docs/compare.md](../docs/compare.md#how-it-counts)."
    yield ""
    yield (
        "`tests/comparison/queue.yaml` (OPT-1.3B on an A10G by roofline, 16 slots, log-normal lengths, Poisson) "
        f"at {', '.join(f'{load:g}' for load in LOADS)} of its capacity of {capacity:.2f} requests/s, under {seeds} "
        f"seeds, with {' and '.join(f'{length:,}' for length in LENGTHS)} requests. The second configuration has "
        f"`max_num_batched_tokens` 256. The truth is that of all {seeds} runs of {max(LENGTHS):,} requests together; "
        "rates are those of the middle of each run. Intervals over seeds are of runs as long as those they come from, "
        f"which start empty: their truth is the mean over all {seeds} seeds, but for rates."
    )
    yield ""
    yield (
        "A cell is *wrong or right / given of asked*. *Before*: Student's t over ten consecutive sections, whatever "
        "the run was like. *Now*: what `simslm compare` says of one run of each; it gives no interval where the run "
        f"is too short for it. *{GROUP} seeds*: what it says of {GROUP} runs of each. All are stated at 95 %, so 5 % "
        "may be wrong. Runs that pass the check of their length by luck are few and look calmer than they are: where "
        "few of those asked are given, the share that is right is low."
    )
    for heading, part, kinds, wrong in PARTS:
        yield ""
        yield f"## {heading}"
        for length in LENGTHS:
            yield ""
            yield f"{length:,} requests:"
            yield ""
            yield from _table({load: found[length, load] for load in LOADS}, part, kinds, wrong)


def _table(
    found: dict[float, dict[str, Scores]], part: Part, kinds: Sequence[str], wrong: bool
) -> Iterator[str]:
    names = {NOW: "now", BEFORE: "before", SEVERAL: f"{GROUP} seeds"}
    yield "| figure |" + "".join(f" {load:g}: {names[kind]} |" for load in found for kind in kinds)
    yield "|---|" + "---|" * (len(found) * len(kinds))
    sums = {(load, kind): Score() for load in found for kind in kinds}
    for path in FIGURES:
        cells = []
        for load in found:
            for kind in kinds:
                score = part(found[load][path])[kind]
                sums[load, kind] += score
                cells.append(_cell(score, wrong))
        yield f"| {title(path)} | " + " | ".join(cells) + " |"
    yield "| **all** | " + " | ".join(_cell(each, wrong, share=True) for each in sums.values()) + " |"


def _cell(score: Score, wrong: bool, share: bool = False) -> str:
    if not score.given:
        return "–"
    told = score.given - score.right if wrong else score.right
    given = f"{score.given}" if score.given == score.asked else f"{score.given} of {score.asked}"
    return f"{100 * told / score.given:.1f} % of {score.given}" if share else f"{told} / {given}"


if __name__ == "__main__":
    sys.exit(main())

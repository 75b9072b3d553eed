"""Runs grouped into configurations, and each configuration held against the first."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, variance

import numpy as np

from simslm.comparison.contrast import Comparison, Configuration, Contrast, Pairing, flags
from simslm.comparison.delta import CONFIDENCE, Delta
from simslm.comparison.difference import NOT_COMPARED, changes
from simslm.comparison.pairs import Run, paired_latencies, same_requests
from simslm.comparison.sections import (
    PAIRED,
    UNPAIRED,
    Sectioned,
    figures,
    paired_interval,
    unpaired_interval,
    welch,
)
from simslm.comparison.student import interval
from simslm.errors import UsageError
from simslm.metrics.definitions import FIGURES

OVER_SEEDS = (
    "intervals: 95 %, paired t over the differences under the same seeds (common random numbers: Law 2015, "
    "sections 10.2.1 and 11.2)"
)
OVER_OTHER_SEEDS = "intervals: 95 %, Welch's t over runs under different seeds (Law 2015, section 10.2.2)"


def compare(runs: Sequence[Run], places: Sequence[str]) -> Comparison:
    """Holds runs against the first.

    Runs of one scenario under several seeds are one configuration, whose figures are means over the seeds; where all
    are of one scenario, each is a configuration of its own.

    Args:
        runs: at least two.
        places: the directory of each, for its label.

    Raises:
        UsageError: fewer than two runs.
    """
    if len(runs) < 2:
        raise UsageError("there is nothing to compare with", remedy="name at least two directories of runs")
    baseline, *others = configurations(runs, places)
    contrasts = tuple(contrast(baseline, other) for other in others)
    return Comparison(baseline, contrasts, (*flags((baseline, *others)), *_notes(baseline, contrasts)))


def configurations(runs: Sequence[Run], places: Sequence[str]) -> list[Configuration]:
    """At least two, in the order in which their first runs come."""
    members: list[tuple[str, list[int]]] = []
    for i, run in enumerate(runs):
        settings, seed = _settings(run), _seed(run)
        for known, group in reversed(members):
            if known == settings and all(_seed(runs[j]) != seed for j in group):
                group.append(i)
                break
        else:
            members.append((settings, [i]))
    groups = [group for _, group in members] if len(members) > 1 else [[i] for i in range(len(runs))]
    names = _names(places)
    return [
        Configuration(
            _label([names[i] for i in group]),
            tuple(places[i] for i in group),
            tuple(runs[i] for i in group),
            tuple(_seed(runs[i]) for i in group),
        )
        for group in groups
    ]


def contrast(baseline: Configuration, other: Configuration) -> Contrast:
    """One configuration against another."""
    first, second = baseline.runs[0], other.runs[0]
    differing = changes(first.manifest, second.manifest)
    shared = [seed for seed in baseline.seeds if seed in other.seeds]
    if len(shared) > 1:
        pairing = Pairing("seeds", len(shared), _over_seeds(baseline, other, shared), OVER_SEEDS)
        differing = tuple(change for change in differing if change.path != "seed")
        return Contrast(other, pairing, differing, tuple(_by_seed(baseline, other, shared)), ())
    if len(baseline.runs) > 1 and len(other.runs) > 1:
        pairing = Pairing("unpaired", 0, "the runs are under different seeds", OVER_OTHER_SEEDS)
        return Contrast(other, pairing, differing, tuple(_over_runs(baseline, other)), ())
    if shared:
        first, second = _of_seed(baseline, shared[0]), _of_seed(other, shared[0])
    paired = same_requests(first, second)
    why = _why(first, second) if paired else _why_not(first, second)
    count = len(first.requests["request_id"]) if paired else 0
    pairing = Pairing(
        "requests" if paired else "unpaired",
        count,
        why + _left(baseline, other),
        PAIRED if paired else UNPAIRED,
    )
    latencies = paired_latencies(first, second) if paired else ()
    return Contrast(other, pairing, differing, tuple(_by_section(first, second, paired)), latencies)


def _by_section(baseline: Run, other: Run, paired: bool) -> Iterator[Delta]:
    first, second = figures(baseline.summary), figures(other.summary)
    a, b = Sectioned(baseline), Sectioned(other)
    for path in FIGURES:
        before, after = first[path], second[path]
        if before is None or after is None:
            yield Delta(path, before, after, None, None, "not known of both")
            continue
        delta = after - before
        if why := a.missing.get(path) or b.missing.get(path):
            yield Delta(path, before, after, delta, None, why)
        elif paired:
            yield Delta(path, before, after, delta, paired_interval(delta, a.values[path], b.values[path]))
        else:
            bounds = unpaired_interval(delta, (before, a.values[path]), (after, b.values[path]))
            yield Delta(path, before, after, delta, bounds)


def _by_seed(baseline: Configuration, other: Configuration, seeds: Sequence[int]) -> Iterator[Delta]:
    first = [figures(_of_seed(baseline, seed).summary) for seed in seeds]
    second = [figures(_of_seed(other, seed).summary) for seed in seeds]
    for path in FIGURES:
        before, after = _known(first, path), _known(second, path)
        if before is None or after is None:
            yield Delta(path, _mean(before), _mean(after), None, None, "not known of all")
        else:
            differences = [b - a for a, b in zip(before, after, strict=True)]
            yield Delta(
                path, fmean(before), fmean(after), fmean(differences), interval(differences, CONFIDENCE)
            )


def _over_runs(baseline: Configuration, other: Configuration) -> Iterator[Delta]:
    first, second = ([figures(run.summary) for run in each.runs] for each in (baseline, other))
    for path in FIGURES:
        before, after = _known(first, path), _known(second, path)
        if before is None or after is None:
            yield Delta(path, _mean(before), _mean(after), None, None, "not known of all")
        else:
            delta = fmean(after) - fmean(before)
            one, two = ((variance(values) / len(values), len(values)) for values in (before, after))
            yield Delta(path, fmean(before), fmean(after), delta, welch(delta, one, two))


def _known(found: Sequence[Mapping[str, float | None]], path: str) -> list[float] | None:
    """A figure of every run; None where one lacks it."""
    values = [value for each in found if (value := each[path]) is not None]
    return values if len(values) == len(found) else None


def _mean(values: list[float] | None) -> float | None:
    return fmean(values) if values is not None else None


def _of_seed(configuration: Configuration, seed: int) -> Run:
    return configuration.runs[configuration.seeds.index(seed)]


def _seed(run: Run) -> int:
    return int(run.manifest["scenario"].get("seed") or 0)


def _settings(run: Run) -> str:
    """What two runs share that differ in their seeds alone."""
    left_out = {"seed", *NOT_COMPARED}
    scenario = {key: value for key, value in run.manifest["scenario"].items() if key not in left_out}
    if (scenario.get("cost") or {}).get("trace"):
        scenario["cost"] = scenario["cost"] | {"trace": None}
    hashes = [trace.get("content_hash") for trace in run.manifest.get("traces") or ()]
    return json.dumps([scenario, hashes], sort_keys=True, default=str)


def _names(places: Sequence[str]) -> list[str]:
    """The last part of each path where that tells them apart, else the whole; numbered where even that is the same."""
    short = [Path(place).resolve().name for place in places]
    names = short if len(set(short)) == len(short) else [str(place) for place in places]
    seen: Counter[str] = Counter()
    unique = []
    for name in names:
        seen[name] += 1
        unique.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return unique


def _label(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} … {names[-1]} ({len(names)} seeds)"


def _over_seeds(baseline: Configuration, other: Configuration, shared: Sequence[int]) -> str:
    left = len(baseline.runs) + len(other.runs) - 2 * len(shared)
    more = f"; {left} runs under seeds that one of them lacks are left out" if left else ""
    return f"paired over {len(shared)} seeds under which both ran{more}"


def _left(baseline: Configuration, other: Configuration) -> str:
    left = len(baseline.runs) + len(other.runs) - 2
    return f"; {left} runs under other seeds are left out" if left else ""


def _why(baseline: Run, other: Run) -> str:
    count = len(baseline.requests["request_id"])
    same = np.array_equal(baseline.requests["arrival_s"], other.requests["arrival_s"])
    late = "" if same else ", though they arrived at other times"
    return f"paired request by request: both served the same {count:,}{late}"


def _why_not(baseline: Run, other: Run) -> str:
    counts = [len(run.requests["request_id"]) for run in (baseline, other)]
    if counts[0] != counts[1]:
        return f"unpaired: {counts[0]:,} and {counts[1]:,} requests arrived"
    return "unpaired: the requests differ in length, so that differences are those of the workloads as well"


def _notes(baseline: Configuration, contrasts: Sequence[Contrast]) -> Iterator[str]:
    everybody = [baseline, *(each.configuration for each in contrasts)]
    sources = {str((run.summary.get("cost") or {}).get("source")) for each in everybody for run in each.runs}
    if len(sources) > 1:
        yield f"costs are {' and '.join(sorted(sources))}: the difference between those is in the figures too"
    elif any(change.path.startswith("traces[") for each in contrasts for change in each.changes):
        yield "costs come from different traces, whose errors do not cancel and are not in the intervals"
    for each in contrasts:
        if lost := _lost(baseline, each.configuration):
            yield lost
    if any(run.manifest.get("interrupted") for each in everybody for run in each.runs):
        yield "a run was interrupted: its figures are of what had happened by then"
    yield (
        "the intervals hold what other requests of the same kind would change, not the error of the costs; each holds "
        "for its own figure"
    )


def _lost(baseline: Configuration, other: Configuration) -> str:
    """That latencies are not of as many requests, empty where they are."""
    shares = [
        (float(np.sum(finished)) / max(len(finished), 1), each.label)
        for each in (baseline, other)
        for finished in (np.concatenate([run.requests["finished"] for run in each.runs]),)
    ]
    (before, first), (after, second) = shares
    if before == after:
        return ""
    return (
        f"{100 * before:.3g} % of the requests finished in {first}, {100 * after:.3g} % in {second}: latencies are of "
        "those alone; attainment and goodput count all"
    )

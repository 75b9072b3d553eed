"""Runs grouped into configurations, and each configuration held against the first."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from simslm.comparison.changed_settings import NOT_COMPARED, changes
from simslm.comparison.configuration_deltas import by_run, by_section, by_seed
from simslm.comparison.contrast import Comparison, Configuration, Contrast, Pairing, flags
from simslm.comparison.pairs import Run, paired_latencies, same_requests, same_workload
from simslm.comparison.sampled import Sampled
from simslm.comparison.wording import EVERY_TENTH
from simslm.errors import UsageError
from simslm.plain import section_of

SECTIONS = (
    "sections of the run, each at least five times as long as its load lasts (batch means: Law 2015, 9.5.3; integrated "
    "autocorrelation time: Geyer 1992); for quantiles the share of requests beyond (Heidelberger and Lewis 1984)"
)
PAIRED = f"intervals: 95 %, request by request under the same requests, over 10 to 32 {SECTIONS}"
UNPAIRED = f"intervals: 95 %, of two independent runs, over 10 to 32 {SECTIONS}"
OVER_SEEDS = (
    "intervals: 95 %, paired t over the differences under the same seeds (common random numbers: Law 2015, "
    "sections 10.2.1 and 11.2), of runs as long as these"
)
OVER_OTHER_SEEDS = (
    "intervals: 95 %, Welch's t over runs under different seeds (Law 2015, section 10.2.2), of runs as long as "
    "these"
)


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
    differing = changes(baseline.runs[0].manifest, other.runs[0].manifest)
    shared = [seed for seed in baseline.seeds if seed in other.seeds]
    several = not (_seedless(baseline) and _seedless(other))
    if several and len(shared) > 1:
        pairing = Pairing("seeds", len(shared), _over_seeds(baseline, other, shared), OVER_SEEDS)
        differing = tuple(change for change in differing if change.path != "seed")
        deltas = by_seed(*([_sampled(_of_seed(each, seed)) for seed in shared] for each in (baseline, other)))
        return Contrast(baseline, other, pairing, differing, tuple(deltas), ())
    if several and len(baseline.runs) > 1 and len(other.runs) > 1:
        pairing = Pairing("unpaired", 0, "the runs are under different seeds", OVER_OTHER_SEEDS)
        deltas = by_run(*([_sampled(run) for run in each.runs] for each in (baseline, other)))
        return Contrast(baseline, other, pairing, differing, tuple(deltas), ())
    return _of_one(baseline, other, shared)


def _of_one(baseline: Configuration, other: Configuration, shared: Sequence[int]) -> Contrast:
    """One run of each: under the same seed where there is one."""
    first, second = baseline.runs[0], other.runs[0]
    if shared:
        first, second = _of_seed(baseline, shared[0]), _of_seed(other, shared[0])
    paired = same_requests(first, second)
    why = _why(first, second) if paired else _why_not(first, second)
    pairing = Pairing(
        "requests" if paired else "unpaired",
        len(first.requests["request_id"]) if paired else 0,
        why + _left(baseline, other),
        PAIRED if paired else UNPAIRED,
    )
    before, after = _sampled(first), _sampled(second)
    if paired:
        both = before.order[np.isin(before.order, after.order)]
        before, after = _sampled(first, both), _sampled(second, both)
    return Contrast(
        baseline,
        other,
        pairing,
        changes(first.manifest, second.manifest),
        tuple(by_section(before, after, paired)),
        paired_latencies(first, second) if paired else (),
    )


def _sampled(run: Run, order: np.ndarray | None = None) -> Sampled:
    return Sampled(run.requests, run.summary, run.manifest["scenario"].get("slo"), order)


def _seedless(configuration: Configuration) -> bool:
    """Whether seeds change nothing in the workload, so that runs under several seeds are no repetitions."""
    first, *more = configuration.runs
    return all(same_workload(first, run) for run in more)


def _of_seed(configuration: Configuration, seed: int) -> Run:
    return configuration.runs[configuration.seeds.index(seed)]


def _seed(run: Run) -> int:
    return int(run.manifest["scenario"].get("seed") or 0)


def _settings(run: Run) -> str:
    """What runs have in common that differ in their seeds alone."""
    left_out = {"seed", *NOT_COMPARED}
    scenario = {key: value for key, value in run.manifest["scenario"].items() if key not in left_out}
    if section_of(scenario, "cost").get("trace"):
        scenario["cost"] = scenario["cost"] | {"trace": None}
    hashes = [trace.get("content_hash") for trace in run.manifest.get("traces") or ()]
    return json.dumps([scenario, hashes], sort_keys=True, default=str)


def _names(places: Sequence[str]) -> list[str]:
    """The last part of each path where that tells them apart, else the whole; numbered where even that is the same."""
    short = [Path(place).resolve().name for place in places]
    names = short if len(set(short)) == len(short) else [str(place) for place in places]
    seen: Counter[str] = Counter()
    unique: list[str] = []
    for name in names:
        seen[name] += 1
        unique.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return unique


def _label(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} … {names[-1]} ({len(names)} seeds)"


def _over_seeds(baseline: Configuration, other: Configuration, shared: Sequence[int]) -> str:
    left = len(baseline.runs) + len(other.runs) - 2 * len(shared)
    more = f"; {_runs(left)} under seeds that one of them lacks left out" if left else ""
    return f"paired over {len(shared)} seeds under which both ran{more}"


def _left(baseline: Configuration, other: Configuration) -> str:
    left = len(baseline.runs) + len(other.runs) - 2
    return f"; {_runs(left)} under other seeds left out" if left else ""


def _runs(count: int) -> str:
    return f"{count} run" if count == 1 else f"{count} runs"


def _why(baseline: Run, other: Run) -> str:
    count = len(baseline.requests["request_id"])
    same = np.array_equal(baseline.requests["arrival_s"], other.requests["arrival_s"])
    late = "" if same else ", at other times"
    return f"paired request by request: the same {count:,} requests arrived in both{late}"


def _why_not(baseline: Run, other: Run) -> str:
    counts = [len(run.requests["request_id"]) for run in (baseline, other)]
    if counts[0] != counts[1]:
        return f"unpaired: {counts[0]:,} and {counts[1]:,} requests arrived"
    return "unpaired: the requests differ in length, so the differences are also those of the workloads"


def _notes(baseline: Configuration, contrasts: Sequence[Contrast]) -> Iterator[str]:
    configurations = [baseline, *(each.configuration for each in contrasts)]
    yield from _of_seeds(configurations, contrasts)
    sources = {
        str(section_of(run.summary, "cost").get("source")) for each in configurations for run in each.runs
    }
    if len(sources) > 1:
        yield f"costs are {' and '.join(sorted(sources))}: the difference between those is in the figures too"
    elif any(change.path.startswith("traces[") for each in contrasts for change in each.changes):
        yield "costs come from different traces: their errors do not cancel and are not in the intervals"
    if any(each.missed for each in configurations):
        yield (
            "a request that was rejected, failed or did not finish counts as a miss: quantiles are over all that "
            "arrived, with its latency infinite (∞)"
        )
    if any(delta.direction for each in contrasts for delta in each.deltas):
        yield (
            f"{EVERY_TENTH}: in each tenth of the run the figure differs in the same direction; by how much in the "
            "long run is open"
        )
    if any(run.manifest.get("interrupted") for each in configurations for run in each.runs):
        yield "a run was interrupted: its figures are of what had happened by then"
    yield (
        "the intervals say what other requests of the same kind would change, not how wrong the costs may be; each "
        "holds for its own figure"
    )


def _of_seeds(configurations: Sequence[Configuration], contrasts: Sequence[Contrast]) -> Iterator[str]:
    """A note that some runs are no repetitions of each other."""
    seedless = [each for each in configurations if len(each.runs) > 1 and _seedless(each)]
    alone = [
        each
        for each in contrasts
        if [change.path for change in each.changes] == ["seed"]
        and same_workload(configurations[0].runs[0], each.configuration.runs[0])
    ]
    if seedless or alone:
        runs = [each.runs[0] for each in seedless] or [configurations[0].runs[0]]
        replay = any(section_of(run.manifest["scenario"], "workload").get("replay") for run in runs)
        what = "seeds do not change a replay" if replay else "seeds do not change this workload"
        yield (
            f"{what}: the same requests arrive at the same times under each, so several seeds are no repetitions; the "
            "intervals come from the sections of one run"
        )

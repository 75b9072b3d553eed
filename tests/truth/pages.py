"""The figures as a page of Markdown: each test with its bound, and what the rest of the error looks like."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from truth.covering import FIGURES

from simslm.fidelity.comparison import Comparison
from simslm.fidelity.files import ADVICES, FEWEST_BATCHES
from simslm.runs.derived import best_batch, curves, joules_per_output_token, knee
from simslm.runs.table import MeasuredRun

if TYPE_CHECKING:
    from truth.fidelity import Study

INTRODUCTION = """\
# Fidelity: predictions against measured runs

Written by `make fidelity TRUTH=DIRECTORY`, where the directory holds the study's `RUNS.csv`. Each model is calibrated
on six of its runs (fixed lengths, 260 output tokens, batch limit 1, 4, 32, 64, 128 and 256, no offline
measurements); every other run is predicted with nothing fitted to it: other output lengths, another scheduler, other
length distributions, preemption, replicas. Errors are `simulated / measured - 1`. Runs repeated with identical
settings differ by 0.6 to 4.3 % in throughput.
"""

LENGTHS_WERE_WRONG = """\
## What had been wrong

The lengths of single requests were not published with the runs, but reconstructed from the counters of the runs at
batch 1. Until November 2026 this page used one reconstruction, that of Llama-2-7B, scaled for OPT-2.7B. With it, runs
of OPT-2.7B on ShareGPT came out 8.7 % too fast in the median (Llama-2-7B: 0.7 %), and its KV peak 11.5 % too low. The
peak follows from the lengths, whatever an iteration costs, so the input was wrong, not the model. Each model now has
lengths of its own. Below: the error of the peak in runs that do not fill the cache, median / largest (bias).
"""
FULL = 0.95
"""KV peak from which a cache counts as full: then it says nothing of the lengths."""

Error = Callable[[Comparison], float | None]


@dataclass(frozen=True)
class Bound:
    """What has to be reached in one figure, as fractions of the measured one; None where nothing has to.

    Attributes:
        what, error: the figure, and its signed error in one run.
        median, p95, largest: bounds on the median, 95th percentile and largest absolute error.
    """

    what: str
    error: Error
    median: float | None = None
    p95: float | None = None
    largest: float | None = None


def relative(metric: str) -> Error:
    return lambda comparison: comparison.error.get(metric)


def joules(comparison: Comparison) -> float | None:
    """Error of the active power divided by the output throughput."""
    measured = joules_per_output_token(comparison.run.measured)
    found = joules_per_output_token(comparison.simulated)
    return None if measured is None or found is None else found / measured - 1


THROUGHPUT, ITL, TTFT = relative("output_tokens_per_s"), relative("itl_mean_s"), relative("ttft_mean_s")
POWER = relative("power_active_p50_w")
ENERGY = (Bound("active power", POWER, 0.05), Bound("J per output token", joules, 0.06))
LENGTHS = (Bound("output tokens/s", THROUGHPUT, 0.05, 0.10), Bound("mean ITL", ITL, 0.05, 0.10))
TESTS: dict[str, tuple[Bound, ...]] = {
    "fixed lengths": (
        Bound("output tokens/s", THROUGHPUT, 0.02, 0.06),
        Bound("mean ITL", ITL, 0.02, 0.06),
        Bound("mean TTFT", TTFT, 0.05),
    ),
    "other lengths and scheduler": LENGTHS,
    "preemption": (Bound("output tokens/s", THROUGHPUT, largest=0.06),),
    "replicas": (Bound("output tokens/s", THROUGHPUT, largest=0.05), Bound("mean ITL", ITL, largest=0.08)),
}


def page(studies: Sequence[Study]) -> str:
    """The whole report."""
    predicted = [each for study in studies for each in study.comparisons if each.run.run not in study.fitted]
    parts = [
        INTRODUCTION,
        _tests(predicted),
        _preemptions(predicted),
        _batches(studies),
        "## By model\n",
        *(_model(study) for study in studies),
        "## Largest errors\n\nOutput tokens/s, the five furthest off.\n",
        _worst(predicted),
        *_peaks(predicted),
        "## How honest the intervals are\n\n"
        "Runs whose measured figure lies inside the 95 % interval of its simulation. The interval holds what the six\n"
        "runs leave undecided of the terms, and neither the noise of a run nor what the model leaves out.\n",
        _inside(studies),
        "## Terms\n\nValue ± standard error; a term without one was not fitted.\n",
        _terms(studies),
    ]
    return "\n".join(parts)


def kind(run: MeasuredRun) -> str:
    """The test that a run belongs to."""
    if run.replicas > 1:
        return "replicas"
    if run.measured.get("preemptions"):
        return "preemption"
    return "fixed lengths" if run.workload == "fixed" else "other lengths and scheduler"


def _tests(predicted: Sequence[Comparison]) -> str:
    rows = []
    for name, bounds in TESTS.items():
        mine = [each for each in predicted if kind(each.run) == name]
        rows += [_row(name, bound, mine) for bound in bounds]
    rows += [_row("all", bound, predicted) for bound in ENERGY]
    return _table(("test", "figure", "runs", "median", "95th", "largest", "bias", "bound", ""), rows)


def _row(name: str, bound: Bound, comparisons: Iterable[Comparison]) -> Sequence[str]:
    errors = np.array([error for each in comparisons if (error := bound.error(each)) is not None])
    if not len(errors):
        return (name, bound.what, "0", "", "", "", "", _limit(bound), "nothing to test")
    sizes = np.abs(errors)
    found = (float(np.median(sizes)), float(np.percentile(sizes, 95)), float(sizes.max()))
    limits = (bound.median, bound.p95, bound.largest)
    reached = all(limit is None or size <= limit for size, limit in zip(found, limits, strict=True))
    figures = (*map(_percent, found), f"{100 * errors.mean():+.1f} %")
    return (
        name,
        bound.what,
        str(len(errors)),
        *figures,
        _limit(bound),
        "reached" if reached else "**missed**",
    )


def _limit(bound: Bound) -> str:
    named = (("median", bound.median), ("95th", bound.p95), ("largest", bound.largest))
    return ", ".join(f"{name} {_percent(limit)}" for name, limit in named if limit is not None)


def _preemptions(predicted: Sequence[Comparison]) -> str:
    rows, good = [], 0
    for each in predicted:
        if kind(each.run) != "preemption":
            continue
        measured, found = each.run.measured["preemptions"], each.simulated["preemptions"]
        near = abs(found - measured) <= 30 or measured / 1.5 <= found <= measured * 1.5
        good += near
        rows.append((f"`{each.run.run}`", f"{measured:.0f}", f"{found:.0f}", "" if near else "**off**"))
    head = f"Preemptions within a factor 1.5 or 30: {good} of {len(rows)} runs.\n"
    return head + "\n" + _table(("run", "measured", "simulated", ""), rows)


def _batches(studies: Sequence[Study]) -> str:
    """Knee and best batch of every setting run at several batch limits, fitted runs included."""
    rows = []
    for study in studies:
        found = {each.run.run: each.simulated for each in study.comparisons}
        runs = [each.run for each in study.comparisons if each.run.replicas == 1]
        ours = curves(runs, lambda run, found=found: found[run.run])
        for key, measured in curves(runs).items():
            if len(measured) < FEWEST_BATCHES:
                continue
            simulated = ours[key]
            run = next(run for run in runs if curves([run]).keys() == {key})
            lengths = f"{run.output_tokens:g}" if run.workload == "fixed" else run.workload
            cells = [_pair(sorted(measured), knee(measured), knee(simulated))]
            cells += [
                _pair(sorted(measured), best_batch(measured, *advice), best_batch(simulated, *advice))
                for advice in ADVICES
            ]
            rows.append((study.model, lengths, *cells))
    head = (
        "model",
        "output tokens",
        "knee",
        *(f"B_opt({epsilon:g}, {factor:g})" for epsilon, factor in ADVICES),
    )
    return "Batches, measured → simulated; a neighbour in the grid is as good.\n\n" + _table(head, rows)


def _pair(grid: list[int], measured: int | None, simulated: int | None) -> str:
    if measured is None or simulated is None:
        return "none" if measured is simulated else f"{measured} → {simulated}"
    near = abs(grid.index(measured) - grid.index(simulated)) <= 1
    return f"{measured} → {simulated}" + ("" if near else " **off**")


def _model(study: Study) -> str:
    rows = []
    for name in ("fitted", *TESTS):
        mine = [
            each
            for each in study.comparisons
            if (name == "fitted") == (each.run.run in study.fitted) and name in ("fitted", kind(each.run))
        ]
        cells = [_spread(mine, error) for error in (THROUGHPUT, ITL, TTFT, POWER, joules)]
        if mine:
            rows.append((name, str(len(mine)), *cells))
    head = ("runs", "n", "output tokens/s", "mean ITL", "mean TTFT", "active power", "J per output token")
    return f"{study.model}: median / largest absolute error (bias).\n\n" + _table(head, rows)


def _spread(comparisons: Sequence[Comparison], error: Error) -> str:
    errors = np.array([found for each in comparisons if (found := error(each)) is not None])
    if not len(errors):
        return ""
    sizes = np.abs(errors)
    return (
        f"{_percent(float(np.median(sizes)))} / {_percent(float(sizes.max()))} ({100 * errors.mean():+.1f} %)"
    )


def _worst(predicted: Sequence[Comparison]) -> str:
    ranked = sorted(predicted, key=lambda each: -abs(THROUGHPUT(each) or 0.0))[:5]
    rows = [
        (f"`{each.run.run}`", kind(each.run), f"{100 * (THROUGHPUT(each) or 0):+.1f} %") for each in ranked
    ]
    return _table(("run", "test", "error"), rows)


def _peaks(predicted: Sequence[Comparison]) -> list[str]:
    """Whether the listed lengths of a workload can be those that were served: the KV peak does not depend on costs."""
    rows = []
    for model in sorted({each.run.model for each in predicted}):
        mine = [each for each in predicted if each.run.model == model and each.run.lengths_file is not None]
        unfilled = [each for each in mine if each.run.measured.get("kv_peak", 1.0) < FULL]
        if unfilled:
            rows.append((model, str(len(unfilled)), _spread(unfilled, relative("kv_peak"))))
    return [LENGTHS_WERE_WRONG, _table(("model", "runs", "KV peak"), rows)] if rows else []


def _inside(studies: Sequence[Study]) -> str:
    rows = []
    for study in studies:
        for name in TESTS:
            mine = [each.run.run for each in study.comparisons if kind(each.run) == name]
            found = [study.inside[run] for run in mine if run in study.inside]
            if found:
                shares = (f"{sum(each[column] for each in found)} of {len(found)}" for column in FIGURES)
                rows.append((study.model, name, *shares))
    return _table(("model", "test", *FIGURES), rows)


def _terms(studies: Sequence[Study]) -> str:
    names = list(studies[0].calibration.cost.terms)
    rows = [(name, *(_term(study, name) for study in studies)) for name in names]
    return _table(("term", *(study.model for study in studies)), rows)


def _term(study: Study, name: str) -> str:
    power = study.calibration.power
    stderr = study.calibration.fit.stderr | (power.stderr if power else {})
    value, error = study.calibration.cost.terms.get(name), stderr.get(name)
    if value is None:
        return ""
    return f"{value:.3g}" + (f" ± {error:.2g}" if error is not None else "")


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"

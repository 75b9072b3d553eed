"""``fidelity.json``: every run with its errors, their summary, and what a page needs to show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from simslm.fidelity.comparison import Comparison, summarize
from simslm.fidelity.recorded import Fidelity
from simslm.metrics.files import write_json
from simslm.runs.derived import best_batch, curves, joules_per_output_token, knee, setting
from simslm.runs.table import MeasuredRun

SCHEMA_VERSION = 1
ADVICES = ((0.1, 2.0), (0.1, 4.0))
"""Efficiency and latency bounds (epsilon, L) that the best batch is computed for."""

FEWEST_BATCHES = 3
"""Batch limits from which a setting's throughput is a curve."""


def content(fidelity: Fidelity, command: str) -> dict[str, Any]:
    """What ``fidelity.json`` holds.

    ``rows`` and ``summary`` are keyed by column of ``RUNS.csv``; ``setting`` says what was run, ``derived`` has the
    knee and the best batch of each setting that was run at several batch limits.

    Args:
        fidelity: the comparison.
        command: what reproduces it.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "command": command,
        "traces": [
            asdict(source) | {"flags": list(source.flags), "fitted": list(source.fitted)}
            for source in fidelity.sources
        ],
        "rows": [_row(comparison) for comparison in fidelity.comparisons],
        "summary": summarize(fidelity.comparisons),
        "derived": _derived(fidelity.comparisons),
        "skipped": [{"run": skipped.run, "reason": skipped.reason} for skipped in fidelity.skipped],
        "interrupted": fidelity.interrupted,
    }


def write_fidelity(
    directory: Path, fidelity: Fidelity, command: str, more: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Writes ``fidelity.json`` and returns what it holds; the directory is made if it is not there.

    Args:
        directory: where it goes.
        fidelity, command: see :func:`content`.
        more: further keys.
    """
    values = content(fidelity, command) | dict(more or {})
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "fidelity.json", values)
    return values


def _row(comparison: Comparison) -> dict[str, Any]:
    return {
        "run": comparison.run.run,
        "setting": _setting(comparison.run),
        "notes": [*comparison.run.notes, *_of_chance(comparison.run)],
        "measured": dict(comparison.run.measured),
        "simulated": dict(comparison.simulated),
        "error": comparison.error,
    }


def _of_chance(run: MeasuredRun) -> list[str]:
    """Whether the throughput of a run is that of random arrivals: where it keeps up with them, its rate is left to
    chance."""
    if run.spread_of_arrivals is None:
        return []
    return [
        f"arrivals are drawn anew: by chance {run.num_requests:,} of them take up to "
        f"{200 * run.spread_of_arrivals:.0f} % more or less time (95 %), and throughput is theirs where the engine "
        "keeps up"
    ]


def _setting(run: MeasuredRun) -> dict[str, Any]:
    names = ("model", "device", "engine", "workload", "prompt_tokens", "output_tokens", "num_requests")
    names += ("arrivals", "max_num_seqs", "max_num_batched_tokens", "batching", "replicas", "sharing")
    return {name: getattr(run, name) for name in (*names, "num_gpu_blocks", "sm_clock_mhz")}


def _derived(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Knee, best batch and joules per output token of each curve, as measured and as simulated.

    The simulated curve has the figures that were measured too, so that both answer from the same batches.
    """
    runs = [comparison.run for comparison in comparisons]
    simulated = {
        each.run.run: {name: value for name, value in each.simulated.items() if name in each.run.measured}
        for each in comparisons
    }
    measured_curves = curves(runs)
    simulated_curves = curves(runs, lambda run: simulated[run.run])
    first = {setting(run): run for run in reversed(runs)}
    found = []
    for key, curve in measured_curves.items():
        if len(curve) < FEWEST_BATCHES:
            continue
        pair = {"measured": curve, "simulated": simulated_curves[key]}
        varied = ("max_num_seqs", "num_gpu_blocks")
        shared = {name: value for name, value in _setting(first[key]).items() if name not in varied}
        found.append(
            {
                "setting": shared,
                "max_num_seqs": list(curve),
                "knee": {who: knee(each) for who, each in pair.items()},
                "best_batch": [
                    {"epsilon": epsilon, "latency_factor": factor}
                    | {who: best_batch(each, epsilon, factor) for who, each in pair.items()}
                    for epsilon, factor in ADVICES
                ],
                "j_per_output_token": {
                    str(batch): {who: joules_per_output_token(each[batch]) for who, each in pair.items()}
                    for batch in curve
                },
            }
        )
    return found

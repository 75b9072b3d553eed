"""What the predictions would be if the output lengths were spread such that the KV peak is the measured one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from simslm.fidelity.comparison import Comparison
from simslm.fidelity.recorded import read_sources, validate
from simslm.runs.lengths import read_lengths
from simslm.runs.table import MeasuredRun

FULL = 0.95
"""KV peak from which a cache counts as full: then it says nothing of the lengths."""

POWERS = (0.7, 0.85, 1.0, 1.15, 1.3, 1.45)
"""Exponents that are tried; between them the error is interpolated."""


@dataclass(frozen=True)
class Stretched:
    """One model's runs of listed lengths.

    Attributes:
        model: its name.
        kv_bias: median error of the KV peak with the lengths as listed.
        power: the exponent at which that error vanishes.
        before, after: the runs with the lengths as listed, and stretched.
    """

    model: str
    kv_bias: float
    power: float
    before: Sequence[Comparison]
    after: Sequence[Comparison]


def stretched(comparisons: Sequence[Comparison], trace: Path, longest: int, jobs: int) -> Stretched:
    """Finds the exponent and predicts the runs with it.

    Args:
        comparisons: runs of one model with a file of lengths, as listed.
        trace: their costs.
        longest: tokens of prompt and output together that the model takes.
        jobs: processes.
    """
    runs = [each.run for each in comparisons]
    unfilled = [run for run in runs if run.measured.get("kv_peak", 1.0) < FULL]
    biases = [_kv_bias(_predict(unfilled, power, trace, longest, jobs)) for power in POWERS]
    power = float(np.interp(0.0, biases, POWERS))
    after = _predict(runs, power, trace, longest, jobs)
    return Stretched(runs[0].model, biases[POWERS.index(1.0)], power, comparisons, after)


def _kv_bias(comparisons: Sequence[Comparison]) -> float:
    errors = [error for each in comparisons if (error := each.error.get("kv_peak")) is not None]
    return float(np.median(errors)) if errors else 0.0


def _predict(
    runs: Sequence[MeasuredRun], power: float, trace: Path, longest: int, jobs: int
) -> tuple[Comparison, ...]:
    changed = [_stretch(run, power, longest) for run in runs]
    return validate(changed, read_sources([trace]), jobs=jobs).comparisons if changed else ()


def _stretch(run: MeasuredRun, power: float, longest: int) -> MeasuredRun:
    """The run with output lengths to the ``power``; a request stays within the model's length.

    Replaying a run scales its lengths to the run's mean: here they are scaled already, so that they can be cut.
    """
    assert run.lengths_file is not None
    prompts, outputs = read_lengths(run.lengths_file)
    spread = outputs.astype(float) ** power
    spread *= run.output_tokens / spread.mean()
    room = longest - 1 - np.ceil(prompts * (run.prompt_tokens / prompts.mean()))
    whole = np.maximum(np.minimum(spread, 0.97 * room), 1).round().astype(int)
    return replace(run, lengths=(tuple(prompts.tolist()), tuple(whole.tolist())))

# ruff: noqa: T201 (a program prints)
"""Calibrates on six runs of every model of a table, predicts all its other runs, and writes how far off it is.

    PYTHONPATH=tests python -m truth.fidelity RUNS.csv -o reports/fidelity.md

Any table with the columns of ``docs/measured-runs.md`` will do. Calibrated on are the runs of fixed lengths with 260
output tokens at ``max_num_seqs`` 1, 4, 32, 64, 128 and 256, one replica; runs at a lower clock than the table's
highest are left out.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from truth.covering import Inside, covered
from truth.pages import page

from simslm.calibration.calibrate import Calibration, calibrate, write_calibration
from simslm.errors import SimslmError
from simslm.fidelity.comparison import Comparison
from simslm.fidelity.recorded import read_sources, validate
from simslm.metrics.whole import write_whole
from simslm.runs.table import MeasuredRun, read_runs

OUTPUT_TOKENS = 260
BATCHES = (1, 4, 32, 64, 128, 256)
DTYPE = "fp16"


@dataclass(frozen=True)
class Study:
    """One model of the table.

    Attributes:
        model: its name.
        fitted: names of the runs calibrated on.
        calibration: what came of it.
        comparisons: every run, the fitted ones included.
        inside: for the predicted runs on a device of their own, by name: which figures lie in their intervals.
    """

    model: str
    fitted: frozenset[str]
    calibration: Calibration
    comparisons: tuple[Comparison, ...]
    inside: Mapping[str, Inside]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path, help="RUNS.csv")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the Markdown page to write")
    parser.add_argument("--jobs", type=int, default=2, help="processes that simulate")
    options = parser.parse_args()
    runs = read_runs(options.table)
    clocks = [run.sm_clock_mhz for run in runs if run.sm_clock_mhz is not None]
    runs = [run for run in runs if run.sm_clock_mhz in (None, max(clocks, default=None))]
    with tempfile.TemporaryDirectory() as directory:
        studies = [
            study([run for run in runs if run.model == model], Path(directory) / model, options.jobs)
            for model in sorted({run.model for run in runs})
        ]
        text = page(studies)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(options.output, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    print(options.output)
    return 0


def study(runs: list[MeasuredRun], directory: Path, jobs: int) -> Study:
    """Calibrates on the six, and predicts all."""
    six = [run for run in runs if is_fitted(run)]
    print(
        f"{runs[0].model}: calibrating on {len(six)} runs, predicting {len(runs) - len(six)}", file=sys.stderr
    )
    model, device = runs[0].model, runs[0].device
    calibration = calibrate(six, model, device, DTYPE)
    write_calibration(directory, calibration, DTYPE, "tests/truth/fidelity.py")
    found = validate(runs, read_sources([directory]), jobs=jobs)
    if found.skipped:
        raise SimslmError(f"run {found.skipped[0].run!r} was not simulated: {found.skipped[0].reason}")
    alone = [run for run in runs if run.replicas == 1 and run not in six]
    inside = covered(alone, directory, DTYPE, calibration.cost.terms["startup"], jobs)
    named = {run.run: each for run, each in zip(alone, inside, strict=True)}
    return Study(model, frozenset(run.run for run in six), calibration, found.comparisons, named)


def is_fitted(run: MeasuredRun) -> bool:
    fixed = run.workload == "fixed" and run.output_tokens == OUTPUT_TOKENS
    return fixed and run.replicas == 1 and run.max_num_seqs in BATCHES


if __name__ == "__main__":
    sys.exit(main())

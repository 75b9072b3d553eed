"""One measured run beside its simulation, and how far the simulation is off over many.

An error is ``simulated / measured - 1``: above 0 the simulation says more than was measured. Where nothing was
measured but 0 it has no size, unless the simulation says 0 too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from simslm.runs.table import MEASURED, MeasuredRun


@dataclass(frozen=True)
class Comparison:
    """A run as measured and as simulated.

    Attributes:
        run: what was run and measured.
        simulated: by column of ``RUNS.csv``.
    """

    run: MeasuredRun
    simulated: Mapping[str, float]

    @property
    def error(self) -> dict[str, float | None]:
        """Signed errors as fractions, of each figure that both have; None where an error has no size."""
        return {
            name: relative_error(measured, self.simulated[name])
            for name, measured in self.run.measured.items()
            if name in self.simulated
        }


def relative_error(measured: float, simulated: float) -> float | None:
    """``simulated / measured - 1``; None when only the measured one is 0."""
    if measured == 0:
        return 0.0 if simulated == 0 else None
    return simulated / measured - 1


def summarize(comparisons: Iterable[Comparison]) -> dict[str, dict[str, float]]:
    """The errors of each metric over runs: ``{n, median_abs_error, p95_abs_error, max_abs_error, bias}``.

    ``bias`` is the mean of the signed errors; the 95th percentile interpolates between order statistics. Runs
    whose error has no size do not count.
    """
    errors: dict[str, list[float]] = {}
    for comparison in comparisons:
        for name, error in comparison.error.items():
            if error is not None:
                errors.setdefault(name, []).append(error)
    return {name: spread_of(errors[name]) for name in MEASURED if name in errors}


def spread_of(errors: list[float]) -> dict[str, float]:
    """The figures of :func:`summarize` for one metric."""
    sizes = np.abs(errors)
    return {
        "n": len(errors),
        "median_abs_error": float(np.median(sizes)),
        "p95_abs_error": float(np.percentile(sizes, 95)),
        "max_abs_error": float(sizes.max()),
        "bias": float(np.mean(errors)),
    }

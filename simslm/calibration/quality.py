"""How far a fit is from the runs it was made of, and whether that is good enough to use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import copysign, expm1, log1p

import numpy as np

from simslm.calibration.evidence import FIRSTS, GAPS, RATES

MOST_RESIDUAL = 0.25
"""Error of a run in throughput, TPOT or ITL beyond which a fit is refused: the same run twice differs by 4 %, and
engines that the terms describe are met within 10 % (h100-vllm, llm-pilot)."""

FAR_OFF = 0.25
"""Median error of the time to first token beyond which every answer says so."""


@dataclass(frozen=True)
class Quality:
    """How far the computed metrics are from the measured ones.

    Attributes:
        residual: the largest error in throughput, TPOT or ITL, without its sign and beyond what chance explains; in
            TTFT where nothing else was measured.
        run, metric, error: where that is, signed; empty and 0 when nothing was measured.
        first_token: the median of the errors in TTFT without their signs; None where it was not measured.
    """

    residual: float
    run: str
    metric: str
    error: float
    first_token: float | None

    def good(self, most: float = MOST_RESIDUAL) -> bool:
        """Whether the fit may be built on."""
        return self.residual <= most

    def flags(self, most: float = MOST_RESIDUAL) -> list[str]:
        """What every answer built on the fit has to say."""
        found = []
        if not self.good(most):
            found.append(
                f"the calibration misses its own runs by up to {100 * self.error:+,.0f} % ({self.metric} of "
                f"{self.run}), more than the {100 * most:g} % that was allowed: it was written with --force, do not "
                "rely on it"
            )
        if self.first_token is not None and self.first_token > FAR_OFF:
            found.append(
                f"the calibration misses the TTFT of its own runs by {100 * self.first_token:,.0f} % in the median: "
                "do not rely on TTFT"
            )
        return found


def quality(errors: Mapping[str, Mapping[str, float]], spreads: Mapping[str, Mapping[str, float]]) -> Quality:
    """Judges the errors of a fit.

    Args:
        errors: by run and metric, computed over measured less 1.
        spreads: by run and metric, the relative standard deviation that a metric has by itself: the ends of a short
            run, arrivals that were drawn anew. Two of them are no misfit.
    """
    sized = [
        (_beyond(error, spreads.get(run, {}).get(name, 0.0)), run, name, error)
        for run, found in errors.items()
        for name, error in found.items()
    ]
    speed = [each for each in sized if each[2] in (*GAPS, *RATES)]
    first = [each for each in sized if each[2] in FIRSTS]
    worst = max(speed or first, default=(0.0, "", "", 0.0))
    return Quality(*worst, float(np.median([abs(each[3]) for each in first])) if first else None)


def _beyond(error: float, spread: float) -> float:
    """The size of an error without what chance explains."""
    change = log1p(max(error, -1 + 1e-9))
    return abs(expm1(copysign(max(abs(change) - 2 * spread, 0.0), change)))

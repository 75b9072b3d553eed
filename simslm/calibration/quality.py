"""How well a fit meets the runs it was made of, and whether that is good enough to build on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from simslm.calibration.evidence import FIRSTS, GAPS, RATES

MOST_RESIDUAL = 0.25
"""Error of a run in throughput, TPOT or ITL beyond which a fit is no answer: the same run twice differs by 4 %, and
engines that the terms describe are met within 10 % (h100-vllm, llm-pilot)."""

FAR_OFF = 0.25
"""Median error of the time to first token beyond which every answer says so."""


@dataclass(frozen=True)
class Quality:
    """How far the computed metrics are from the measured ones.

    Attributes:
        residual: the largest error in throughput, TPOT or ITL, without its sign; in TTFT where nothing else was
            measured.
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
                f"{self.run}), more than the {100 * most:g} % that was allowed: it was written with --force, do not rely "
                "on it"
            )
        if self.first_token is not None and self.first_token > FAR_OFF:
            found.append(
                f"the calibration misses the TTFT of its own runs by {100 * self.first_token:,.0f} % in the median: "
                "do not rely on TTFT"
            )
        return found


def quality(errors: Mapping[str, Mapping[str, float]]) -> Quality:
    """Judges the errors of a fit.

    Args:
        errors: by run and metric, computed over measured less 1.
    """
    speed = [
        (abs(error), run, name, error)
        for run, found in errors.items()
        for name, error in found.items()
        if name in (*GAPS, *RATES)
    ]
    first = [
        (abs(error), run, name, error)
        for run, found in errors.items()
        for name, error in found.items()
        if name in FIRSTS
    ]
    worst = max(speed or first, default=(0.0, "", "", 0.0))
    return Quality(*worst, float(np.median([each[0] for each in first])) if first else None)

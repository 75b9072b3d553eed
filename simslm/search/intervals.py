"""What a few seeds tell: intervals of means, and whether one point really is better than another.

Points are compared seed by seed: under the same seed they serve the same requests (common random numbers), so the
differences vary less than the figures. Student's t for the mean of the differences (Law 2015, "Simulation Modeling
and Analysis", section 10.2.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import sqrt

from simslm.search.pareto import Gains

TEST = (
    "paired t interval of the differences under the same seeds: a point is dominated only by one whose interval "
    "lies at or above 0 in every objective and above 0 in at least one"
)
"""The rule, for files and pages."""


def interval(values: Sequence[float], confidence: float) -> tuple[float, float] | None:
    """The two-sided t interval of the mean; None from a single value."""
    if len(values) < 2:
        return None
    mean = sum(values) / len(values)
    spread = sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    half = quantile(confidence, len(values) - 1) * spread / sqrt(len(values))
    return mean - half, mean + half


@cache
def quantile(confidence: float, degrees: int) -> float:
    """The quantile of Student's t at which a two-sided interval ends."""
    from scipy.stats import t

    return float(t.ppf((1 + confidence) / 2, degrees))


def surely_dominates(first: Sequence[Gains], second: Sequence[Gains], confidence: float) -> bool:
    """Whether the first dominates the second beyond what the seeds leave open.

    Both hold the gains under the same seeds, in the same order. Under one seed there is nothing to test, and it is
    plain dominance.
    """
    better = False
    for gains, others in zip(zip(*first, strict=True), zip(*second, strict=True), strict=True):
        differences = [a - b for a, b in zip(gains, others, strict=True)]
        low = min(interval(differences, confidence) or differences)
        if low < 0:
            return False
        better = better or low > 0
    return better

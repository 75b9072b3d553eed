"""What a few seeds tell: intervals of means, and whether one point really is better than another.

Points are compared seed by seed: under the same seed they serve the same requests (common random numbers), so the
differences vary less than the figures. Student's t for the mean of the differences (Law 2015, "Simulation Modeling
and Analysis", section 10.2.1).
"""

from __future__ import annotations

from collections.abc import Sequence

from simslm.comparison.student import interval
from simslm.search.pareto import Gains

TEST = (
    "paired t interval of the differences under the same seeds: a point is dominated only by one whose interval "
    "lies at or above 0 in every objective and above 0 in at least one"
)
"""The rule, for files and pages."""


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

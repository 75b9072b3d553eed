"""Confidence intervals of a median, for values of any distribution."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

LEVEL = 0.95
"""Confidence of an interval."""

LEAST = 6
"""Values that tell an interval of that confidence."""


def median_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float] | None:
    """The interval between two order statistics that holds the median with at least this confidence.

    Of ``n`` values, the ``k``-th smallest and the ``k``-th largest hold it with ``1 - 2 P(Binomial(n, 1/2) < k)``
    (Conover 1999, "Practical Nonparametric Statistics", section 3.2). None where even all values do not: below 6 of
    them, at 95 %.
    """
    count, outside, trimmed = len(values), 0.0, 0
    while 2 * (outside := outside + comb(count, trimmed) / 2**count) <= 1 - level:
        trimmed += 1
    if not trimmed:
        return None
    ordered = sorted(values)
    return ordered[trimmed - 1], ordered[-trimmed]

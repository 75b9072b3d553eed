"""When a median is known well enough, and which calls lie far from the others of their shape.

Both ask for no distribution: latencies have long tails on one side.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from simslm.traces.medians import median_interval

WITHIN = 0.01
"""Half an interval over its median at which a median is known well enough."""

_FAR = 3.5
_NORMAL = 0.6745
_NOTABLE = 0.05


def settled(values: Sequence[float], within: float = WITHIN) -> bool:
    """Whether half the median's interval is at most this share of the median."""
    interval = median_interval(values)
    return interval is not None and (interval[1] - interval[0]) / 2 <= within * median(values)


def outliers(values: Sequence[float]) -> list[bool]:
    """Which values lie far from the median, by a modified z-score above 3.5 (Iglewicz & Hoaglin 1993, section 3.3).

    One within 5 % of the median is none, however close the others are to each other.
    """
    middle = median(values)
    deviation = median(abs(value - middle) for value in values)
    return [
        _NORMAL * abs(value - middle) > _FAR * deviation and abs(value - middle) > _NOTABLE * middle
        for value in values
    ]

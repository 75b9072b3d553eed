"""Figures as a screen shows them: shares, and durations of a row or an axis in one unit."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TimeUnit:
    """A unit of time and how many of it a second holds."""

    name: str
    per_s: float

    def show(self, value_s: float | None) -> str:
        """A figure without its unit, three digits or two places: ``0.04``, ``4.10``, ``231``, ``12,345``."""
        if value_s is None or not math.isfinite(value_s):
            return "–"
        value = value_s * self.per_s
        places = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
        return f"{value:,.{places}f}"


SECOND = TimeUnit("s", 1.0)
MILLISECOND = TimeUnit("ms", 1e3)
MICROSECOND = TimeUnit("µs", 1e6)


def time_unit(values_s: Iterable[float | None]) -> TimeUnit:
    """The unit in which the median of ``values_s``, unknown and zero ones aside, is at least 1."""
    known = sorted(v for v in values_s if v is not None and math.isfinite(v) and v > 0)
    middle = known[len(known) // 2] if known else 0.0
    if middle >= 1.0:
        return SECOND
    return MILLISECOND if middle >= 1e-3 or not known else MICROSECOND


def share(value: float) -> str:
    """A share for a screen: ``43 %``, ``0.4 %``, ``99.97 %``; 0 % and 100 % only when it is exactly that."""
    percent = value * 100
    if 0 < percent < 0.1:
        return "under 0.1 %"
    if 99 < percent < 100:
        return f"{min(percent, 99.99):.2f} %" if percent > 99.9 else f"{percent:.1f} %"
    return f"{percent:.1f} %" if 0 < percent < 10 else f"{percent:.0f} %"


def attained(value: float) -> str:
    """A share held against a target: ``89.9 %``, rounded down so that a miss never reads as met."""
    tenths = math.floor(round(value * 1000, 6))
    return "100 %" if tenths == 1000 else f"{tenths / 10:.1f} %"


def count(value: float | None) -> str:
    """A whole number with thousands separators."""
    return "–" if value is None else f"{value:,.0f}"

"""Student's t intervals of means, and of differences of means."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import sqrt


def interval(values: Sequence[float], confidence: float) -> tuple[float, float] | None:
    """The two-sided t interval of the mean; None from a single value."""
    if len(values) < 2:
        return None
    mean = sum(values) / len(values)
    half = quantile(confidence, len(values) - 1) * sqrt(spread(values, mean)) / sqrt(len(values))
    return mean - half, mean + half


def spread(values: Sequence[float], about: float) -> float:
    """The sample variance of at least two values about a number."""
    return sum((value - about) ** 2 for value in values) / (len(values) - 1)


def welch(
    delta: float, baseline: tuple[float, int], other: tuple[float, int], confidence: float
) -> tuple[float, float]:
    """The interval of a difference of two means (Welch 1947), each given as its variance and its sample size."""
    (first, n), (second, m) = baseline, other
    if not first + second:
        return delta, delta
    degrees = (first + second) ** 2 / (first**2 / (n - 1) + second**2 / (m - 1))
    half = quantile(confidence, degrees) * sqrt(first + second)
    return delta - half, delta + half


def quantile(confidence: float, degrees: float) -> float:
    """The quantile of Student's t at which a two-sided interval ends; degrees of freedom may be fractional."""
    return _quantile(confidence, round(degrees, 6))


@cache
def _quantile(confidence: float, degrees: float) -> float:
    from scipy.special import stdtrit  # pyright: ignore[reportMissingTypeStubs] - scipy ships no types

    return float(stdtrit(degrees, (1 + confidence) / 2))

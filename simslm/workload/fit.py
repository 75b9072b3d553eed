"""Parameters of a distribution from its mean and 95th percentile.

Each family's ratio p95 / mean depends on one parameter only. It rises from 1 as the distribution spreads, has
one maximum, and falls again: two members fit most ratios, and the one of smaller spread is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable

Z95 = 1.6448536269514722
"""The 95th percentile of the standard normal distribution."""

_BISECTIONS = 200
_PEAK = {"gamma": 0.087694229, "weibull": 0.402902793}
"""The shape at which p95 / mean is largest; the spread falls as the shape grows."""


def lognormal_parameters(mean: float, p95: float) -> tuple[float, float]:
    """``(mu, sigma)``: with ``m = exp(mu + sigma^2 / 2)`` and ``p = exp(mu + z sigma)``, the smaller root of
    ``sigma^2 / 2 - z sigma + ln(p / m) = 0``.

    Raises:
        ValueError: when no lognormal has this pair.
    """
    under_root = Z95**2 - 2 * math.log(p95 / mean)
    if p95 <= mean or under_root < 0:
        raise ValueError(f"no lognormal with mean {mean:g} and p95 {p95:g}")
    sigma = Z95 - math.sqrt(under_root)
    return math.log(mean) - sigma**2 / 2, sigma


def gamma_parameters(mean: float, p95: float) -> tuple[float, float]:
    """``(shape, scale)`` of the gamma distribution with this mean and p95.

    Raises:
        ValueError: when no gamma distribution has this pair.
    """
    shape = _shape(gamma_ratio, "gamma", mean, p95)
    return shape, mean / shape


def weibull_parameters(mean: float, p95: float) -> tuple[float, float]:
    """``(shape, scale)`` of the Weibull distribution with this mean and p95.

    Raises:
        ValueError: when no Weibull distribution has this pair.
    """
    shape = _shape(weibull_ratio, "weibull", mean, p95)
    return shape, mean / math.gamma(1 + 1 / shape)


def gamma_ratio(shape: float) -> float:
    """p95 / mean of a gamma distribution."""
    from scipy.special import gammaincinv

    return float(gammaincinv(shape, 0.95)) / shape


def weibull_ratio(shape: float) -> float:
    """p95 / mean of a Weibull distribution: ``ln(20)^(1/k) / Gamma(1 + 1/k)``."""
    return math.log(20) ** (1 / shape) / math.gamma(1 + 1 / shape)


def _shape(ratio: Callable[[float], float], family: str, mean: float, p95: float) -> float:
    """The shape above the peak whose ratio is ``p95 / mean``, by bisection of its logarithm."""
    low, high = math.log(_PEAK[family]), math.log(1e9)
    target = p95 / mean
    if not ratio(math.exp(high)) < target <= ratio(math.exp(low)):
        raise ValueError(f"no {family} distribution with mean {mean:g} and p95 {p95:g}")
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if ratio(math.exp(middle)) > target else (low, middle)
    return math.exp(high)

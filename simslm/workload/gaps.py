"""Laws of the gaps between arrivals, each of mean 1: from a random stream to as many as are asked for."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from simslm.scenario.arrivals import ExponentialLaw, GammaLaw, QuantileLaw, WeibullLaw
from simslm.scenario.lengths import Quantiles

Draw = Callable[[int], np.ndarray]
Law = ExponentialLaw | GammaLaw | WeibullLaw | QuantileLaw
_BISECTIONS = 200


def unit_gaps(law: Law, rng: np.random.Generator) -> Draw:
    """Draws gaps of mean 1 of a law; drawn in pieces they are those drawn at once."""
    if isinstance(law, GammaLaw):
        return gamma_gaps(law.cv, rng)
    if isinstance(law, WeibullLaw):
        return weibull_gaps(law.cv, rng)
    if isinstance(law, QuantileLaw):
        at, unit = _unit_quantiles(law)
        return lambda count: np.interp(rng.random(count), at, unit)
    return rng.standard_exponential


def first_gap(law: Law, rng: np.random.Generator) -> float:
    """The time to the first arrival of a process of rate 1 that has always been running.

    A uniform part of a gap that is met in proportion to its length (Cox, Renewal Theory, 1962, section 5.4): a gamma's
    of shape ``k + 1``, and of Weibull gaps ``G^(1/k)`` with ``G`` gamma of shape ``1 + 1/k``.
    """
    part = rng.random()
    if isinstance(law, GammaLaw):
        shape = 1 / law.cv**2
        return part * float(rng.standard_gamma(shape + 1)) / shape
    if isinstance(law, WeibullLaw):
        power = 1 / weibull_shape(law.cv)
        return part * float(rng.standard_gamma(1 + power)) ** power / math.gamma(1 + power)
    if isinstance(law, QuantileLaw):
        at, unit = _unit_quantiles(law)
        low, high = unit[:-1], unit[1:]
        weights = np.diff(at) * (low + high)
        ends = np.cumsum(weights)
        i = min(int(np.searchsorted(ends, rng.random() * ends[-1], side="right")), len(weights) - 1)
        # Within a straight piece the density that weighs with the length rises linearly: its inverse is a root.
        return part * math.sqrt(low[i] ** 2 + rng.random() * (high[i] ** 2 - low[i] ** 2))
    return float(rng.standard_exponential())


def running_sums(draw: Draw, last: float = 0.0) -> Draw:
    """Running sums of gaps, the next ``count`` each time, from ``last`` on."""

    def take(count: int) -> np.ndarray:
        nonlocal last
        # The last sum goes into the sum, and is not added afterwards: only so are pieces equal to the whole to the
        # bit.
        points = np.cumsum(np.concatenate(([last], draw(count))))[1:]
        last = float(points[-1]) if count else last
        return points

    return take


def gamma_gaps(cv: float, rng: np.random.Generator) -> Draw:
    """Gamma gaps of mean 1: of shape ``1 / cv^2``, as a gamma's coefficient of variation is ``shape^-0.5``."""
    shape = 1 / cv**2
    return lambda count: rng.standard_gamma(shape, count) / shape


def weibull_gaps(cv: float, rng: np.random.Generator) -> Draw:
    """Weibull gaps of mean 1: ``E^(1/k) / Gamma(1 + 1/k)`` of exponential ``E``, see :func:`weibull_shape`."""
    power = 1 / weibull_shape(cv)
    mean = math.gamma(1 + power)
    return lambda count: rng.standard_exponential(count) ** power / mean


def weibull_shape(cv: float) -> float:
    """The shape ``k`` of ``cv^2 = Gamma(1 + 2/k) / Gamma(1 + 1/k)^2 - 1``, by bisection of its logarithm.

    Args:
        cv: from 0.01 to 100; it falls as the shape grows.
    """
    low, high = math.log(0.05), math.log(1e3)
    # In logarithms, because the gamma functions overflow for small shapes.
    target = math.log1p(cv**2)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        power = math.exp(-middle)
        above = math.lgamma(1 + 2 * power) - 2 * math.lgamma(1 + power) > target
        low, high = (middle, high) if above else (low, middle)
    return math.exp(high)


def probabilities(law: QuantileLaw | Quantiles) -> np.ndarray:
    """The probability of each quantile."""
    return np.linspace(0.0, 1.0, len(law.values)) if law.at is None else np.asarray(law.at)


def _unit_quantiles(law: QuantileLaw) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and quantiles of mean 1; the mean of straight lines is that of their middles."""
    at, values = probabilities(law), np.asarray(law.values)
    return at, values / np.dot(np.diff(at), (values[1:] + values[:-1]) / 2)

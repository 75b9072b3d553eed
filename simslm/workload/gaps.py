"""Laws of the gaps between arrivals, each of mean 1: from a random stream to as many as are asked for."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from simslm.scenario.arrivals import ExponentialLaw, GammaLaw, QuantileLaw, WeibullLaw
from simslm.scenario.lengths import Quantiles

Draw = Callable[[int], np.ndarray]
_BISECTIONS = 200


def unit_gaps(law: ExponentialLaw | GammaLaw | WeibullLaw | QuantileLaw, rng: np.random.Generator) -> Draw:
    """Draws gaps of mean 1 of a law; drawn in pieces they are those drawn at once."""
    if isinstance(law, GammaLaw):
        return gamma_gaps(law.cv, rng)
    if isinstance(law, WeibullLaw):
        return weibull_gaps(law.cv, rng)
    if isinstance(law, QuantileLaw):
        return _quantile_gaps(probabilities(law), np.asarray(law.values), rng)
    return rng.standard_exponential


def running_sums(draw: Draw) -> Draw:
    """Running sums of gaps, the next ``count`` each time."""
    last = 0.0

    def take(count: int) -> np.ndarray:
        nonlocal last
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


def _quantile_gaps(at: np.ndarray, values: np.ndarray, rng: np.random.Generator) -> Draw:
    """Gaps by quantiles; the mean of straight lines is that of their middles."""
    unit = values / np.dot(np.diff(at), (values[1:] + values[:-1]) / 2)
    return lambda count: np.interp(rng.random(count), at, unit)

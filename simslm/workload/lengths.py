"""How long generated prompts and outputs are: whole tokens, at least 1.

Listed lengths are taken as they are. Every other length is one uniform number turned through the distribution's
inverse, rounded to the nearest whole token (halves up), and at least 1. ``min`` and ``max`` condition the
distribution: the uniform number is stretched over the probability between ``min - 1/2`` and ``max + 1/2``, so
the bounds gather no extra mass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from simslm.errors import ScenarioError
from simslm.scenario.workload import Empirical, Fixed, Gamma, Listed, Lognormal, Mixture, Uniform, Weibull
from simslm.workload.fit import gamma_parameters, lognormal_parameters, weibull_parameters
from simslm.workload.readers.column import read_column

Array = np.ndarray


class Law(NamedTuple):
    """A continuous distribution: probability below a value, and the value at a probability (of an array)."""

    below: Callable[[float], float]
    at: Callable[[Array], Array]


def draw_lengths(lengths: Any, count: int, rng: np.random.Generator, base_dir: Path) -> Array:
    """Draws lengths, shape ``(count,)``, int64, each at least 1.

    Args:
        lengths: one of the distributions of :mod:`simslm.scenario.workload`.
        count: how many.
        rng: the stream they are drawn from.
        base_dir: what an empirical distribution's file is relative to.

    Raises:
        ScenarioError: when ``min`` and ``max`` leave nothing, or a file cannot be used.
    """
    if isinstance(lengths, Mixture):
        return _mixture(lengths, count, rng, base_dir)
    if isinstance(lengths, Listed):
        return np.resize(np.array(lengths.values, dtype=np.int64), count)
    return _from_uniform(lengths, rng.random(count), base_dir)


def _mixture(mixture: Mixture, count: int, rng: np.random.Generator, base_dir: Path) -> Array:
    which, uniform = rng.random(count), rng.random(count)
    ends = np.cumsum([component.weight for component in mixture.components])
    chosen = np.minimum(np.searchsorted(ends, which * ends[-1], side="right"), len(ends) - 1)
    drawn = np.zeros(count, dtype=np.int64)
    for index, component in enumerate(mixture.components):
        mine = chosen == index
        drawn[mine] = _from_uniform(component, uniform[mine], base_dir)
    return drawn


def _from_uniform(lengths: Any, uniform: Array, base_dir: Path) -> Array:
    if isinstance(lengths, Fixed):
        return np.full(len(uniform), lengths.value, dtype=np.int64)
    if isinstance(lengths, Uniform):
        return lengths.low + np.floor(uniform * (lengths.high - lengths.low + 1)).astype(np.int64)
    if isinstance(lengths, Empirical):
        return _empirical(lengths, uniform, base_dir)
    law = _law(lengths)
    low, high = lengths.min or 1, lengths.max or math.inf
    first = law.below(low - 0.5) if lengths.min else 0.0
    last = law.below(high + 0.5) if lengths.max else 1.0
    if not first < last:
        raise ScenarioError(
            f"{lengths.dist} lengths: none fall between min ({lengths.min}) and max ({lengths.max})",
            remedy="widen the bounds or move the distribution",
        )
    with np.errstate(over="ignore"):
        values = np.floor(law.at(first + uniform * (last - first)) + 0.5)
    return np.clip(values, low, min(high, 2**53)).astype(np.int64)


def _law(lengths: Any) -> Law:
    if isinstance(lengths, Lognormal):
        return _lognormal(*_own_or(lengths, lognormal_parameters))
    if isinstance(lengths, Gamma):
        return _gamma(*_own_or(lengths, gamma_parameters))
    if isinstance(lengths, Weibull):
        return _weibull(*_own_or(lengths, weibull_parameters))
    raise TypeError(f"no length distribution: {lengths!r}")


def _own_or(lengths: Any, solve: Callable[[float, float], tuple[float, float]]) -> tuple[float, float]:
    """A distribution's own two parameters, solved for when it is given by mean and p95."""
    if lengths.mean is not None:
        try:
            return solve(lengths.mean, lengths.p95)
        except ValueError as error:
            raise ScenarioError(str(error), remedy="for nearly equal lengths use {dist: fixed}") from None
    first, second = lengths.own
    return getattr(lengths, first), getattr(lengths, second)


def _lognormal(mu: float, sigma: float) -> Law:
    from scipy.special import ndtr, ndtri

    if sigma == 0:
        return Law(lambda x: float(math.log(x) >= mu), lambda u: np.full(len(u), math.exp(mu)))
    return Law(lambda x: float(ndtr((math.log(x) - mu) / sigma)), lambda u: np.exp(mu + sigma * ndtri(u)))


def _gamma(shape: float, scale: float) -> Law:
    from scipy.special import gammainc, gammaincinv

    return Law(lambda x: float(gammainc(shape, x / scale)), lambda u: scale * gammaincinv(shape, u))


def _weibull(shape: float, scale: float) -> Law:
    def below(x: float) -> float:
        with np.errstate(over="ignore"):
            return -math.expm1(-float(np.float_power(x / scale, shape)))

    return Law(below, lambda u: scale * (-np.log1p(-u)) ** (1 / shape))


def _empirical(lengths: Empirical, uniform: Array, base_dir: Path) -> Array:
    path = base_dir / lengths.file
    values = np.sort(read_column(path, lengths.column))
    values = values[(values >= (lengths.min or 1)) & (values <= (lengths.max or math.inf))]
    if not len(values):
        raise ScenarioError(
            f"column {lengths.column!r} has no lengths of at least 1 within min and max", where=str(path)
        )
    return values[(uniform * len(values)).astype(np.int64)]

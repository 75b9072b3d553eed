"""How long generated prompts and outputs are: whole tokens, at least 1.

Listed lengths are taken as they are. Every other length is one uniform number turned through the distribution's
inverse, rounded to the nearest whole token (halves up), and at least 1. ``min`` and ``max`` condition the
distribution: the uniform number is stretched over the probability between ``min - 1/2`` and ``max + 1/2``, so
the bounds gather no extra mass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from simslm.errors import ScenarioError
from simslm.scenario.lengths import (
    Empirical,
    Fixed,
    Gamma,
    Listed,
    Lognormal,
    Mixture,
    Quantiles,
    Uniform,
    Weibull,
)
from simslm.workload.fit import gamma_parameters, lognormal_parameters, weibull_parameters
from simslm.workload.gaps import probabilities
from simslm.workload.readers.column import read_column

Array = np.ndarray


class Law(NamedTuple):
    """A continuous distribution: probability below a value, and the value at a probability (of an array)."""

    below: Callable[[float], float]
    at: Callable[[Array], Array]


Draw = Callable[[int], Array]
"""The next lengths: as many as asked for."""

Turn = Callable[[Array], Array]
"""From uniform numbers to lengths."""


def draw_lengths(lengths: Any, count: int, rng: np.random.Generator, base_dir: Path) -> Array:
    """Draws lengths at once, shape ``(count,)``, int64, each at least 1: see :func:`length_draws`."""
    return length_draws(lengths, count, rng, base_dir)(count)


def length_draws(lengths: Any, total: int, rng: np.random.Generator, base_dir: Path) -> Draw:
    """What draws lengths in pieces, which are those drawn at once.

    Args:
        lengths: one of the distributions of :mod:`simslm.scenario.lengths`.
        total: how many there will be in all.
        rng: the stream they are drawn from.
        base_dir: what an empirical distribution's file is relative to.

    Raises:
        ScenarioError: when ``min`` and ``max`` leave nothing, or a file cannot be used.
    """
    if isinstance(lengths, Mixture):
        return _mixture(lengths, total, rng, base_dir)
    if isinstance(lengths, Listed):
        return _listed(np.array(lengths.values, dtype=np.int64))
    turned = turn(lengths, base_dir)
    return lambda count: turned(rng.random(count))


def _listed(values: Array) -> Draw:
    done = 0

    def draw(count: int) -> Array:
        nonlocal done
        done += count
        return values[np.arange(done - count, done) % len(values)]

    return draw


def _mixture(mixture: Mixture, total: int, rng: np.random.Generator, base_dir: Path) -> Draw:
    """Two uniform numbers for each request: which component, and where in it; the second ``total`` on in the stream."""
    further = deepcopy(rng.bit_generator)
    assert isinstance(further, np.random.PCG64)  # each number of its stream is one step of its state
    which, within = rng, np.random.Generator(further.advance(total))
    ends = np.cumsum([component.weight for component in mixture.components])
    turns = [turn(component, base_dir) for component in mixture.components]

    def draw(count: int) -> Array:
        drawn, uniform = np.zeros(count, dtype=np.int64), within.random(count)
        chosen = np.searchsorted(ends, which.random(count) * ends[-1], side="right")
        for index, turned in enumerate(turns):
            mine = np.minimum(chosen, len(ends) - 1) == index
            drawn[mine] = turned(uniform[mine])
        return drawn

    return draw


def turn(lengths: Any, base_dir: Path) -> Turn:
    """The inverse of a distribution that is neither a mixture nor a list, on numbers from 0 to 1."""
    if isinstance(lengths, Fixed):
        return lambda uniform: np.full(len(uniform), lengths.value, dtype=np.int64)
    if isinstance(lengths, Uniform):
        span = lengths.high - lengths.low + 1
        return lambda uniform: lengths.low + np.floor(uniform * span).astype(np.int64)
    if isinstance(lengths, Empirical):
        return _empirical(lengths, base_dir)
    law = _law(lengths)
    low, high = lengths.min or 1, lengths.max or math.inf
    first = law.below(low - 0.5) if lengths.min else 0.0
    last = law.below(high + 0.5) if lengths.max else 1.0
    if not first < last:
        raise ScenarioError(
            f"{lengths.dist} lengths: none fall between min ({lengths.min}) and max ({lengths.max})",
            remedy="widen the bounds or move the distribution",
        )

    def turned(uniform: Array) -> Array:
        with np.errstate(over="ignore"):
            values = np.floor(law.at(first + uniform * (last - first)) + 0.5)
        return np.clip(values, low, min(high, 2**53)).astype(np.int64)

    return turned


def _law(lengths: Any) -> Law:
    if isinstance(lengths, Lognormal):
        return _lognormal(*_own_or(lengths, lognormal_parameters))
    if isinstance(lengths, Gamma):
        return _gamma(*_own_or(lengths, gamma_parameters))
    if isinstance(lengths, Weibull):
        return _weibull(*_own_or(lengths, weibull_parameters))
    if isinstance(lengths, Quantiles):
        return _quantiles(probabilities(lengths), np.asarray(lengths.values, dtype=float))
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


def _quantiles(at: Array, values: Array) -> Law:
    """Straight lines between quantiles; a half token stands between two values, so that repeated ones do no harm."""
    return Law(lambda x: float(np.interp(x, values, at)), lambda u: np.interp(u, at, values))


def _empirical(lengths: Empirical, base_dir: Path) -> Turn:
    path = base_dir / lengths.file
    values = np.sort(read_column(path, lengths.column))
    values = values[(values >= (lengths.min or 1)) & (values <= (lengths.max or math.inf))]
    if not len(values):
        raise ScenarioError(
            f"column {lengths.column!r} has no lengths of at least 1 within min and max", where=str(path)
        )
    return lambda uniform: values[(uniform * len(values)).astype(np.int64)]

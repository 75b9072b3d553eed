"""Intervals of the mean of a series of consecutive requests, from sections that are nearly independent of each other.

Requests of a run are no independent draws: they queue for the same device. What the mean would have been under other
requests therefore shows only in sections that are much longer than the memory of the series. The memory is its
integrated autocorrelation time τ, estimated by the initial monotone sequence (Geyer 1992, "Practical Markov Chain Monte
Carlo", Statistical Science 7(4), section 3.3). A section holds at least :data:`REACH` τ (Sokal 1997, "Monte Carlo
Methods in Statistical Mechanics", lecture 3), and there are :data:`FEWEST` to :data:`MOST` of them; a series too short
for that has no interval. The rest is Student's t over the means of the sections (batch means: Law 2015, "Simulation
Modeling and Analysis", section 9.5.3), widened by what correlation remains between neighbours and, on the side of the
skew, by the skewness (both as in Skart: Tafazzoli, Wilson, Lada and Steiger 2011, INFORMS Journal on Computing 23(2),
section 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cbrt, sqrt

import numpy as np

from simslm.comparison.student import quantile

CONFIDENCE = 0.95
FEWEST, MOST = 10, 32
"""Sections of a run."""

REACH = 5
"""Integrated autocorrelation times that a section is long."""

LEAST = 10
"""Observations that each section holds, and, of a share or a quantile, on average those on the rarer side of it."""

RESOLVED = 2048
"""Consecutive requests are averaged to so many values before their memory is estimated."""


@dataclass(frozen=True, slots=True)
class Margins:
    """How far below and above an estimate the truth may lie, at 95 %."""

    low: float
    high: float

    def scaled(self, factor: float) -> Margins:
        """The margins of the estimate times a factor, which is not negative."""
        return Margins(self.low * factor, self.high * factor)


def margins(values: np.ndarray, most: int = MOST, least_memory: float = 1.0) -> Margins | None:
    """The margins of the mean of a series; None where the series is too short for its memory.

    Args:
        values: of consecutive requests, shape ``(n,)``, finite.
        most: sections at most.
        least_memory: requests that are known to depend on each other.
    """
    number = sections(values, most, least_memory)
    return None if number is None else of_sections(grouped(values, number))


def sections(values: np.ndarray, most: int = MOST, least_memory: float = 1.0) -> int | None:
    """How many the series can be cut into; None where that is too few."""
    number = int(len(values) / max(REACH * max(memory(values), least_memory), LEAST))
    number = min(number, most, MOST)
    return number if number >= FEWEST else None


def memory(values: np.ndarray) -> float:
    """The integrated autocorrelation time of a series, in requests; at least 1."""
    if len(values) < 2:
        return 1.0
    # Averaging first costs nothing in the estimate and bounds the transform: a million requests take milliseconds.
    fine = grouped(values, min(len(values), RESOLVED))
    covariance = _autocovariance(fine)
    # A constant series: what is left is rounding, and its autocorrelation noise.
    if covariance[0] <= 1e-24 * max(1.0, float(np.max(np.abs(fine)))) ** 2:
        return 1.0
    pairs = covariance[: len(fine) // 2 * 2].reshape(-1, 2).sum(axis=1)
    # Sums of neighbouring lags of a reversible chain are positive and fall (Geyer); the first that is not is noise,
    # and so is all behind it.
    monotone = np.minimum.accumulate(pairs)
    positive = monotone[: int(np.argmax(monotone <= 0))] if (monotone <= 0).any() else monotone
    times = (2 * float(positive.sum()) - covariance[0]) / covariance[0]
    return max(times, 1.0) * len(values) / len(fine)


def grouped(values: np.ndarray, number: int) -> np.ndarray:
    """The means of consecutive parts, as equally long as they can be, shape ``(number,)``."""
    edges = np.linspace(0, len(values), number + 1).astype(int)
    return np.add.reduceat(values, edges[:-1]) / np.diff(edges)


def of_sections(means: np.ndarray) -> Margins:
    """Margins of the mean of some sections' means, at least three."""
    count = len(means)
    around = means - means.mean()
    squares = float(around @ around)
    if squares <= 1e-24 * float(means @ means):
        return Margins(0.0, 0.0)
    # The sections are only nearly independent. The lag-1 correlation of few values is too low by about 1/n; a
    # negative one is not believed, because it would narrow the interval.
    follows = max(float(around[1:] @ around[:-1]) / squares + 1 / count, 0.0)
    variance = squares / (count - 1)
    error = sqrt(variance / count * (1 + follows) / (1 - follows))
    cubes: np.ndarray = around**3
    skewness = count**2 / ((count - 1) * (count - 2)) * float(np.mean(cubes)) / variance**1.5
    student = quantile(CONFIDENCE, count - 1)
    # Means of latencies are skewed to the right. The plain t is kept where the transformation would be narrower.
    low, high = (abs(_skewed(sign * student, skewness / (6 * sqrt(count)))) for sign in (1, -1))
    return Margins(error * max(student, low), error * max(student, high))


def _skewed(student: float, beta: float) -> float:
    """Johnson's transformation of a t value for a skewed mean (Johnson 1978, JASA 73(363); Skart, section 3.4)."""
    if abs(beta) < 1e-9:
        return student
    return (cbrt(1 + 6 * beta * (student - beta)) - 1) / (2 * beta)


def _autocovariance(values: np.ndarray) -> np.ndarray:
    """At lags 0 to n − 1, shape ``(n,)``, each divided by n."""
    count = len(values)
    # Padded to twice the length, or the correlation would wrap round from the end to the beginning.
    size = 1 << (2 * count - 1).bit_length()
    spectrum = np.fft.rfft(values - values.mean(), size)
    return np.fft.irfft(spectrum * np.conj(spectrum), size)[:count] / count

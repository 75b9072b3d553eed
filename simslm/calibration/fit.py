"""Bounded least squares over the logarithms of the terms.

Residuals are in standard deviations: those of the runs (:mod:`evidence`), of iterations measured offline, and of what
was known before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log

import numpy as np
from scipy.optimize import least_squares

from simslm.calibration import prior as known
from simslm.calibration.evidence import METRICS, Evidence, evidence
from simslm.calibration.offline import Step
from simslm.calibration.prior import PRIORS
from simslm.calibration.schedule import Schedule
from simslm.cost.physical import PhysicalCost
from simslm.errors import UsageError

UNDETERMINED = 0.8
"""Share of its prior's spread from which the fit has learnt little about a term."""

ALIKE = 0.95
"""Correlation from which two terms cannot be told apart."""

_AT_BOUND = 1e-3
_EVALUATIONS = 60
_STEP = 1e-4


@dataclass(frozen=True)
class Fit:
    """Terms with what is known of them.

    Attributes:
        cost: with the fitted terms.
        names: of those that were fitted.
        covariance: of their logarithms.
        scale: by which residuals exceed what was expected, at least 1; in the covariance already.
        remarks: what the runs do not tell, for the user.
    """

    cost: PhysicalCost
    names: tuple[str, ...]
    covariance: np.ndarray
    scale: float
    remarks: tuple[str, ...]

    @property
    def stderr(self) -> dict[str, float]:
        """Standard error of each fitted term, in its own unit."""
        spreads = np.sqrt(np.diag(self.covariance))
        return {name: self.cost.terms[name] * float(s) for name, s in zip(self.names, spreads, strict=True)}


def fit(
    schedules: Sequence[Schedule], steps: Sequence[Step], cost: PhysicalCost, *, everywhere: bool = True
) -> PhysicalCost:
    """The terms that match measured runs best, as their schedules re-price them.

    Args:
        schedules: what the runs did.
        steps: iterations measured offline.
        cost: a cost model whose terms are replaced.
        everywhere: start from several guesses beside the cost's own terms.

    Raises:
        UsageError: the runs have no metric that could be matched.
    """
    names, found = tuple(PRIORS), _evidence(schedules, steps)
    low, high = known.logs(names, "low"), known.logs(names, "high")
    starts: list[Mapping[str, float]] = [cost.terms]
    starts += [{**known.medians(), **start} for start in known.STARTS] if everywhere else []
    best = None
    # Latency is a maximum of compute and traffic: from a start at which one hides the other the gradient never sees
    # it.
    for start in starts:
        tried = least_squares(
            lambda x: residuals(_changed(cost, names, x), found, steps),
            np.clip(np.log([start[name] for name in names]), low + 1e-6, high - 1e-6),
            bounds=(low, high),
            x_scale=0.1,
            max_nfev=_EVALUATIONS,
        )
        if best is None or tried.cost < best.cost:
            best = tried
    assert best is not None
    return _changed(cost, names, best.x)


def assess(schedules: Sequence[Schedule], steps: Sequence[Step], cost: PhysicalCost) -> Fit:
    """What is known of the terms of a cost model that was fitted.

    Args:
        schedules: of the runs, simulated with it.
        steps: iterations measured offline.
        cost: with the fitted terms.

    Raises:
        UsageError: the runs have no metric that could be matched.
    """
    names, found = tuple(PRIORS), _evidence(schedules, steps)
    low, high = known.logs(names, "low"), known.logs(names, "high")
    x = np.log([cost.terms[name] for name in names])

    def at(point: np.ndarray) -> np.ndarray:
        return residuals(_changed(cost, names, point), found, steps)

    here = at(x)
    steps_of = _STEP * np.eye(len(names))
    # Central differences: those of ``least_squares`` are one-sided, and wrong at a kink of the latency.
    jacobian = np.column_stack([(at(x + each) - at(x - each)) / (2 * _STEP) for each in steps_of])
    data = len(here) - len(names)
    # At least 1: residuals that happen to be small do not make the terms better known than the assumed errors.
    scale = max(float(np.sqrt(here @ here / max(data, 1))), 1.0)
    covariance = np.linalg.inv(jacobian.T @ jacobian) * scale**2
    remarks = _remarks(names, x, jacobian, covariance, (low, high))
    return Fit(cost, names, covariance, scale, tuple(remarks))


def misfit(schedules: Sequence[Schedule], steps: Sequence[Step], cost: PhysicalCost) -> float:
    """Half the sum of the squared residuals of a cost that the schedules were simulated with."""
    found = residuals(cost, _evidence(schedules, steps), steps)
    return float(found @ found) / 2


def _evidence(schedules: Sequence[Schedule], steps: Sequence[Step]) -> list[Evidence]:
    found = [told for each in schedules if (told := evidence(each)) is not None]
    if not found and not steps:
        raise UsageError("the runs have none of " + ", ".join(METRICS), remedy="measure one of them")
    return found


def residuals(cost: PhysicalCost, runs: Sequence[Evidence], steps: Sequence[Step]) -> np.ndarray:
    """All residuals in standard deviations: of the runs, of the offline steps, and of the priors, in that order."""
    found: list[float] = []
    for each in runs:
        latency = cost.latencies_s(each.schedule.shapes)
        found += each.residuals(each.schedule.metrics(latency, cost.terms["startup"]))
    for step in steps:
        found += [error / known.OFFLINE_SPREAD[kind] for kind, error in step.log_errors(cost).items()]
    found += [log(cost.terms[name] / prior.median) / prior.spread for name, prior in PRIORS.items()]
    return np.array(found)


def _changed(cost: PhysicalCost, names: Sequence[str], x: np.ndarray) -> PhysicalCost:
    return cost.with_terms(dict(zip(names, np.exp(x).tolist(), strict=True)))


def _remarks(
    names: tuple[str, ...],
    x: np.ndarray,
    jacobian: np.ndarray,
    covariance: np.ndarray,
    bounds: tuple[np.ndarray, np.ndarray],
) -> list[str]:
    """Terms the runs do not determine, cannot tell apart, or push against what is possible."""
    found = []
    without = jacobian[: -len(names)]
    unscaled = np.linalg.inv(jacobian.T @ jacobian)
    vague = [
        name for i, name in enumerate(names) if np.sqrt(unscaled[i, i]) > UNDETERMINED * PRIORS[name].spread
    ]
    if vague:
        found.append(
            f"hardly determined by these runs: {', '.join(vague)}; there the first guesses stand "
            "(docs/calibration.md)"
        )
    for i, name in enumerate(names):
        for bound, side in zip(bounds, ("least", "most"), strict=True):
            if abs(x[i] - bound[i]) < _AT_BOUND:
                found.append(
                    f"{name} is at the {side} that was allowed: the runs want more than physics does"
                )
    spreads = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(spreads, spreads)
    for i, j in zip(*np.triu_indices(len(names), 1), strict=True):
        if abs(correlation[i, j]) > ALIKE:
            found.append(
                f"{names[i]} and {names[j]} cannot be told apart (correlation {correlation[i, j]:+.2f})"
            )
    spread = np.array([PRIORS[name].spread for name in names])
    # A direction in which the runs say more than the priors has a singular value above 1, in units of the priors'
    # spread.
    told = int((np.linalg.svd(without * spread, compute_uv=False) > 1.0).sum())
    if told < len(names):
        found.append(
            f"the runs alone determine {told} combination{'s' if told != 1 else ''} of the {len(names)} terms; first "
            "guesses decide the rest"
        )
    return found

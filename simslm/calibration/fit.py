"""Bounded least squares over the logarithms of the terms.

Residuals are in standard deviations. What all metrics of a run share (the run was 2 % faster that day) counts once;
what they say about each other is far more exact, and tells a request's prompt from its decoding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log

import numpy as np
from scipy.optimize import least_squares

from simslm.calibration import prior as known
from simslm.calibration.offline import Step
from simslm.calibration.prior import PRIORS
from simslm.calibration.schedule import Schedule
from simslm.cost.physical import PhysicalCost
from simslm.errors import UsageError

SLOWER = {"tpot_mean_s": 1.0, "itl_mean_s": 1.0, "output_tokens_per_s": -1.0, "ttft_mean_s": 1.0}
"""Metrics of a run in the order of preference, and which way they move when the run is slower. ITL counts only where
TPOT is missing: clients that see no text in a token (half a character) take two gaps for one."""

UNDETERMINED = 0.8
"""Share of its prior's spread from which the fit has learnt little about a term."""

ALIKE = 0.95
"""Correlation from which two terms cannot be told apart."""

_AT_BOUND = 1e-3
_EVALUATIONS = 60


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


def fit(schedules: Sequence[Schedule], steps: Sequence[Step], cost: PhysicalCost) -> Fit:
    """The terms that match measured runs best, of several starts.

    Args:
        schedules: what the runs did.
        steps: iterations measured offline.
        cost: a cost model whose terms are replaced.

    Raises:
        UsageError: the runs have no metric that could be matched.
    """
    names = tuple(PRIORS)
    if not any(name in each.measured.measured for each in schedules for name in SLOWER) and not steps:
        raise UsageError("the runs have none of " + ", ".join(SLOWER), remedy="measure one of them")
    low, high = known.logs(names, "low"), known.logs(names, "high")
    best = None
    for start in known.STARTS:
        at = np.log([start.get(name, PRIORS[name].median) for name in names])
        found = least_squares(
            lambda x: residuals(_changed(cost, names, x), schedules, steps),
            np.clip(at, low + 1e-6, high - 1e-6),
            bounds=(low, high),
            x_scale=0.1,
            max_nfev=_EVALUATIONS,
        )
        if best is None or found.cost < best.cost:
            best = found
    assert best is not None
    data = len(best.fun) - len(names)
    scale = max(float(np.sqrt(2 * best.cost / max(data, 1))), 1.0)
    covariance = np.linalg.inv(best.jac.T @ best.jac) * scale**2
    remarks = _remarks(names, best.x, best.jac, covariance, (low, high))
    return Fit(_changed(cost, names, best.x), names, covariance, scale, tuple(remarks))


def residuals(cost: PhysicalCost, schedules: Sequence[Schedule], steps: Sequence[Step]) -> np.ndarray:
    """All residuals in standard deviations: of the runs, of the offline steps, and of the priors, in that order."""
    found: list[float] = []
    for each in schedules:
        computed = each.metrics(cost.evaluate(each.shapes).latency_s, cost.terms["startup"])
        found += run_residuals(each.measured.measured, computed)
    for step in steps:
        found += [error / known.OFFLINE_SPREAD[kind] for kind, error in step.log_errors(cost).items()]
    found += [log(cost.terms[name] / prior.median) / prior.spread for name, prior in PRIORS.items()]
    return np.array(found)


def run_residuals(measured: Mapping[str, float], computed: Mapping[str, float]) -> list[float]:
    """Residuals of one run: its speed, and what its metrics say about each other."""
    errors = {
        name: sign * log(computed[name] / measured[name])
        for name, sign in SLOWER.items()
        if measured.get(name, 0.0) > 0
    }
    if "tpot_mean_s" in errors:
        errors.pop("itl_mean_s", None)
    if not errors:
        return []
    (_, speed), *others = errors.items()
    spread = known.CLOCK_SPREAD + known.CLOCK_S / computed["duration_s"]
    found = [speed / known.SPEED_SPREAD]
    for name, error in others:
        own = 2 * spread + known.TTFT_SPREAD if name == "ttft_mean_s" else spread
        found.append((error - speed) / own)
    return found


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
    for i, name in enumerate(names):
        prior = PRIORS[name]
        if np.sqrt(unscaled[i, i]) > UNDETERMINED * prior.spread:
            found.append(f"{name} is hardly determined by these runs: its value is the prior's ({prior.why})")
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
    told = int((np.linalg.svd(without * spread, compute_uv=False) > 1.0).sum())
    if told < len(names):
        found.append(
            f"the runs alone determine {told} combinations of the {len(names)} terms; priors decide the rest"
        )
    return found

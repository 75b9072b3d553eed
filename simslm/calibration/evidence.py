"""What one measured run says: its metrics beside those re-priced, in standard deviations.

A run that was 2 % faster that day is faster in all its metrics: that counts once. The ratios between its metrics are
far more exact, and separate the time of prompts from that of decoding. So the logarithm of each error is a common part
(the speed of the day, times how much the metric follows the iterations) plus a part of its own; the residuals are
whitened by that covariance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from simslm.calibration import prior as known
from simslm.calibration.schedule import Schedule

GAPS = ("tpot_mean_s", "itl_mean_s", "tpot_p50_s", "itl_p50_s")
FIRSTS = ("ttft_mean_s", "ttft_p50_s")
RATES = ("output_tokens_per_s", "steady_output_tokens_per_s")
METRICS = (*GAPS, *RATES, *FIRSTS)
"""What a fit can use of a run: the first of the gaps and of the first tokens that it has, and its rates. ITL counts
only where TPOT is missing: clients that see no text in a token (half a character) take two gaps for one."""


@dataclass(frozen=True)
class Evidence:
    """The metrics of a run that count.

    Attributes:
        schedule: what it did.
        names: of the metrics, first tokens last.
        measured: their logarithms, shape ``(n,)``.
        signs: 1 for times, -1 for rates.
        whitening: makes residuals of errors, lower triangular, shape ``(n, n)``.
    """

    schedule: Schedule
    names: tuple[str, ...]
    measured: np.ndarray
    signs: np.ndarray
    whitening: np.ndarray

    def residuals(self, computed: Mapping[str, float]) -> list[float]:
        """The residuals of computed metrics, in standard deviations; positive where they are slower than measured.

        First tokens of requests that do not come in one burst pass a front end which is no part of the model, and
        wait for others of unknown length: far errors of theirs count by their size, not by its square.
        """
        errors = self.signs * (np.log([computed[name] for name in self.names]) - self.measured)
        found = self.whitening @ errors
        if not self.schedule.burst and self.names[-1] in FIRSTS:
            found[-1] = _softened(found[-1])
        return found.tolist()


def evidence(each: Schedule) -> Evidence | None:
    """The evidence of a run; None where it has no metric that could be matched."""
    measured = {
        name: value
        for name, value in told(each).items()
        if value > 0 and (name in each.simulated or name in RATES)
    }
    names = [*_first_of(GAPS, measured), *(name for name in RATES if name in measured)]
    names += _first_of(FIRSTS, measured)
    if not names:
        return None
    computed = each.simulated
    follows = np.array([each.follows[_time_of(name, each)] for name in names])
    own = np.array([_own_spread(name, each, computed) for name in names])
    if each.burst:
        own[0] = 0.0  # what the others are held against
    covariance = known.SPEED_SPREAD**2 * np.outer(follows, follows) + np.diag(own**2)
    return Evidence(
        each,
        tuple(names),
        np.log([measured[name] for name in names]),
        np.array([-1.0 if name in RATES else 1.0 for name in names]),
        np.linalg.inv(np.linalg.cholesky(covariance)),
    )


def told(each: Schedule) -> dict[str, float]:
    """The measured metrics, the output rate computed from another rate or the duration where it was not measured."""
    run, measured = each.measured, dict(each.measured.measured)
    if "output_tokens_per_s" not in measured:
        per_request = run.output_tokens
        for name, tokens in (
            ("requests_per_s", per_request),
            ("total_tokens_per_s", per_request / (per_request + run.prompt_tokens)),
        ):
            if measured.get(name, 0.0) > 0:
                measured["output_tokens_per_s"] = measured[name] * tokens
                break
        else:
            if measured.get("duration_s", 0.0) > 0 and run.window is None:
                measured["output_tokens_per_s"] = run.num_requests * per_request / measured["duration_s"]
    return {name: value for name, value in measured.items() if name in METRICS and _comparable(name, each)}


def _comparable(name: str, each: Schedule) -> bool:
    return name not in RATES or _time_of(name, each) in each.simulated


def _time_of(name: str, each: Schedule) -> str:
    """The simulated time that a metric is, or is one over."""
    if name == "steady_output_tokens_per_s":
        return "steady_token_s"
    if name == "output_tokens_per_s":
        return "duration_s" if each.measured.window is None else "token_s"
    return name


def _first_of(names: tuple[str, ...], measured: Mapping[str, float]) -> list[str]:
    return [name for name in names if name in measured][:1]


def _own_spread(name: str, each: Schedule, computed: Mapping[str, float]) -> float:
    """The relative error that a metric may have apart from the speed of the whole run."""
    clock = known.CLOCK_SPREAD + known.CLOCK_S / computed["duration_s"]
    if each.burst:
        return 2 * clock + known.TTFT_SPREAD if name in FIRSTS else clock
    own = known.LOOP_SPREAD + clock
    if name in FIRSTS:
        share = known.FIRST_ASSUMED_SPREAD if each.measured.lengths_assumed else known.FIRST_SPREAD
        own = share + known.FRONT_S / computed[name]
    return float(np.hypot(own, each.chance.get(_time_of(name, each), 0.0)))


def own_spreads(each: Schedule) -> dict[str, float]:
    """By how much each metric of a run may be off by itself, relative."""
    return {name: _own_spread(name, each, each.simulated) for name in told(each)}


def _softened(residual: float) -> float:
    """The pseudo-Huber loss as a residual: its square is twice the loss."""
    return float(np.sign(residual) * np.sqrt(2 * (np.sqrt(1 + residual**2) - 1)))

"""From measured runs to a calibrated trace: simulate, fit, and again until the schedule stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from simslm.api import Found
from simslm.calibration.evidence import FIRSTS, GAPS, RATES, own_spreads, told
from simslm.calibration.fit import Fit, assess, fit, misfit
from simslm.calibration.offline import Step
from simslm.calibration.power import PowerFit, fit_power
from simslm.calibration.prior import PRIORS, medians
from simslm.calibration.quality import MOST_RESIDUAL, Quality, quality
from simslm.calibration.schedule import Schedule, check, paced_as_measured, schedule
from simslm.catalog.devices import device_named, load_device
from simslm.catalog.models import load_model, named_model
from simslm.cost.physical import Domain, PhysicalCost
from simslm.errors import SimslmError, UsageError
from simslm.runs.table import MeasuredRun, Skipped
from simslm.traces.files import Trace, write_trace
from simslm.traces.terms import terms_table

ROUNDS = 10
"""Most simulations of each run."""

SETTLED, SETTLED_BY_CHANCE = 1e-3, 5e-3
"""Largest relative change of a metric between two rounds at which the schedule counts as settled; the latter where
requests do not come in one burst, and their batches are others each time."""

WORTH = 1e-3
"""Another round follows only where the last one lowered the misfit by this share."""

HALVINGS = 3
"""Times that a step which made things worse is halved."""

UNNAMED = "an unnamed engine"
"""What a trace says of its engine when no run does."""

SHOWN = (*GAPS, *RATES, *FIRSTS)

Progress = Callable[[int, int, str], None]
"""Called with runs done, runs in all, and a name."""


@dataclass(frozen=True)
class Calibration:
    """A fitted cost model, and how well it meets what it was fitted to.

    Attributes:
        cost: the model, power terms included where there are any.
        fit: the latency terms.
        power: the energy terms; None when no run had power.
        errors: by run and metric, computed over measured less 1 (preemptions: the difference).
        domain: what the runs covered.
        quality: how large the errors are.
        warnings: for the user.
        skipped: the runs that were left out, and why.
        device_spec: what the device is, where the catalogue does not have it.
        runs: that it was fitted to.
    """

    cost: PhysicalCost
    fit: Fit
    power: PowerFit | None
    errors: Mapping[str, Mapping[str, float]]
    domain: Domain
    quality: Quality
    warnings: tuple[str, ...]
    runs: tuple[MeasuredRun, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    device_spec: Mapping[str, Any] | None = None


def calibrate(
    runs: Sequence[MeasuredRun],
    model: str,
    device: str,
    dtype: str,
    *,
    steps: Sequence[Step] = (),
    progress: Progress | None = None,
) -> Calibration:
    """Fits the terms of one model on one device.

    Runs of other models or devices, of several replicas, or that the simulator cannot run, are left out.

    Args:
        runs: of a serving engine.
        model: a catalogue name, what others call such a model, or a ``config.json``.
        device: a catalogue name, a file, or fields written inline.
        dtype: of weights and KV cache.
        steps: iterations measured offline.
        progress: see :data:`Progress`.

    Raises:
        UsageError: no run is left, they are of several engines, or say nothing that could be fitted.
    """
    name, spec = device_named(device)
    architecture, hardware = load_model(model), load_device(spec or name)
    mine, skipped = _of(runs, named_model(model) or model, name)
    cost = PhysicalCost(medians(), architecture, hardware, dtype, engine=_engine(mine))
    mine, unfit = _runnable(mine, dtype)
    skipped += unfit
    if not mine:
        raise UsageError(none_left(skipped, len(runs)), remedy="leave out what is wrong, or set it right")
    cost, schedules = _settle(mine, steps, cost, dtype, progress)
    found = assess(schedules, steps, cost)
    power = fit_power(schedules, cost, architecture, hardware, dtype)
    domain = _domain(schedules)
    final = PhysicalCost(
        {**cost.terms, **(power.terms if power else {})},
        architecture,
        hardware,
        dtype,
        engine=cost.engine,
        domain=domain,
        covariance=(found.names, found.covariance),
    )
    errors = {each.measured.run: _errors(each, final) for each in schedules}
    spreads = {each.measured.run: own_spreads(each) for each in schedules}
    return Calibration(
        final, found, power, errors, domain, quality(errors, spreads), tuple(_warnings(found, power, schedules)),
        tuple(mine), tuple(skipped), spec,
    )  # fmt: skip


def _settle(
    runs: Sequence[MeasuredRun],
    steps: Sequence[Step],
    cost: PhysicalCost,
    dtype: str,
    progress: Progress | None,
) -> tuple[PhysicalCost, list[Schedule]]:
    """Fits, simulates with what was found, and again, until the schedules stay or nothing gets better.

    A step that raised the misfit went beyond the range in which re-pricing is right, and is halved.

    Returns:
        the best terms, and the schedules as simulated with them.
    """
    best: tuple[float, PhysicalCost, list[Schedule]] | None = None
    expected: list[dict[str, float]] = []
    halvings, found = 0, Found()
    for number in range(ROUNDS):
        schedules = []
        for run in runs:
            if progress is not None:
                progress(number * len(runs) + len(schedules), ROUNDS * len(runs), run.run)
            schedules.append(schedule(run, cost, dtype, found))
        # The first round only tells the rates of random arrivals; its misfit is with other arrivals and not
        # comparable.
        if number == 0 and any(run.drawn for run in runs):
            runs = [paced_as_measured(each, told(each).get(RATES[0])) for each in schedules]
            cost = fit(schedules, steps, cost)
            continue
        missed = misfit(schedules, steps, cost)
        if best is None or missed < best[0]:
            gained = 1.0 if best is None else 1 - missed / best[0]
            best, halvings = (missed, cost, schedules), 0
            if expected and (_settled(expected, schedules, cost) or gained < WORTH):
                break
            cost = fit(schedules, steps, cost, everywhere=number == 0)
        elif halvings == HALVINGS or _settled(expected, schedules, cost):
            break
        else:
            halvings += 1
            cost = _between(best[1], cost)
            schedules = best[2]
        expected = [each.metrics(cost.evaluate(each.shapes).latency_s) for each in schedules]
    assert best is not None
    return best[1], best[2]


def _between(first: PhysicalCost, second: PhysicalCost) -> PhysicalCost:
    """Halfway between the terms of two, in their logarithms."""
    return first.with_terms({name: (first.terms[name] * second.terms[name]) ** 0.5 for name in PRIORS})


def write_calibration(
    directory: Path,
    calibration: Calibration,
    dtype: str,
    command: str,
    *,
    most_residual: float = MOST_RESIDUAL,
) -> Trace:
    """Writes the terms as a trace.

    Raises:
        TraceError: the trace cannot be written.
    """
    found, power, cost = calibration.fit, calibration.power, calibration.cost
    stderr = found.stderr | (power.stderr if power else {})
    provenance: dict[str, Any] = {
        "source": "calibrated",
        "model": cost.architecture.name,
        "dtype": dtype,
        "device": cost.device.name,
        "engine": cost.engine,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "runs": list(calibration.errors),
        "skipped": [each.run for each in calibration.skipped],
        "batching": sorted({run.batching for run in calibration.runs}),
        "domain": {name: list(span) for name, span in calibration.domain.items()},
        "covariance": {"terms": list(found.names), "log": found.covariance.tolist()},
        "residual_scale": found.scale,
        "residual": {
            "largest": calibration.quality.residual,
            "run": calibration.quality.run,
            "metric": calibration.quality.metric,
            "allowed": most_residual,
        },
        "flags": calibration.quality.flags(most_residual),
        "forced": not calibration.quality.good(most_residual),
        "remarks": list(calibration.warnings),
        "power_note": cost.power_note,
    }
    if calibration.device_spec is not None:
        provenance["device_spec"] = dict(calibration.device_spec)
    return write_trace(directory, provenance=provenance, terms=terms_table(cost.terms, stderr))


def none_left(skipped: Sequence[Skipped], count: int) -> str:
    """Why not one of some runs can be used: the reasons, each once."""
    reasons = list(dict.fromkeys(each.reason for each in skipped))
    if not reasons:
        return "there is no run to calibrate on"
    if count == 1:
        return reasons[0]
    shown = "; ".join(reasons[:3]) + (f"; and {len(reasons) - 3} more reasons" if len(reasons) > 3 else "")
    return f"not one of {count} runs can be used: {shown}"


def _of(runs: Sequence[MeasuredRun], model: str, device: str) -> tuple[list[MeasuredRun], list[Skipped]]:
    """The runs of a model on a device of their own, and the others."""
    mine, skipped = [], []
    for run in runs:
        wrong = [
            f"is of {kind} {found!r}, not {wanted!r}"
            for kind, found, wanted in (("model", run.model, model), ("device", run.device, device))
            if found != wanted
        ]
        if wrong:
            skipped.append(Skipped(run.run, f"{run.where}: run {run.run!r} {wrong[0]}"))
        else:
            mine.append(run)
    return mine, skipped


def _runnable(runs: Sequence[MeasuredRun], dtype: str) -> tuple[list[MeasuredRun], list[Skipped]]:
    """The runs that can be simulated, and the others."""
    mine, skipped = [], []
    for run in runs:
        try:
            check(run, dtype)
        except SimslmError as error:
            skipped.append(Skipped(run.run, str(error)))
        else:
            mine.append(run)
    return mine, skipped


def _engine(runs: Sequence[MeasuredRun]) -> str:
    """The one engine that is named.

    Raises:
        UsageError: several are.
    """
    engines = sorted({run.engine for run in runs if run.engine})
    if len(engines) > 1:
        raise UsageError(
            f"the runs are of several engines: {', '.join(engines)}",
            remedy="host time is an engine's own: choose one with --where",
        )
    return engines[0] if engines else UNNAMED


def _settled(
    expected: Sequence[Mapping[str, float]], schedules: Sequence[Schedule], cost: PhysicalCost
) -> bool:
    """Whether the metrics came out as re-priced."""
    for old, each in zip(expected, schedules, strict=True):
        new = each.metrics(cost.evaluate(each.shapes).latency_s)
        most = SETTLED if each.burst else SETTLED_BY_CHANCE
        if any(abs(new[name] / old[name] - 1) > most for name in new if old.get(name, 0.0) > 0):
            return False
    return True


def _domain(schedules: Sequence[Schedule]) -> Domain:
    seqs = np.concatenate([each.shapes.decode_seqs for each in schedules])
    context = np.concatenate([each.shapes.decode_ctx_tokens for each in schedules])[seqs > 0]
    tokens = np.concatenate([each.shapes.prefill_tokens for each in schedules])
    mean = context / seqs[seqs > 0] if len(context) else np.zeros(1)
    return {
        "decode_seqs": (float(seqs.min()), float(seqs.max())),
        "context": (float(mean.min()), float(mean.max())),
        "prefill_tokens": (float(tokens.min()), float(tokens.max())),
    }


def _errors(each: Schedule, cost: PhysicalCost) -> dict[str, float]:
    measured = told(each)
    computed = each.metrics(cost.evaluate(each.shapes).latency_s, cost.terms["startup"])
    errors = {
        name: computed[name] / measured[name] - 1
        for name in SHOWN
        if measured.get(name, 0.0) > 0 and name in computed
    }
    if "preemptions" in each.measured.measured:
        errors["preemptions"] = each.preemptions - each.measured.measured["preemptions"]
    return errors


def _warnings(found: Fit, power: PowerFit | None, schedules: Sequence[Schedule]) -> list[str]:
    warnings = list(found.remarks)
    if found.scale > 1:
        warnings.append(
            f"residuals are {found.scale:.1f} times what repeated runs differ by: the standard errors are widened by it"
        )
    if power is None:
        warnings.append("no run has power_active_p50_w: answers will have no energy")
    clocks = sorted(
        {each.measured.sm_clock_mhz for each in schedules if each.measured.sm_clock_mhz is not None}
    )
    if len(clocks) > 1:
        shown = ", ".join(f"{clock:g}" for clock in clocks)
        warnings.append(f"the runs were made at different clocks ({shown} MHz): leave one out with --where")
    policies = sorted({each.measured.batching for each in schedules})
    if len(policies) == 1:
        warnings.append(
            f"all runs were batched by {policies[0]}: where an engine has other kernels for whole prompts than for "
            "chunks, prompts of another policy may take longer or shorter"
        )
    if len(schedules) < 4:
        runs = "1 run is" if len(schedules) == 1 else f"{len(schedules)} runs are"
        warnings.append(f"{runs} few: batches from small to large tell the terms apart")
    return warnings

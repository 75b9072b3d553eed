"""From measured runs to a calibrated trace: simulate, fit, and again until the schedule stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from simslm.calibration.fit import Fit, fit
from simslm.calibration.offline import Step
from simslm.calibration.power import PowerFit, fit_power
from simslm.calibration.prior import medians
from simslm.calibration.schedule import Schedule, schedule
from simslm.catalog.devices import load_device
from simslm.catalog.models import load_model
from simslm.cost.physical import Domain, PhysicalCost
from simslm.errors import UsageError
from simslm.runs.table import MeasuredRun
from simslm.traces.files import Trace, write_trace
from simslm.traces.terms import terms_table

ROUNDS = 4
"""Most simulations of each run."""

SETTLED = 1e-3
"""Largest relative change of a metric between two rounds at which the schedule counts as settled."""

FIGURES = ("output_tokens_per_s", "itl_mean_s", "tpot_mean_s", "ttft_mean_s", "preemptions")

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
        warnings: for the user.
    """

    cost: PhysicalCost
    fit: Fit
    power: PowerFit | None
    errors: Mapping[str, Mapping[str, float]]
    domain: Domain
    warnings: tuple[str, ...]


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

    Args:
        runs: measured on a device of their own; those of other models or devices are an error.
        model, device: catalogue names.
        dtype: of weights and KV cache.
        steps: iterations measured offline.
        progress: see :data:`Progress`.

    Raises:
        UsageError: the runs are of something else, or say nothing that could be fitted.
    """
    engine = _check(runs, model, device)
    architecture, hardware = load_model(model), load_device(device)
    cost = PhysicalCost(medians(), architecture, hardware, dtype, engine=engine)
    before: list[dict[str, float]] = []
    schedules: list[Schedule] = []
    for number in range(ROUNDS):
        schedules = []
        for run in runs:
            if progress is not None:
                progress(number * len(runs) + len(schedules), ROUNDS * len(runs), run.run)
            schedules.append(schedule(run, cost, dtype))
        now = [each.metrics(cost.evaluate(each.shapes).latency_s) for each in schedules]
        if before and _settled(before, now):
            break
        found = fit(schedules, steps, cost)
        cost = found.cost
        before = [each.metrics(cost.evaluate(each.shapes).latency_s) for each in schedules]
    power = fit_power(schedules, cost, architecture, hardware, dtype)
    domain = _domain(schedules)
    final = PhysicalCost(
        {**cost.terms, **(power.terms if power else {})},
        architecture,
        hardware,
        dtype,
        engine=engine,
        domain=domain,
        covariance=(found.names, found.covariance),
    )
    return Calibration(
        final, found, power, {each.measured.run: _errors(each, final) for each in schedules}, domain,
        tuple(_warnings(found, power, schedules)),
    )  # fmt: skip


def write_calibration(
    directory: Path,
    calibration: Calibration,
    runs: Sequence[MeasuredRun],
    model: str,
    device: str,
    dtype: str,
    command: str,
) -> Trace:
    """Writes the terms as a trace.

    Raises:
        TraceError: the trace cannot be written.
    """
    found, power = calibration.fit, calibration.power
    stderr = found.stderr | (power.stderr if power else {})
    provenance: dict[str, Any] = {
        "source": "calibrated",
        "model": model,
        "dtype": dtype,
        "device": device,
        "engine": calibration.cost.engine,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "runs": [run.run for run in runs],
        "batching": sorted({run.batching for run in runs}),
        "domain": {name: list(span) for name, span in calibration.domain.items()},
        "covariance": {"terms": list(found.names), "log": found.covariance.tolist()},
        "residual_scale": found.scale,
        "remarks": list(calibration.warnings),
        "power_note": calibration.cost.power_note,
    }
    return write_trace(directory, provenance=provenance, terms=terms_table(calibration.cost.terms, stderr))


def _check(runs: Sequence[MeasuredRun], model: str, device: str) -> str:
    """Refuses runs of something else; returns their engine."""
    if not runs:
        raise UsageError("there is no run to calibrate on")
    for run in runs:
        for name, wanted in (("model", model), ("device", device)):
            found = getattr(run, name)
            if found != wanted:
                raise UsageError(
                    f"run {run.run!r} is of {name} {found!r}, not {wanted!r}",
                    where=run.where,
                    remedy=f"choose rows: --where \"{name} == '{wanted}'\"",
                )
    engines = sorted({run.engine for run in runs})
    if len(engines) > 1:
        raise UsageError(
            f"the runs are of several engines: {', '.join(name or '(none named)' for name in engines)}",
            remedy="host time is an engine's own: choose one with --where",
        )
    return engines[0] or "not named"


def _settled(before: Sequence[Mapping[str, float]], now: Sequence[Mapping[str, float]]) -> bool:
    return all(
        abs(new[name] / old[name] - 1) <= SETTLED
        for old, new in zip(before, now, strict=True)
        for name in old
        if old[name] > 0
    )


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
    measured = each.measured.measured
    computed = each.metrics(cost.evaluate(each.shapes).latency_s, cost.terms["startup"])
    errors = {
        name: computed[name] / measured[name] - 1 for name in FIGURES[:-1] if measured.get(name, 0.0) > 0
    }
    if "preemptions" in measured:
        errors["preemptions"] = each.preemptions - measured["preemptions"]
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
        warnings.append(f"{len(schedules)} runs are few: batches from small to large tell the terms apart")
    return warnings

"""The energy terms, from the power of measured runs.

Power is idle power, plus a constant while kernels run, plus what every byte and every operation costs. Bytes of keys
and values that decoding sequences read cost their own: attention works on them off the tensor cores. Power is compared
as it is measured, as the median over the active seconds of a run (:mod:`simslm.runs.power`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from simslm.calibration.schedule import Schedule
from simslm.catalog.architecture import Architecture
from simslm.catalog.devices import Device
from simslm.catalog.work import IterationShape, work_model
from simslm.cost.physical import PhysicalCost
from simslm.runs.power import ACTIVE, SAMPLE_S

COLUMN = "power_active_p50_w"
SPREAD = 0.04
"""Relative standard deviation of a run's power."""

FITTED = ("active_power", "byte_energy", "kv_byte_energy", "flop_energy")
_PRIOR_SPREAD = 1.0
_REACH = 30.0
"""How far from its guess a term may go, as a factor."""


@dataclass(frozen=True)
class PowerFit:
    """Energy terms, their standard errors, and how far off the power of each run is, as a share."""

    terms: dict[str, float]
    stderr: dict[str, float]
    errors: dict[str, float]


def fit_power(
    schedules: Sequence[Schedule], cost: PhysicalCost, architecture: Architecture, device: Device, dtype: str
) -> PowerFit | None:
    """Fits the energy terms; None when no run has its power measured.

    Args:
        schedules: what the runs did.
        cost: what their iterations take.
        architecture, device, dtype: what ran.
    """
    measured = [each for each in schedules if each.measured.measured.get(COLUMN, 0.0) > 0]
    if not measured:
        return None
    idle_w = [w for each in measured if (w := each.measured.measured.get("power_idle_w", 0.0)) > 0]
    rest = float(np.median(idle_w)) if idle_w else device.idle_w
    samples = [_samples(each, cost, architecture, dtype) for each in measured]
    power = np.array([each.measured.measured[COLUMN] for each in measured])
    guess = np.log(_guess(device, dtype))

    def computed(x: np.ndarray) -> np.ndarray:
        return np.array([float(np.median(rest + each @ np.exp(x))) for each in samples])

    def residuals(x: np.ndarray) -> np.ndarray:
        return np.concatenate([np.log(computed(x) / power) / SPREAD, (x - guess) / _PRIOR_SPREAD])

    reach = np.log(_REACH)
    found = least_squares(
        residuals, guess, bounds=(guess - reach, guess + reach), x_scale=0.1, diff_step=1e-4
    )
    scale = max(2 * found.cost / max(len(power), 1), 1.0)
    spreads = np.sqrt(np.diag(np.linalg.inv(found.jac.T @ found.jac)) * scale)
    values = dict(zip(FITTED, np.exp(found.x).tolist(), strict=True))
    errors = computed(found.x) / power - 1
    return PowerFit(
        {"idle_power": rest, **values},
        {name: values[name] * float(s) for name, s in zip(FITTED, spreads, strict=True)},
        {each.measured.run: float(error) for each, error in zip(measured, errors, strict=True)},
    )


def _guess(device: Device, dtype: str) -> list[float]:
    """A fifth of the span up to the power limit each for running at all and for full memory traffic, and for
    arithmetic what would take all of it at the peak."""
    span = device.max_w - device.idle_w
    byte = 0.2 * span / device.memory_bandwidth_bytes_per_s
    return [0.2 * span, byte, byte, span / device.flops_per_s(dtype)]


def _samples(each: Schedule, cost: PhysicalCost, architecture: Architecture, dtype: str) -> np.ndarray:
    """Busy share, bytes (other ones, keys and values) and operations per second in every active second of a run.

    Returns:
        shape ``(seconds, 4)``.
    """
    costs = cost.evaluate(each.shapes)
    work = work_model(architecture, dtype)(IterationShape(*each.shapes))
    order, start, end = each.timeline
    edges = np.arange(0.0, max(end[-1], SAMPLE_S) + SAMPLE_S / 2, SAMPLE_S)
    times = np.column_stack([start, end]).ravel()
    columns = []
    device = costs.latency_s - costs.host_s
    for amounts in (device, work.bytes - work.decode_bytes, work.decode_bytes, work.flops):
        spent = (amounts + np.zeros_like(costs.latency_s))[order]
        after = np.cumsum(spent)
        sums = np.column_stack([after - spent, after]).ravel()
        columns.append(np.diff(np.interp(edges, times, sums)) / SAMPLE_S)
    table = np.column_stack(columns)
    active = table[:, 0] >= ACTIVE
    return table[active] if active.any() else table

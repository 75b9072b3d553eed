"""Costs under a power cap or at a lower clock, as the trace measured power and speed against them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from simslm.catalog.work import IterationShape
from simslm.cost.layer import Layer, Maximum, stretched
from simslm.cost.model import CostModel, Costs, DecodeLine
from simslm.errors import TraceError
from simslm.traces.files import Trace

STATES = ("decode", "prefill")
SETTINGS = {"power_cap_w": ("cap_w", "W"), "sm_clock_mhz": ("sm_clock_mhz", "MHz")}
"""The column of ``power.parquet`` that each setting of a scenario goes by, and its unit."""

_SPAN = 1.05
"""Levels that are closer than this are one level, read with noise."""


@dataclass(frozen=True, slots=True)
class Throttle:
    """What a setting does to one kind of iteration.

    Attributes:
        speed: of the device time, relative to the highest setting that was measured, in (0, 1].
        power: above idle, relative to that at the highest setting.
    """

    speed: float
    power: float


def throttles(trace: Trace, setting: str, value: float) -> dict[str, Throttle]:
    """Speed and power of decoding and of prefilling under a cap or a clock, interpolated between measured settings.

    Args:
        trace: with power and speed against the setting (``power.parquet``).
        setting: a key of :data:`SETTINGS`.
        value: of the setting, in its unit.

    Raises:
        TraceError: the trace has no power and speed against the setting, or ``value`` lies outside what it measured.
    """
    return {state: _throttle(trace, setting, value, state) for state in STATES}


def measured_clocks(trace: Trace) -> tuple[float, ...]:
    """The clocks at which decoding and prefilling were both measured, MHz, the highest first."""
    found = [set(_measured(trace, "sm_clock_mhz", state)[0].tolist()) for state in STATES]
    return tuple(sorted(set.intersection(*found), reverse=True))


def _throttle(trace: Trace, setting: str, value: float, state: str) -> Throttle:
    column, unit = SETTINGS[setting]
    where = str(trace.path / "power.parquet")
    idle_w = _idle_w(trace)
    levels, speeds, watts = _measured(trace, column, state)
    if idle_w is None or len(levels) < 2 or levels[-1] < _SPAN * levels[0]:
        raise TraceError(
            f"has no power and speed of {state} against {column}, which cost.{setting} needs",
            where=where,
            remedy=f"measure them on a device that lets {column} be set, or leave cost.{setting} out",
        )
    if not levels[0] <= value <= levels[-1]:
        raise TraceError(
            f"cost.{setting} is {value:g} {unit}, but {state} was measured from {levels[0]:g} to {levels[-1]:g} {unit}",
            where=where,
            remedy=f"choose a {setting} in between",
        )
    speed = float(np.interp(value, levels, speeds)) / float(speeds[-1])
    above = np.maximum(watts - idle_w, 0.0)
    return Throttle(speed, float(np.interp(value, levels, above)) / float(above[-1]) if above[-1] else 1.0)


def _measured(trace: Trace, column: str, state: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Levels of a setting, and the median speed and power of a state at each."""
    found: dict[float, list[tuple[float, float]]] = {}
    for row in [] if trace.power is None else trace.power.to_pylist():
        if row["state"] == state and None not in (row[column], row["relative_speed"], row["power_w"]):
            found.setdefault(row[column], []).append((row["relative_speed"], row["power_w"]))
    levels = sorted(found)
    medians = np.array([np.median(found[level], axis=0) for level in levels]).reshape(-1, 2)
    return np.array(levels), medians[:, 0], medians[:, 1]


def _idle_w(trace: Trace) -> float | None:
    rows = [] if trace.power is None else trace.power.to_pylist()
    idle = [row["power_w"] for row in rows if row["state"] == "idle" and row["power_w"] is not None]
    return float(np.median(idle)) if idle else None


class Throttled(Layer):
    """Costs with the device's part slowed and its power lowered; host time stays.

    With ``v`` the speed and ``p`` the power above idle that a kind of iteration has under the setting, an iteration of
    ``host + device`` seconds takes ``host + device / v``, and its mean power is ``idle + p * (power - idle)``. The
    figures of prefilling hold for iterations with prompts, those of decoding for the others.

    Args:
        cost: at the highest setting.
        throttle: what the setting does to each of :data:`STATES`.
        words: the setting, for reports.
    """

    def __init__(self, cost: CostModel, throttle: dict[str, Throttle], words: str) -> None:
        super().__init__(cost, cost.facts.changed(words, throttle=words))
        self._throttle = throttle
        self._words = words

    def _over(self, cost: CostModel) -> Throttled:
        return Throttled(cost, self._throttle, self._words)

    def _line(self, decode_seqs: int) -> DecodeLine:
        """The inner line, its part above host time stretched."""
        host = self._cost.host_s(IterationShape(decode_seqs, 0))
        return stretched(self._cost.decode(decode_seqs), host, self._throttle["decode"].speed, host)

    def _seconds(self, shape: IterationShape, seconds: Any, host_s: Any, maximum: Maximum) -> Any:
        decode, prefill = (self._throttle[state] for state in STATES)
        if maximum is max:
            speed = prefill.speed if shape.prefill_tokens else decode.speed
        else:
            speed = np.where(np.asarray(shape.prefill_tokens) > 0, prefill.speed, decode.speed)
        return (seconds - host_s) / speed + host_s

    def _joules(
        self, shapes: IterationShape, energy_j: np.ndarray, inner: Costs, latency_s: np.ndarray
    ) -> np.ndarray:
        prompts = np.asarray(shapes.prefill_tokens) > 0
        decode, prefill = (self._throttle[state] for state in STATES)
        idle_w = self.idle_w or 0.0
        above_w = np.maximum(energy_j / inner.latency_s - idle_w, 0.0)
        return (idle_w + np.where(prompts, prefill.power, decode.power) * above_w) * latency_s

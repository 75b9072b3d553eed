"""What tokens cost and emit: devices by the hour for the whole makespan, and the energy that was used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

S_PER_HOUR = 3600.0
J_PER_KWH = 3.6e6
KEYS = ("usd_per_million_output_tokens", "usd_per_million_total_tokens", "g_co2_per_million_output_tokens")

UNSTATED: Mapping[str, Any] = dict.fromkeys(KEYS) | {"note": "the scenario has no economics section"}
"""The section where a scenario states no prices."""


@dataclass(frozen=True, slots=True)
class Tariff:
    """What things cost, all of it assumed by the user or by a table.

    Attributes:
        device: its name.
        devices: how many are paid for, whether they work or not, unless replicas give their devices back.
        usd_per_device_hour: None = unknown.
        usd_per_kwh: of electricity that is paid beside the devices; None = none is paid.
        g_co2_per_kwh: of that electricity; None = unknown.
        assumptions: in words.
    """

    device: str
    devices: int
    usd_per_device_hour: float | None
    usd_per_kwh: float | None
    g_co2_per_kwh: float | None
    assumptions: str

    def usd_per_hour(self, devices: float) -> float | None:
        """Dollars per hour of so many devices, without electricity."""
        return None if self.usd_per_device_hour is None else devices * self.usd_per_device_hour


def economics_figures(tariff: Tariff | None, summary: Mapping[str, Any]) -> dict[str, Any]:
    """The section ``economics`` of a summary.

    Costs are per finished token: the devices for as long as the run took (where replicas come and go, for as long as
    each was held), and its energy where electricity is paid beside them. A figure is null where something it needs is
    unknown.

    Args:
        tariff: None where the scenario states nothing.
        summary: with the sections ``throughput`` and ``energy``, and ``fleet`` where replicas come and go.
    """
    if tariff is None:
        return dict(UNSTATED)
    watts = summary["energy"]["mean_power_w"]
    output, total = (summary["throughput"][f"{name}_tokens_per_s"] for name in ("output", "total"))
    devices = summary["fleet"]["mean_devices"] if "fleet" in summary else tariff.devices
    usd_per_s = _usd_per_s(tariff, tariff.usd_per_hour(devices), watts)
    emitted = tariff.g_co2_per_kwh
    g_per_s = None if emitted is None or watts is None else emitted * watts / J_PER_KWH
    figures = {
        "usd_per_million_output_tokens": _per_million(usd_per_s, output),
        "usd_per_million_total_tokens": _per_million(usd_per_s, total),
        "g_co2_per_million_output_tokens": _per_million(g_per_s, output),
        "assumptions": tariff.assumptions,
    }
    unknown = "; ".join(_unknown(tariff, summary["energy"]))
    return figures | ({"note": unknown} if unknown else {})


def _unknown(tariff: Tariff, energy: Mapping[str, Any]) -> Iterator[str]:
    """What is missing, in words, where a figure is null."""
    if tariff.usd_per_device_hour is None:
        yield f"no price is known of {tariff.device}"
    if tariff.g_co2_per_kwh is None:
        yield "g_co2_per_kwh is not stated"
    if energy["mean_power_w"] is None and (tariff.usd_per_kwh, tariff.g_co2_per_kwh) != (None, None):
        yield energy["note"]


def _usd_per_s(tariff: Tariff, usd_per_hour: float | None, watts: float | None) -> float | None:
    """Dollars per second of the run."""
    if usd_per_hour is None:
        return None
    if tariff.usd_per_kwh is None:
        return usd_per_hour / S_PER_HOUR
    return None if watts is None else usd_per_hour / S_PER_HOUR + tariff.usd_per_kwh * watts / J_PER_KWH


def _per_million(per_s: float | None, tokens_per_s: float) -> float | None:
    return None if per_s is None or not tokens_per_s else 1e6 * per_s / tokens_per_s

"""What a scenario's devices and electricity cost, with the assumptions in words."""

from __future__ import annotations

from simslm.catalog.devices import Device
from simslm.catalog.prices import device_price
from simslm.metrics.economics import Tariff
from simslm.preparation.found import Found
from simslm.preparation.place import placed
from simslm.scenario.schema import Scenario


def tariff_of(scenario: Scenario, device: Device, found: Found) -> Tariff | None:
    """The prices a scenario states, else those of its table; None where it does not ask for costs.

    Raises:
        SimslmError: the table of prices cannot be read.
    """
    asked = scenario.economics
    if asked is None:
        return None
    usd = asked.usd_per_device_hour
    words = [] if usd is None else [f"${usd:g} per device-hour (stated)"]
    if usd is None:
        table = None if asked.prices is None else scenario.base_dir / asked.prices
        with placed(scenario, "economics"):
            price = found.get("price", (device.name, table), lambda: device_price(device.name, table))
        usd = None if price is None else price.usd_per_device_hour
        words += [] if price is None else [price.words]
    if asked.usd_per_kwh is not None:
        words.append(f"${asked.usd_per_kwh:g} per kWh")
    if asked.g_co2_per_kwh is not None:
        words.append(f"{asked.g_co2_per_kwh:g} g CO2 per kWh")
    return Tariff(
        device.name,
        scenario.deployment.num_devices,
        usd,
        asked.usd_per_kwh,
        asked.g_co2_per_kwh,
        "; ".join(words),
    )

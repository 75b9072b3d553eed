"""What a device costs for an hour: a table that comes with simslm, or the user's own in the same form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simslm.catalog.files import CATALOGUE, read_mapping
from simslm.errors import ScenarioError, nearest
from simslm.plain import is_mapping

TABLE = CATALOGUE / "prices.yaml"
KEYS = ("usd_per_device_hour", "date", "source")


@dataclass(frozen=True, slots=True)
class Price:
    """An assumption about one device.

    Attributes:
        usd_per_device_hour: what it costs.
        date: when.
        source: according to whom.
    """

    usd_per_device_hour: float
    date: str
    source: str

    @property
    def words(self) -> str:
        """The assumption as a report states it."""
        return f"${self.usd_per_device_hour:g} per device-hour ({self.source}, {self.date})"


def device_price(device: str, table: Path | None = None) -> Price | None:
    """The price of a device; None where the table has none.

    Args:
        device: catalogue name, or the name of an inline device.
        table: the user's own; None = the one that comes with simslm.

    Raises:
        ScenarioError: the table cannot be read, or an entry of it is wrong.
    """
    path = table or TABLE
    entries = {str(name): _price(name, entry, path) for name, entry in read_mapping(path).items()}
    return entries.get(device)


def _price(name: Any, entry: Any, path: Path) -> Price:
    if not is_mapping(entry):
        raise ScenarioError(
            f"{name}: expected a mapping", where=str(path), remedy=f"state {', '.join(KEYS)} of the device"
        )
    for key in entry:
        if key not in KEYS:
            raise ScenarioError(f"{name}: unknown key {key!r}{nearest(str(key), KEYS)}", where=str(path))
    value = entry.get("usd_per_device_hour")
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not 0 <= number < math.inf:
        raise ScenarioError(
            f"{name}.usd_per_device_hour: expected a number from 0 on, found {value!r}", where=str(path)
        )
    return Price(float(number), str(entry.get("date", "no date")), str(entry.get("source", "no source")))

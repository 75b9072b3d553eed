"""Power policies: at which clock the devices run.

A policy is a class with one method, ``level(seen) -> int``, asked every ``every_s`` seconds. All devices run at the
same level, which holds for each replica from its next iteration on. Levels are those of ``clocks_mhz``, the highest
first; what a clock does to speed and power is what the trace measured (``power.parquet``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pydantic import Field

from simslm.policies.registry import PolicyOptions


class PowerOptions(PolicyOptions):
    """What every power policy has."""

    every_s: float = Field(default=1.0, gt=0, le=1e6, description="seconds between two looks")
    clocks_mhz: tuple[float, ...] = Field(
        default=(),
        description="clocks to choose from, MHz, highest first; empty = all that the trace measured",
    )


@dataclass(frozen=True, slots=True)
class PowerView:
    """What all devices draw.

    Attributes:
        now_s: the time, seconds.
        level: the one they run at, from 0.
        clocks_mhz: of each level, highest first.
        power_w: of all devices at each level, if they ran what they run now; idle devices draw their idle power, those
            that no replica holds nothing.
    """

    now_s: float
    level: int
    clocks_mhz: tuple[float, ...]
    power_w: tuple[float, ...]


class PowerPolicy(Protocol):
    """Chooses a clock."""

    def level(self, seen: PowerView) -> int:
        """The level from here on."""
        ...

"""What a figure is: its key, name, unit, definition and formula, and how a screen shows its values."""

from __future__ import annotations

from dataclasses import dataclass

from simslm.units import joules, number, seconds


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure.

    Attributes:
        key: in ``summary.json``.
        name: on screens.
        definition: how it is computed.
        words: the name written out; empty where it is already.
        unit: of the value in the file; ``1`` for a share, from 0 to 1.
        better: ``less``, ``more``, or empty where neither is.
        formula: of one run, in the columns of ``requests.parquet`` and ``iterations.parquet``.
        over: the requests it is taken over; empty where it is not taken over requests.
        detail: what else there is to know, for :mod:`glossary` and ``simslm explain``.
        has_statistics: whether it is a distribution, of which a summary has :data:`STATISTICS`.
    """

    key: str
    name: str
    definition: str
    words: str = ""
    unit: str = "s"
    better: str = "less"
    formula: str = ""
    over: str = ""
    detail: str = ""
    has_statistics: bool = False

    @property
    def stated(self) -> str:
        """The definition, with the requests that it is taken over."""
        return f"{self.definition}; over {self.over}" if self.over else self.definition

    @property
    def meaning(self) -> str:
        """What a reader who does not know the name needs."""
        return f"{self.words}: {self.stated}" if self.words else self.stated

    @property
    def windowed(self) -> bool:
        """Whether ``metrics`` in a scenario leaves requests, or time, out of it."""
        return self.key.startswith(WINDOWED)

    def show(self, value: float | None) -> str:
        """A value for a screen, with its unit."""
        if value is None:
            return "–"
        if self.unit == "s":
            return seconds(value)
        if self.unit == "J":
            return joules(value)
        if self.unit == "1":
            return f"{number(100 * value)} %"
        if self.unit == "USD":
            return f"${number(value)}"
        return f"{number(value)} {self.unit}".rstrip()


WINDOWED = (
    "throughput",
    "ttft_s",
    "tpot_s",
    "itl_s",
    "e2e_s",
    "queue_s",
    "slo",
    "energy",
    "utilization",
    "economics",
)
"""Sections of a summary that are of the requests, or the time, that count; counts, KV cache and coverage are of all."""

STATISTICS = ("mean", "p50", "p90", "p95", "p99", "max")
"""What a summary has of a distribution."""


def paths(metric: Metric) -> tuple[str, ...]:
    """The dotted paths of a metric's numbers in a summary."""
    if metric.has_statistics:
        return tuple(f"{metric.key}.{statistic}" for statistic in STATISTICS)
    return (metric.key,)

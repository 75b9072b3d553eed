"""The difference of one figure between two runs, how sure it is, and whether it is better."""

from __future__ import annotations

from dataclasses import dataclass
from math import isinf

from simslm.metrics.figure_paths import OF_PATH, title
from simslm.metrics.metric import Metric

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Delta:
    """One figure of a summary, in the baseline and in another configuration.

    Attributes:
        path: in ``summary.json``.
        baseline, value: the figure in each (means over seeds where there are several); None where it is unknown,
            infinite where too many requests were not served for it.
        delta: ``value − baseline``; where both are infinite, 0 if as many requests were missed in both, else infinite
            with the sign of the difference.
        interval: of the delta, 95 %, as far as it leaves the figure at 0 or above, which every figure is; None where
            it is not known.
        note: why there is no interval; empty where there is one.
        direction: 1 or −1 where there is none and the sign of the delta is sure all the same; else 0.
    """

    path: str
    baseline: float | None
    value: float | None
    delta: float | None
    interval: tuple[float, float] | None
    note: str = ""
    direction: int = 0

    def __post_init__(self) -> None:
        if self.interval is not None and self.baseline is not None:
            low, high = self.interval
            object.__setattr__(self, "interval", (max(low, -self.baseline), high))

    @property
    def metric(self) -> Metric:
        return OF_PATH[self.path]

    @property
    def title(self) -> str:
        """Its name on screens."""
        return title(self.path)

    @property
    def relative(self) -> float | None:
        """The delta as a share of the baseline, which is at most 1 below an infinite one; None where that is 0."""
        if self.delta is not None and self.baseline is not None and isinf(self.baseline):
            return self.delta if self.delta >= 0 else -1.0
        return self.delta / self.baseline if self.delta is not None and self.baseline else None

    @property
    def relative_interval(self) -> tuple[float, float] | None:
        """The interval as shares of the baseline; None of an infinite one."""
        if self.interval is None or not self.baseline or isinf(self.baseline):
            return None
        low, high = (bound / self.baseline for bound in self.interval)
        return low, high

    @property
    def verdict(self) -> str:
        """``same | better | worse | different | unclear | untested``, or ``unknown`` without values.

        ``unclear`` is a difference whose interval holds 0, ``untested`` one without an interval, ``different`` one of
        a figure of which neither more nor less is better.
        """
        if self.delta is None:
            return "unknown"
        if self.delta == 0:
            return "same"
        if self.interval is None and not self.direction:
            return "untested"
        if self.interval is not None and self.interval[0] <= 0 <= self.interval[1]:
            return "unclear"
        if not self.metric.better:
            return "different"
        return "better" if (self.delta < 0) == (self.metric.better == "less") else "worse"

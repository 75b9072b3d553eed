"""How close a cost model comes to measured iterations that it was not built from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from simslm.cost.model import CostModel
from simslm.traces.check import Finding
from simslm.traces.shapes import alone, shapes

TOLERANCE = 0.1
"""Relative error above which a held-out point is a finding."""


@dataclass(frozen=True)
class HeldoutPoint:
    """One shape measured, and predicted.

    Attributes:
        label: the shape in words.
        measured_s: median over repeats.
        predicted_s: the cost model's latency.
        in_domain: whether the model counts the shape as inside what was measured.
    """

    label: str
    measured_s: float
    predicted_s: float
    in_domain: bool

    @property
    def error(self) -> float:
        """Signed, as a fraction of the measured latency."""
        return self.predicted_s / self.measured_s - 1.0


def compare(cost: CostModel, table: pa.Table) -> list[HeldoutPoint]:
    """Measured and predicted latency of every distinct shape of a table; co-located replicas are left out."""
    measured = shapes(alone(table))
    if len(measured) == 0:
        return []
    costs = cost.evaluate(measured.work)
    medians = measured.median("latency_s")
    columns = zip(medians.tolist(), costs.latency_s.tolist(), costs.in_domain.tolist(), strict=True)
    return [HeldoutPoint(measured.label(i), *values) for i, values in enumerate(columns)]


def heldout_findings(points: list[HeldoutPoint]) -> list[Finding]:
    """What to say about held-out points: the largest error as a note, or a warning when it is too large."""
    if not points:
        return []
    worst = max(points, key=lambda point: abs(point.error))
    missed = sum(abs(point.error) > TOLERANCE for point in points)
    median = float(np.median([abs(point.error) for point in points]))
    return [
        Finding(
            "warning" if missed else "note",
            f"{len(points)} held-out points: median error {median:.1%}, largest {worst.error:+.1%}, "
            f"{missed} above {TOLERANCE:.0%}",
            f"heldout.parquet, {worst.label}",
            "measure a denser grid there" if missed else "nothing to do",
        )
    ]

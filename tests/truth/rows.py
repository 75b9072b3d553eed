"""A figure of a finding: published, measured and simulated, with what it has to be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from simslm.units import number

FLAT = 1e-9


@dataclass(frozen=True)
class Kind:
    """How a figure is written: itself, and the difference of two."""

    show: Callable[[float], str]
    difference: Callable[[float, float], str]


def _relative(reference: float, found: float) -> str:
    return f"{100 * (found / reference - 1):+.1f} %" if reference else "–"


def _points(reference: float, found: float) -> str:
    return f"{100 * (found - reference):+.1f} points"


def _steps(reference: float, found: float) -> str:
    return "0" if abs(found - reference) < FLAT else f"{found - reference:+g}"


KINDS = {
    "batch": Kind(lambda value: f"{value:g}", _steps),
    "share": Kind(lambda value: f"{100 * value:.1f} %", _points),
    "gain": Kind(lambda value: f"{100 * value:+.1f} %", _points),
    "factor": Kind(lambda value: f"× {value:.2f}", _relative),
    "rate": Kind(number, _relative),
    "joules": Kind(lambda value: f"{value:.4f} J", _relative),
}


@dataclass(frozen=True)
class Bound:
    """What a simulated figure has to be.

    Attributes:
        words: for a reader.
        holds: of the reference (None when there is none) and the simulated figure; None where it cannot be said.
    """

    words: str
    holds: Callable[[float | None, float], bool | None]


def between(low: float, high: float) -> Bound:
    """The simulated figure itself lies in ``[low, high]``."""
    return Bound(f"{100 * low:+.0f} to {100 * high:+.0f} %", lambda _, found: low <= found <= high)


def near(most: float) -> Bound:
    """It is at most so far from the measured one."""
    return Bound(
        f"within {100 * most:g} points",
        lambda reference, found: None if reference is None else abs(found - reference) <= most,
    )


@dataclass(frozen=True)
class Row:
    """One figure of a finding.

    Attributes:
        name: what it is.
        kind: key of :data:`KINDS`.
        measured, simulated: None where there is none.
        published: as the paper prints it, where it does.
        bound: what the simulated figure has to be, where that is agreed.
    """

    name: str
    kind: str
    measured: float | None
    simulated: float | None
    published: float | None = None
    bound: Bound | None = None

    @property
    def reference(self) -> float | None:
        """What the simulation is held against."""
        return self.published if self.measured is None else self.measured

    @property
    def inside(self) -> bool | None:
        """Whether the bound holds; None where there is none or nothing to hold it against."""
        if self.bound is None or self.simulated is None:
            return None
        return self.bound.holds(self.reference, self.simulated)

    def cells(self) -> tuple[str, ...]:
        """As a line of a table: name, published, measured, simulated, difference, bound, verdict."""
        kind, reference = KINDS[self.kind], self.reference
        figures = (self._show(value) for value in (self.published, self.measured, self.simulated))
        known = reference is not None and self.simulated is not None
        difference = kind.difference(reference, self.simulated) if known else ""
        verdict = "" if self.inside is None else "inside" if self.inside else "outside"
        return (self.name, *figures, difference, self.bound.words if self.bound else "", verdict)

    def _show(self, value: float | None) -> str:
        return "" if value is None else KINDS[self.kind].show(value)

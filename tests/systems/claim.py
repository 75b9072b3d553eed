"""What a published system claims, and how it is put to the simulator: one YAML file for each, in ``claims/``.

A claim names the paper and what its authors ran, a scenario of ``scenarios/systems`` that runs the system, what has to
be changed in it for the baseline, and the figures that are compared. Nothing in it is fitted to the published ratio.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from simslm.catalog.files import read_mapping
from simslm.errors import UsageError, nearest
from simslm.metrics.figure_paths import FIGURES
from simslm.scenario.search import CONSTRAINT

ROOT = Path(__file__).parents[2]
CLAIMS = Path(__file__).parent / "claims"
SCENARIOS = ROOT / "scenarios" / "systems"


class Part(BaseModel):
    """A part of a claim: unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Compared(Part):
    """One figure of the system against the same of its baseline.

    Attributes:
        name: in the report's table.
        published: the paper's ratio, in its words.
        of: a figure of ``summary.json``; or
        capacity: the key whose highest value that meets the SLO (or, where stated, ``within``) is compared.
        within: bounds on figures of the summary that make up the paper's own notion of capacity.
        better: which way is better; the ratio is above 1 where the system is.
        set: overrides for both sides, such as the load.
        at_least: what the ratio has to be; none where only the direction is of interest.
    """

    name: str
    published: str
    of: str | None = None
    capacity: str | None = None
    within: tuple[str, ...] = ()
    better: Literal["high", "low"] = "high"
    set: dict[str, Any] = Field(default_factory=dict)
    at_least: float | None = None

    @model_validator(mode="after")
    def _one_figure(self) -> Compared:
        if (self.of is None) == (self.capacity is None):
            raise ValueError("state either of (a figure of the summary) or capacity (a key of the scenario)")
        if self.within and self.capacity is None:
            raise ValueError("within says what a capacity is: it needs capacity")
        if self.of is not None and self.of not in FIGURES:
            raise ValueError(f"no figure {self.of!r} in summary.json{nearest(self.of, FIGURES)}")
        for text in self.within:
            match = CONSTRAINT.fullmatch(text)
            if match is None or match["path"] not in FIGURES:
                raise ValueError(f"within: expected a figure, <= or >=, and a number, found {text!r}")
        return self


class Baseline(Part):
    """What the system is held against: the scenario with some keys set otherwise."""

    name: str
    set: dict[str, Any]


class Claim(Part):
    """A published system.

    Attributes:
        row: its number in the report, by which the report is ordered.
        system: its name.
        source: paper, and the sections that say the mechanism and the ratio.
        mechanism: which part of the simulator stands for it.
        conditions: what the authors ran.
        scenario: file in ``scenarios/systems``; null = none, see ``elsewhere``.
        setup: what differs from the table's fixed model, device and traffic; empty = nothing.
        baseline: what it is held against.
        figures: compared; none where ``elsewhere`` says who shows them.
        reason: why ours differs from theirs.
        seeds: how many runs of each side, under the same seeds on both.
        elsewhere: for a system that has a report of its own.
    """

    row: int
    system: str
    source: str
    mechanism: str
    conditions: str = ""
    scenario: str | None = None
    setup: str = ""
    baseline: Baseline | None = None
    figures: tuple[Compared, ...] = ()
    reason: str = ""
    seeds: int = Field(default=5, ge=2)
    elsewhere: str = ""

    @model_validator(mode="after")
    def _whole(self) -> Claim:
        compared = (
            self.scenario,
            self.baseline,
            self.figures or None,
            self.conditions or None,
            self.reason or None,
        )
        if not self.elsewhere and None in compared:
            raise ValueError("state scenario, baseline, figures, conditions and reason; or elsewhere")
        if self.elsewhere and compared != (None,) * len(compared):
            raise ValueError("elsewhere stands for scenario, baseline, figures, conditions and reason")
        return self

    @property
    def path(self) -> Path:
        """Of the scenario."""
        assert self.scenario is not None
        return SCENARIOS / self.scenario


def read_claim(path: Path) -> Claim:
    """A claim from its file.

    Raises:
        UsageError: it is not one; every fault is named.
    """
    try:
        return Claim.model_validate(read_mapping(path))
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        raise UsageError("; ".join(faults), where=str(path)) from None


def read_claims(folder: Path = CLAIMS, only: Sequence[str] | None = None) -> list[Claim]:
    """All claims of a folder, or those whose files are named so, by row and then by file name.

    Raises:
        UsageError: there is no such file, or one is no claim.
    """
    paths = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    for name in only or ():
        if name not in paths:
            raise UsageError(f"no claim {name!r}{nearest(name, list(paths))}", where=str(folder))
    chosen = [path for name, path in paths.items() if only is None or name in only]
    return sorted(map(read_claim, chosen), key=lambda claim: claim.row)

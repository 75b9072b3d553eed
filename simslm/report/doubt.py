"""Whether a verdict can be given at all: not on costs that miss their own measurements, nor across an interval."""

from __future__ import annotations

from simslm.report.tables import RunTables, dig, figure_of
from simslm.report.verdict import Verdict
from simslm.report.wording import attained, share
from simslm.units import number


def doubted(run: RunTables, answer: Verdict) -> Verdict:
    """The same verdict, or one that says why it is not known whether the SLO is met."""
    if answer.state not in ("met", "missed"):
        return answer
    why = _forced(run) or _crossed(run)
    return Verdict("unclear", "Cannot tell", f"{why} {answer.sentence}") if why else answer


def _forced(run: RunTables) -> str:
    if dig(run.summary, "cost.forced"):
        return "The costs miss the runs they were calibrated on."
    return ""


def _crossed(run: RunTables) -> str:
    """Why the interval of the attainment decides nothing; empty where it does."""
    interval = (dig(run.summary, "intervals.figures") or {}).get("slo.attainment")
    if not interval:
        return ""
    asked = figure_of(run.scenario, "slo.attainment") or 1.0
    low, high = interval
    if not low < asked <= high:
        return ""
    level = number(100 * (figure_of(run.summary, "intervals.level") or 0.95))
    return (
        f"The {level} % interval of the attainment, {attained(low)} to {attained(high)}, holds the {share(asked)} "
        "asked: costs are not known well enough."
    )

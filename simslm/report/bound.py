"""Why a run was not faster: what bounded it and which knob moves it, put into sentences with the figures behind them.

:mod:`regime` decides, :mod:`explanation` and :mod:`knobs` say it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from simslm.report.explanation import GATE_NAMES, sentences
from simslm.report.facts import Facts, Offered
from simslm.report.knobs import knobs
from simslm.report.regime import DECISIVE, FAILED, GATES, WAITED, regime
from simslm.report.wording import attained, share
from simslm.units import number, seconds


@dataclass(frozen=True, slots=True)
class RuleFigure:
    """One figure a rule looked at, and the rule."""

    name: str
    value: str
    rule: str


@dataclass(frozen=True, slots=True)
class Bound:
    """The answer.

    Attributes:
        kind, phase: see :class:`~simslm.report.regime.Regime`.
        sentences: what bounded the run, the most important first.
        knobs: what to change, the most promising first.
        evidence: the figures behind it.
    """

    kind: str
    phase: str | None
    sentences: Sequence[str]
    knobs: Sequence[str]
    evidence: Sequence[RuleFigure]


def bound(facts: Facts) -> Bound:
    """What is said of a run."""
    found = regime(facts)
    looked_at = [] if found.kind == "nothing" else list(evidence(facts))
    return Bound(found.kind, found.phase, sentences(facts, found), knobs(facts, found), looked_at)


def evidence(facts: Facts) -> Iterator[RuleFigure]:
    """Every figure the rules looked at, with the rule it served."""
    busy = facts.split.busy_s
    if facts.failed:
        yield RuleFigure("Failed, of arrived requests", share(facts.failed), f"{share(FAILED)} is the answer")
    if facts.rejected:
        yield RuleFigure("Rejected, of arrived requests", share(facts.rejected), "each is a miss")
    if facts.preemptions:
        rule = "a storm beyond 1, or where more than 20 % of the computed tokens had been computed before"
        yield RuleFigure("Preemptions for each finished request", number(facts.preempted), rule)
    if facts.start is not None:
        rule = "MSER-5 cuts the start; the verdict is another without it"
        yield RuleFigure("SLO attainment after the start", attained(facts.start.rest), rule)
    if facts.offered is not None:
        yield _offered(facts.offered)
    yield RuleFigure(
        f"Busy time{facts.limits.of_group} with a queue",
        share(facts.waited),
        f"requests waited from {share(WAITED)} on",
    )
    full = [f"{GATE_NAMES[name]} {share(facts.full[name])}" for name in GATES]
    yield RuleFigure("Reached while they waited", ", ".join(full), f"{share(DECISIVE)} names the limit")
    rule = f"kept up: at most 5 % of the makespan, or the p99 of E2E − queue: {seconds(facts.service_s)}"
    yield RuleFigure("Last finish − last arrival", seconds(facts.drain_s), rule)
    phases = [f"{name} {share(value / busy)}" for name, value in facts.split.parts() if name != "idle"]
    yield RuleFigure("Busy time by phase", ", ".join(phases), f"{share(DECISIVE)} names the leading phase")
    if facts.weight_share is not None:
        yield RuleFigure("Weights in decode traffic", share(facts.weight_share), "the rest is KV")
    if facts.fixed_share is not None:
        rule = "straight line of duration against batch; from 20 % on, a larger batch pays"
        yield RuleFigure("Fixed part of a decode iteration", share(facts.fixed_share), rule)


def _offered(found: Offered) -> RuleFigure:
    served = "" if found.served_rps is None else f", {number(found.served_rps)}/s finished meanwhile"
    asked = "" if found.asked_rps is None else f"; {number(found.asked_rps)}/s asked for"
    rule = f"arrived requests − 1, over the time from the first arrival to the last{asked}"
    return RuleFigure("Offered", f"{number(found.rps)} requests/s{served}", rule)

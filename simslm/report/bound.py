"""Why a run was not faster: what bounded it and which knob moves it.

The rules, in order (every figure is defined in :mod:`facts` and printed beside the answer):

0. When no request finished, or at least half of the clients left before their last token, that is the answer,
   and what the others waited for is why.
1. Requests *waited* when there was a queue for at least 10 % of the busy time.
2. The limit that was reached in at least half of that time is what they waited for: KV blocks, slots
   (``max_num_seqs``) or the token budget (``max_num_batched_tokens``), whichever was reached longest, the
   first of them on a tie. Reached means that one more mean prompt would not have fitted. When none was reached
   half of that time, the batching policy held requests back; anything between is undecided, and said so.
3. The replicas *kept up* when the last request finished soon after the last arrival. Then the arrival rate
   bounded the throughput, and waiting is the price of bursts.
4. When hardly any request waited and arrivals did not bound the run either, the number of clients did (closed
   loop) or the speed of the iterations (all at once).
5. The phase that took at least half of the busy time is where a faster run has to come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from simslm.report import explanation
from simslm.report.facts import Facts
from simslm.report.wording import share
from simslm.units import seconds

FAILED = 0.50
WAITED = 0.10
DECISIVE = 0.50
GATES = ("kv", "slots", "tokens")


@dataclass(frozen=True, slots=True)
class Evidence:
    """One figure a rule looked at, and the rule."""

    name: str
    value: str
    rule: str


@dataclass(frozen=True, slots=True)
class Bound:
    """The answer.

    Attributes:
        kind: ``unanswered | arrivals | concurrency | kv | slots | tokens | policy | iterations | undecided | nothing``.
        phase: ``host | prefill | decode`` when it took at least half of the busy time, else None.
        sentences: what bounded the run, the most important first.
        knobs: what to change, the most promising first.
        evidence: the figures behind it.
    """

    kind: str
    phase: str | None
    sentences: Sequence[str]
    knobs: Sequence[str]
    evidence: Sequence[Evidence]


def bound(facts: Facts) -> Bound:
    """Apply the rules of this module."""
    if not facts.split.busy_s:
        return Bound("nothing", None, ["No iteration ran, so nothing bounded this run."], [], [])
    gate, phase = waiting_gate(facts), leading_phase(facts)
    kind = bound_kind(facts, gate)
    sentences = [
        explanation.headline(facts, kind, phase),
        explanation.bursts(facts, gate) if kind == "arrivals" else "",
        explanation.queue(facts, gate) if kind == "unanswered" else "",
        explanation.spent(facts),
        explanation.slo_miss(facts),
        explanation.rejections(facts),
    ]
    knobs = [
        explanation.kind_knob(facts, kind),
        explanation.kind_knob(facts, gate) if kind in ("unanswered", "arrivals") and gate else "",
        explanation.imbalance_knob(facts) if kind in (*GATES, "undecided") else "",
        explanation.phase_knob(facts, phase) if kind not in ("arrivals", "tokens") else "",
        explanation.rejection_knob(facts),
    ]
    return Bound(kind, phase, [s for s in sentences if s], [k for k in knobs if k], evidence(facts))


def waiting_gate(facts: Facts) -> str | None:
    """What queued requests waited for, or None when hardly any waited."""
    if facts.waited < WAITED:
        return None
    longest = max(GATES, key=lambda name: facts.full[name])
    if facts.full[longest] >= DECISIVE:
        return longest
    return "policy" if sum(facts.full.values()) < DECISIVE else "undecided"


def bound_kind(facts: Facts, gate: str | None) -> str:
    """What bounded the run, by rules 0 and 2 to 4."""
    if not facts.finished or facts.failed >= FAILED:
        return "unanswered"
    if facts.arrivals == "open" and facts.kept_up:
        return "arrivals"
    if gate is not None:
        return gate
    return "concurrency" if facts.arrivals == "closed-loop" else "iterations"


def leading_phase(facts: Facts) -> str | None:
    """The phase that took at least half of the busy time, or None."""
    for name, spent in facts.split.parts():
        if name != "idle" and spent >= DECISIVE * facts.split.busy_s:
            return name
    return None


def evidence(facts: Facts) -> list[Evidence]:
    """Every figure the rules looked at, with the rule it served."""
    busy = facts.split.busy_s
    phases = [f"{name} {share(value / busy)}" for name, value in facts.split.parts() if name != "idle"]
    full = [f"{explanation.GATE_NAMES[name]} {share(facts.full[name])}" for name in GATES]
    service = f"kept up: at most 5 % of the makespan, or the p99 of E2E − queue: {seconds(facts.service_s)}"
    rows = [
        Evidence("Busy time with a queue", share(facts.waited), f"requests waited from {share(WAITED)} on"),
        Evidence("Reached while they waited", ", ".join(full), f"{share(DECISIVE)} names the limit"),
        Evidence("Last finish − last arrival", seconds(facts.drain_s), service),
        Evidence("Busy time by phase", ", ".join(phases), f"{share(DECISIVE)} names the leading phase"),
    ]
    if facts.failed:
        rule = f"{share(FAILED)} is the answer"
        rows.insert(0, Evidence("Clients that left, of arrived requests", share(facts.failed), rule))
    if facts.weight_share is not None:
        rows.append(Evidence("Weights in decode traffic", share(facts.weight_share), "the rest is KV"))
    if facts.fixed_share is not None:
        rule = "straight line of duration against batch; from 20 % on, a larger batch pays"
        rows.append(Evidence("Fixed part of a decode iteration", share(facts.fixed_share), rule))
    return rows

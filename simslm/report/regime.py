"""The regime of a run: the one place that decides it; verdict, reasons and knobs follow from it.

The rules, in order (every figure is defined in :mod:`facts` and printed beside the answer):

0. When no request finished, or at least half of the clients left before their last token, that is the answer,
   and what the others waited for is why.
1. A *storm*, as the summary calls it: more than one preemption for each request that finished, or more than a fifth of
   the computed tokens computed before. Where faults took more of it than preemptions did, the *faults* are the answer.
2. *Turned away*: admission rejected more than a few requests. Then what is served says nothing of what was offered.
3. The replicas *kept up* when the last request finished soon after the last arrival, and requests did not wait for most
   of the busy time. Then the arrival rate
   bounded the throughput, and waiting is the price of bursts.
4. Requests *waited* when there was a queue for at least 10 % of the busy time. The limit that was reached in at
   least half of that time is what they waited for, the *gate*: KV blocks, slots (``max_num_seqs``) or the token
   budget (``max_num_batched_tokens``), whichever was reached longest, the first of them on a tie. Reached means
   that one more mean prompt would not have fitted. When none was reached half of that time, the batching policy
   held requests back; anything between is undecided, and said so.
   Where a scenario has groups, this is asked of the group in which requests waited longest, summed over requests:
   its replicas' busy time, and its limits. In a decode group, handed-over requests wait for slots and KV blocks.
5. When hardly any request waited and arrivals did not bound the run either, the number of clients did (closed
   loop) or the speed of the iterations (all at once).
6. The phase that took at least half of the busy time is where a faster run has to come from.
7. When the SLO was missed, the bound that most requests broke has a *cause*: queueing (between prefill and decode as
   well), prefill, prompts beside
   the decoding, or the size of the batch. The knob for that cause comes first, and no knob turns it back.
"""

from __future__ import annotations

from dataclasses import dataclass

from simslm.report.facts import Facts

FAILED = 0.50
WAITED = 0.10
DECISIVE = 0.50
RECOMPUTED = 0.20
MINOR = 0.01
"""Share of arrived requests below which a broken bound or a rejection is not explained."""

GATES = ("kv", "slots", "tokens")


@dataclass(frozen=True, slots=True)
class Miss:
    """The bound that most requests broke.

    Attributes:
        key: the latency.
        share: of arrived requests, those that finished and broke it.
        cause: ``queueing | prefill | mixed | batch | service | unknown``; ``service`` is prefill and decoding together.
    """

    key: str
    share: float
    cause: str


@dataclass(frozen=True, slots=True)
class Regime:
    """The answer.

    Attributes:
        kind: ``nothing | unanswered | storm | faults | turned-away | arrivals | kv | slots | tokens | policy |
            undecided | concurrency | iterations``.
        gate: what queued requests waited for, ``kv | slots | tokens | policy | undecided``; None where hardly any did.
        late: the same of those few, where the requests that missed the SLO were among them.
        phase: ``host | prefill | decode`` when it took at least half of the busy time, else None.
        miss: why the SLO was missed, as far as broken bounds are why; None where it was not, or hardly any broke one.
        good: whether there is nothing to mend: the SLO is not missed, and hardly any request was lost.
    """

    kind: str
    gate: str | None
    late: str | None
    phase: str | None
    miss: Miss | None
    good: bool


def regime(facts: Facts) -> Regime:
    """Applies the rules of this module."""
    if not facts.split.busy_s:
        return Regime("nothing", None, None, None, None, facts.slo != "missed" and facts.lost < MINOR)
    gate, found = waiting_gate(facts), miss(facts)
    late = gate
    if gate is None and found is not None and found.cause == "queueing":
        late = gate_of(facts)
    good = facts.slo != "missed" and facts.lost < MINOR and facts.finished > 0
    return Regime(_kind(facts, gate), gate, late, leading_phase(facts), found, good)


def waiting_gate(facts: Facts) -> str | None:
    """What queued requests waited for, or None when hardly any waited."""
    return None if facts.waited < WAITED else gate_of(facts)


def gate_of(facts: Facts) -> str:
    """The limit that was reached while requests waited, however few did."""
    longest = max(GATES, key=lambda name: facts.full[name])
    if facts.full[longest] >= DECISIVE:
        return longest
    return "policy" if sum(facts.full.values()) < DECISIVE else "undecided"


def turned_away(facts: Facts) -> bool:
    """Whether admission rejected more than a few requests, as far as the scenario tells."""
    return facts.rejected >= MINOR and facts.door.admission != "open"


def _kind(facts: Facts, gate: str | None) -> str:
    """What bounded the run, by rules 0 to 5."""
    if not facts.finished or facts.failed >= FAILED:
        return "unanswered"
    if facts.storm:
        return "storm"
    if facts.recomputed > RECOMPUTED and 2 * facts.lost_work > facts.preemptions:
        return "faults"
    if turned_away(facts):
        return "turned-away"
    waiting_long = gate is not None and facts.waited >= DECISIVE
    if facts.arrivals == "open" and facts.kept_up and not waiting_long:
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


def miss(facts: Facts) -> Miss | None:
    """Why the stated bound that most requests broke was broken; None when the SLO was met or hardly any broke one."""
    if facts.slo != "missed" or not facts.missed or max(facts.missed.values()) < MINOR:
        return None
    key = max(facts.missed, key=lambda each: facts.missed[each])
    return Miss(key, facts.missed[key], _cause(facts, key))


def _cause(facts: Facts, key: str) -> str:
    if key == "queue_s":
        return "queueing"
    if key == "tpot_s":
        if facts.wait_of_tpot is not None and facts.wait_of_tpot >= DECISIVE:
            return "queueing"
        return "mixed" if facts.mixed_token_time >= DECISIVE else "batch"
    queue = facts.queue_of_ttft if key == "ttft_s" else facts.queue_of_e2e
    if queue is None:
        return "unknown"
    if queue >= DECISIVE:
        return "queueing"
    return "prefill" if key == "ttft_s" else "service"

"""The sentences that say what bounded a run; every figure in them is a fact, and none of them gives advice."""

from __future__ import annotations

from simslm.metrics.definitions import BY_KEY
from simslm.report.facts import Facts
from simslm.report.regime import DECISIVE, MINOR, Miss, Regime
from simslm.report.wording import attained, count, share
from simslm.units import number, seconds

GATE_NAMES = {
    "kv": "KV blocks",
    "slots": "the batch limit",
    "tokens": "the token budget",
    "policy": "the batching policy",
    "undecided": "several limits in turn",
}


def sentences(facts: Facts, regime: Regime) -> list[str]:
    """What bounded the run, the most important first."""
    if regime.kind == "nothing":
        return [
            text for text in ("No iteration ran, so nothing bounded this run.", rejections(facts)) if text
        ]
    found = [
        start(facts),
        headline(facts, regime),
        waiting(facts, regime),
        load(facts, regime),
        spent(facts),
        slo_miss(facts, regime),
        preempted(facts, regime),
        failures(facts, regime),
        rejections(facts) if regime.kind != "turned-away" else "",
    ]
    return [text for text in found if text]


def start(facts: Facts) -> str:
    """The sentence that the start of the run alone decided the verdict."""
    found = facts.start
    if found is None:
        return ""
    most = found.at_once >= max(found.requests / 4, 2)
    which = f"the first {count(found.requests)} requests" + (
        f", {count(found.at_once)} of them sent at once" if most else ""
    )
    kept = f"of {which}, {attained(found.kept)} kept the SLO, of the {count(found.arrived - found.requests)} after them"
    verdict = "missed" if found.rest > found.kept else "met"
    return f"The start decided that the SLO was {verdict}: {kept} {attained(found.rest)}."


def headline(facts: Facts, regime: Regime) -> str:
    """What bounded the run."""
    kind = regime.kind
    if kind == "unanswered":
        return unanswered(facts)
    if kind == "storm":
        return _storm(facts)
    if kind == "faults":
        return (
            f"Faults bounded this run: replicas failed {count(facts.faults)} times, and {count(facts.lost_work)} times "
            f"a request lost with them what it had computed; {share(facts.recomputed)} of the computed tokens had "
            "been computed before."
        )
    if kind == "turned-away":
        door = facts.door
        lost = f"{share(facts.rejected)} of the arrived requests"
        return f"Admission (`{door.admission}`){door.of_group} turned away {lost}."
    if kind == "arrivals":
        return _arrivals(facts, regime)
    if kind == "concurrency":
        few = "" if regime.late is not None else ": hardly any request had to wait"
        return f"The number of clients bounded the throughput{few}."
    if kind == "policy":
        return (
            f"The batching policy{facts.limits.of_group} held requests back: most of the time in which they waited, "
            "there was room for one more."
        )
    if kind == "iterations":
        few = "" if regime.late is not None else ": hardly any request had to wait"
        return f"The speed of the iterations bounded this run{few}."
    return _gate(facts, kind, regime.phase)


def _gate(facts: Facts, kind: str, phase: str | None) -> str:
    limits = facts.limits
    queued = f"in {share(facts.full.get(kind, 0.0))} of the time in which requests waited,"
    if kind == "kv":
        times = "once" if facts.preemptions == 1 else f"{count(facts.preemptions)} times"
        evicted = f"; {times} a sequence was preempted" if facts.preemptions else ""
        full = "there was no room for one more prompt"
        return f"KV capacity{limits.of_group} bounded this run: {queued} {full}{evicted}."
    if kind == "slots":
        slots = f"{count(limits.max_num_seqs)} sequences (`{limits.key('max_num_seqs')}`)"
        return f"The batch limit{limits.of_group} bounded this run: {queued} all {slots} were in use."
    if kind == "tokens":
        what = "Prefill compute" if phase == "prefill" else "The token budget"
        budget = f"{count(limits.max_num_batched_tokens)} tokens (`{limits.key('max_num_batched_tokens')}`)"
        return f"{what}{limits.of_group} bounded this run: {queued} the iterations were filled to {budget}."
    parts = ", ".join(f"{GATE_NAMES[name]} {share(value)}" for name, value in facts.full.items())
    return f"No single limit{limits.of_group} bounded this run. While requests waited, these were reached: {parts}."


def _arrivals(facts: Facts, regime: Regime) -> str:
    """The sentence for a run that ended soon after the last arrival; it says that the run kept up only in a good
    regime."""
    rate = "" if facts.offered is None else f" {number(facts.offered.rps)} requests/s"
    drain = f"the last request finished {seconds(facts.drain_s)} after the last arrival"
    if regime.good:
        whose = f" with{rate}" if rate else ""
        return f"The arrival rate bounded the throughput: the replicas kept up{whose}, and {drain}."
    came = f"the{rate} that arrived" if rate else "what arrived"
    if facts.slo == "missed" and facts.lost < max(facts.missed.values(), default=0.0):
        return f"Throughput was enough for {came}, latency was not: {drain}, but too many requests missed the SLO."
    return f"Throughput was enough for {came} ({drain}), but {share(facts.lost)} of the requests were lost."


def _storm(facts: Facts) -> str:
    limits = facts.preempts
    what = "Swapping thrashed" if limits.swaps else "A preemption storm bounded this run"
    lost = (
        "and its blocks were copied out and back"
        if limits.swaps
        else "and what it had computed was computed again"
    )
    names = (
        ""
        if limits.preemption_policy == "youngest"
        else f" by `preemption_policy: {limits.preemption_policy}`"
    )
    order = (
        ""
        if limits.scheduling_policy == "fcfs" and not names
        else (f"{' under' if names else ' by'} `scheduling_policy: {limits.scheduling_policy}`")
    )
    return (
        f"{what}: {count(facts.preemptions)} times a running sequence was preempted{limits.in_group}{names}{order}, "
        f"{lost}, "
        f"{number(facts.preempted)} times for each request that finished; {share(facts.recomputed)} of the computed "
        "tokens had been computed before."
    )


def unanswered(facts: Facts) -> str:
    """The sentence for a run in which most clients left, or no request finished."""
    if not facts.failed:
        return "No request finished before the simulation ended."
    if 2 * facts.killed >= facts.failed:
        return f"{_killed(facts)}."
    left = f"{share(facts.failed)} of the requests failed: their clients left before the last token"
    return f"{left}, {share(facts.failed_early)} of them before the first."


def waiting(facts: Facts, regime: Regime) -> str:
    """What requests waited for, where the headline does not say."""
    gate, part, of = regime.gate, share(facts.waited), facts.limits.of_group
    if regime.kind in ("unanswered", "storm", "faults", "turned-away"):
        return (
            "" if gate is None else f"In {part} of the busy time{of} requests waited for {GATE_NAMES[gate]}."
        )
    if regime.kind not in ("arrivals", "concurrency", "iterations"):
        return ""
    if gate is not None:
        return f"In bursts, {part} of the busy time{of}, requests waited for {GATE_NAMES[gate]}."
    if regime.late is not None:
        return f"Only in {part} of the busy time{of} requests waited, then for {GATE_NAMES[regime.late]}."
    return (
        f"Requests had to wait in {part} of the busy time{of}."
        if facts.waited and regime.kind == "arrivals"
        else ""
    )


def load(facts: Facts, regime: Regime) -> str:
    """The load that was offered beside the load that was served, where more was offered."""
    found = facts.offered
    if found is None or found.served_rps is None or regime.kind in ("arrivals", "iterations"):
        return ""
    if facts.kept_up and regime.kind != "turned-away":
        return ""
    served = f"{number(found.rps)} requests/s were offered, {number(found.served_rps)}/s finished while they arrived"
    if facts.kept_up or regime.kind == "unanswered":
        return f"{served}."
    return f"{served}: the queue grew, so latencies depend on how long it went on."


def spent(facts: Facts) -> str:
    """The shares of the replicas' time, the largest first."""
    verbs = {"host": "in host time", "prefill": "prefilling", "decode": "decoding", "idle": "idle"}
    parts = sorted(facts.split.parts(), key=lambda part: -part[1])
    words = [f"{share(value / facts.split.total_s)} {verbs[name]}" for name, value in parts if value]
    who = "The replica spent" if facts.replicas == 1 else f"The {facts.replicas} replicas spent"
    if facts.up < facts.replicas:
        who = f"The replicas that could serve, {number(facts.up)} of {facts.replicas} on average, spent"
    *most, last = words
    return f"{who} {', '.join(most)} and {last}." if most else f"{who} {last}."


def slo_miss(facts: Facts, regime: Regime) -> str:
    """Why the stated bound that most requests broke was broken."""
    miss = regime.miss
    if miss is None:
        return ""
    others = [
        f"{share(value)} broke the {BY_KEY[key].name} bound"
        for key, value in facts.missed.items()
        if key != miss.key and value >= MINOR
    ]
    return " ".join([_leading_miss(facts, miss), *([f"{' and '.join(others)} as well."] if others else [])])


def _leading_miss(facts: Facts, miss: Miss) -> str:
    """The miss of the bound that most requests broke."""
    broken = f"{share(miss.share)} of the requests broke the {BY_KEY[miss.key].name} bound"
    if miss.key == "ttft_s" and facts.queue_of_ttft is not None:
        queueing = miss.cause == "queueing"
        part = facts.queue_of_ttft if queueing else 1 - facts.queue_of_ttft
        return f"{broken}; {share(part)} of their TTFT was {'queueing' if queueing else 'prefill'}."
    if miss.key == "e2e_s" and facts.queue_of_e2e is not None:
        queueing = miss.cause == "queueing"
        part = facts.queue_of_e2e if queueing else 1 - facts.queue_of_e2e
        return f"{broken}; {share(part)} of their E2E was {_waiting(facts) if queueing else 'prefill and decoding'}."
    if miss.key == "tpot_s" and miss.cause == "queueing" and facts.wait_of_tpot is not None:
        return f"{broken}; {share(facts.wait_of_tpot)} of their time after the first token was {_waiting(facts)}."
    if miss.cause == "mixed":
        mixed = f"{share(facts.mixed_token_time)} of the time per token"
        return f"{broken}; {mixed} went by in iterations that also prefill."
    return f"{broken}."


def _waiting(facts: Facts) -> str:
    """Where late requests waited, if most of their waiting was between the phases."""
    if facts.handed_over < DECISIVE:
        return "queueing"
    return f"waiting between prefill and decode, for group `{facts.decodes.group}`"


def preempted(facts: Facts, regime: Regime) -> str:
    """The sentence on preemptions, where there were enough of them and no other sentence has them."""
    if regime.kind in ("storm", "faults", "kv") or facts.preempted < 0.1:
        return ""
    each = f"{number(facts.preempted)} for each finished request"
    return f"Preemptions: {count(facts.preemptions)}, {each}."


def failures(facts: Facts, regime: Regime) -> str:
    """The sentence on requests that failed, where more than a few did and the headline does not say it."""
    if facts.failed < MINOR or regime.kind == "unanswered":
        return ""
    left = facts.failed - facts.killed
    said = [_killed(facts)] if facts.killed else []
    if left > 0:
        said.append(f"{share(left)} of the requests failed: their clients left before the last token")
    return f"{'; '.join(said)}."


def _killed(facts: Facts) -> str:
    return f"{share(facts.killed)} of the requests failed: their replicas did"


def rejections(facts: Facts) -> str:
    """The sentence on rejected requests, where more than a few were."""
    if facts.rejected < MINOR:
        return ""
    if facts.door.admission != "open":
        return f"{share(facts.rejected)} of the arrived requests were rejected: not let in, or too long ever to fit."
    return f"{share(facts.rejected)} of the arrived requests can never fit and were rejected."

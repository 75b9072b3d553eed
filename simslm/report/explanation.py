"""The sentences that say what bounded a run and which knob moves it; every figure in them is a fact."""

from __future__ import annotations

from simslm.metrics.definitions import BY_KEY
from simslm.report.facts import Facts
from simslm.report.wording import count, share
from simslm.units import seconds

MINOR = 0.01
"""Share of arrived requests below which a broken bound or a rejection is not explained."""

GATE_NAMES = {
    "kv": "KV blocks",
    "slots": "the batch limit",
    "tokens": "the token budget",
    "policy": "the batching policy",
    "undecided": "several limits in turn",
}


def headline(facts: Facts, kind: str, phase: str | None) -> str:
    """What bounded the run."""
    if kind == "unanswered":
        return unanswered(facts)
    queued = f"in {share(facts.full.get(kind, 0.0))} of the time in which requests waited,"
    if kind == "kv":
        evicted = f"; {count(facts.preemptions)} sequences were preempted" if facts.preemptions else ""
        return f"KV capacity bounded this run: {queued} there was no room for one more prompt{evicted}."
    if kind == "slots":
        slots = f"{count(facts.limits.max_num_seqs)} sequences (`max_num_seqs`)"
        return f"The batch limit bounded this run: {queued} all {slots} were in use."
    if kind == "tokens":
        what = "Prefill compute" if phase == "prefill" else "The token budget"
        budget = f"{count(facts.limits.max_num_batched_tokens)} tokens (`max_num_batched_tokens`)"
        return f"{what} bounded this run: {queued} the iterations were filled to {budget}."
    if kind == "undecided":
        parts = ", ".join(f"{GATE_NAMES[name]} {share(value)}" for name, value in facts.full.items())
        return f"No single limit bounded this run. While requests waited, these were reached: {parts}."
    if kind == "arrivals":
        drain = f"the last request finished {seconds(facts.drain_s)} after the last arrival"
        return f"The arrival rate bounded the throughput: the replicas kept up, and {drain}."
    return {
        "concurrency": "The number of clients bounded the throughput: hardly any request had to wait.",
        "policy": "The batching policy held requests back: most of the time in which they waited, there was "
        "room for one more.",
        "iterations": "The speed of the iterations bounded this run: hardly any request had to wait.",
    }[kind]


def unanswered(facts: Facts) -> str:
    """That most clients left, or that nothing else was answered."""
    if not facts.failed:
        return "No request finished before the simulation ended."
    left = f"{share(facts.failed)} of the requests failed: their clients left before the last token"
    return f"{left}, {share(facts.failed_early)} of them before the first."


def queue(facts: Facts, gate: str | None) -> str:
    """What requests waited for that were not answered."""
    if gate is None:
        return ""
    return f"In {share(facts.waited)} of the busy time requests waited for {GATE_NAMES[gate]}."


def bursts(facts: Facts, gate: str | None) -> str:
    """Whether requests waited although the replicas kept up on the whole."""
    if gate is not None:
        return f"In bursts, {share(facts.waited)} of the busy time, requests waited for {GATE_NAMES[gate]}."
    return f"Requests had to wait in {share(facts.waited)} of the busy time." if facts.waited else ""


def spent(facts: Facts) -> str:
    """Where the time of the replicas went, the largest part first."""
    verbs = {"host": "in host time", "prefill": "prefilling", "decode": "decoding", "idle": "idle"}
    parts = sorted(facts.split.parts(), key=lambda part: -part[1])
    words = [f"{share(value / facts.split.total_s)} {verbs[name]}" for name, value in parts if value]
    who = "The replica spent" if facts.replicas == 1 else f"The {facts.replicas} replicas spent"
    *most, last = words
    return f"{who} {', '.join(most)} and {last}." if most else f"{who} {last}."


def slo_miss(facts: Facts) -> str:
    """Why the stated bound that most requests broke was broken; empty when hardly any broke one."""
    if not facts.missed or max(facts.missed.values()) < MINOR:
        return ""
    worst = max(facts.missed, key=lambda key: facts.missed[key])
    broken = f"{share(facts.missed[worst])} of the arrived requests broke the {BY_KEY[worst].name} bound"
    if worst == "ttft_s" and facts.queue_of_ttft is not None:
        queueing = facts.queue_of_ttft >= 0.5
        part = facts.queue_of_ttft if queueing else 1 - facts.queue_of_ttft
        return f"{broken}; {share(part)} of their TTFT was {'queueing' if queueing else 'prefill'}."
    if worst == "tpot_s" and facts.mixed_token_time >= 0.5:
        mixed = (
            f"{share(facts.mixed_token_time)} of the time per token went by in iterations that also prefill"
        )
        return f"{broken}; {mixed}, so a smaller `max_num_batched_tokens` shortens it."
    if worst == "tpot_s":
        return f"{broken}; a smaller `max_num_seqs` or more replicas shorten it."
    return f"{broken}."


def rejections(facts: Facts) -> str:
    """That requests were rejected, when more than a few were."""
    if facts.rejected < MINOR:
        return ""
    return f"{share(facts.rejected)} of the arrived requests can never fit and were rejected."


def rejection_knob(facts: Facts) -> str:
    """What makes rejected requests fit."""
    if facts.rejected < MINOR:
        return ""
    whole = "" if facts.limits.chunked else ", or a `max_num_batched_tokens` that holds a whole prompt"
    return f"Rejected requests take a longer `max_model_len` or more KV blocks{whole}."


def kind_knob(facts: Facts, kind: str) -> str:
    """What to change about what bounded the run."""
    if kind == "kv":
        return _kv_knob(facts)
    if kind == "slots":
        return _slots_knob(facts)
    if kind == "tokens":
        now = count(facts.limits.max_num_batched_tokens)
        return (
            f"A `max_num_batched_tokens` above {now} shortens TTFT at the price of ITL; "
            "more throughput takes more devices, prefix caching or shorter prompts."
        )
    return {
        "unanswered": "Send fewer requests or serve them with more devices; or, where clients can wait longer, raise "
        "`workload.timeout_s` (or `workload.cancellations.mean_after_s`)."
        if facts.failed
        else "",
        "arrivals": "To find the capacity of this deployment, raise the arrival rate.",
        "concurrency": "Raise `workload.arrivals.concurrency` until requests begin to wait.",
        "policy": "Try another `deployment.engine.batching.policy`.",
    }.get(kind, "")


def _kv_knob(facts: Facts) -> str:
    if facts.limits.blocks_set_by_hand:
        return "Raise `num_gpu_blocks`, or leave it out to use all the memory there is."
    fewer = "fewer `replicas_per_device`, " if facts.limits.replicas_per_device > 1 else ""
    return (
        f"Give each replica more KV blocks: a higher `gpu_memory_utilization`, {fewer}"
        "a device with more memory, or a smaller data type."
    )


def _slots_knob(facts: Facts) -> str:
    fixed, peak = facts.fixed_share, facts.kv_peak
    if peak is not None and peak >= 0.9:
        return f"KV blocks peaked at {share(peak)}: a larger `max_num_seqs` needs more of them first."
    if fixed is not None and fixed < 0.2:
        return (
            f"A larger `max_num_seqs` buys little: only {share(fixed)} of the largest decode iterations does not "
            "grow with the batch. More replicas or devices do."
        )
    reasons = []
    if peak is not None:
        reasons.append(f"KV blocks peaked at {share(peak)}")
    if fixed is not None:
        reasons.append(f"{share(fixed)} of the largest decode iterations does not grow with the batch")
    because = f": {' and '.join(reasons)}" if reasons else ""
    return f"Raise `max_num_seqs` above {count(facts.limits.max_num_seqs)}{because}."


def imbalance_knob(facts: Facts) -> str:
    """What to change when some replicas idled while others had a queue."""
    idle = facts.split.idle_s / facts.split.total_s
    if facts.replicas < 2 or idle < 0.2:
        return ""
    return f"Replicas idled {share(idle)} of the time while others had a queue: try another `router.policy`."


def phase_knob(facts: Facts, phase: str | None) -> str:
    """What shortens the leading phase."""
    if phase == "host":
        return "Host time leads: replicas that share a device overlap it, a faster engine shortens it."
    if phase == "prefill":
        return "Prefill leads: prefix caching, shorter prompts or more devices shorten it."
    if phase != "decode" or facts.weight_share is None:
        return ""
    if facts.weight_share >= 0.5:
        traffic = f"Decode leads, and {share(facts.weight_share)} of its memory traffic is weights"
        return f"{traffic}: larger batches share it, smaller weights shrink it."
    traffic = f"Decode leads, and {share(1 - facts.weight_share)} of its memory traffic is KV"
    return f"{traffic}: shorter contexts or a smaller data type shrink it."

"""What to change after a run: the knob for why the SLO was missed first, and never two that turn a key both ways."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from simslm.metrics.definitions import BY_KEY
from simslm.report.facts import Facts
from simslm.report.regime import GATES, MINOR, Regime
from simslm.report.wording import count, share

ALONE = 2.0
"""Sequences that decode at once on the mean below which a smaller batch would change little."""

BOTH = 0.1
"""Share of requests that broke the TPOT bound from which a larger batch is not the first advice."""


class Knob(NamedTuple):
    """One piece of advice.

    Attributes:
        key: what it is about; of one key only the first is given, unless all agree.
        way: ``up | down | other``.
        text: the advice.
    """

    key: str
    way: str
    text: str


def knobs(facts: Facts, regime: Regime) -> list[str]:
    """What to change, the most promising first; no two pieces of advice turn the same key in different ways."""
    chosen: dict[str, Knob] = {}
    for knob in _candidates(facts, regime):
        chosen.setdefault(knob.key, knob)
    return [knob.text for knob in chosen.values()]


def _candidates(facts: Facts, regime: Regime) -> Iterator[Knob]:
    if regime.kind == "nothing":
        yield from _rejected(facts)
        return
    yield from _start(facts)
    if facts.rejected >= BOTH:  # whatever else is changed, these stay misses
        yield from _rejected(facts)
    if regime.kind == "unanswered":
        yield from _patience(facts)
    if regime.kind == "storm":
        yield from _storm(facts)
    if regime.kind == "turned-away":
        yield Knob(
            "load",
            "down",
            "Send fewer requests, serve them with more devices, or let more of them wait "
            f"(`admission: {facts.limits.admission}`).",
        )
    yield from _miss(facts, regime)
    if regime.kind in GATES or regime.kind in ("policy", "undecided"):
        yield from _gate(facts, regime.kind)
    elif regime.gate is not None:
        yield from _gate(facts, regime.gate)
    if regime.kind in (*GATES, "undecided"):
        yield from _imbalance(facts)
    yield from _more(facts, regime)
    if regime.kind not in ("arrivals", "tokens"):
        yield from _phase(facts, regime.phase)
    if regime.kind != "unanswered" and facts.failed >= MINOR:
        yield from _patience(facts)
    yield from _rejected(facts)


def _start(facts: Facts) -> Iterator[Knob]:
    if facts.start is not None:
        yield Knob(
            "metrics",
            "other",
            "Leave the start out of the figures: `--set metrics.steady=auto` (or `metrics.warmup_requests`).",
        )


def _patience(facts: Facts) -> Iterator[Knob]:
    if facts.failed:
        yield Knob(
            "load",
            "down",
            "Send fewer requests or serve them with more devices; or, where clients can wait longer, raise "
            "`workload.timeout_s` (or `workload.cancellations.mean_after_s`).",
        )


def _storm(facts: Facts) -> Iterator[Knob]:
    limits = facts.limits
    if limits.preemption_policy != "youngest":
        yield Knob(
            "preemption_policy",
            "other",
            f"Leave `preemption_policy: {limits.preemption_policy}` out: without it requests are preempted only where "
            "KV blocks run short.",
        )
    yield Knob(
        "max_num_seqs",
        "down",
        "Let fewer sequences in at once, so that each has the KV blocks to finish: a smaller `max_num_seqs`.",
    )
    yield from _kv(facts)


def _miss(facts: Facts, regime: Regime) -> Iterator[Knob]:
    """What shortens the latency whose bound was missed."""
    miss = regime.miss
    if miss is None:
        return
    limits = facts.limits
    if miss.cause == "queueing" and regime.late is not None:
        if regime.late in ("kv", "slots") and facts.missed.get("tpot_s", 0.0) >= BOTH:
            yield Knob(
                "load",
                "down",
                "Fewer requests at once, or more replicas or devices: a larger batch would shorten the queue, but "
                "lengthen TPOT, whose bound is broken as well.",
            )
        yield from _gate(facts, regime.late)
        yield Knob("load", "down", "Fewer requests at once, or more replicas or devices, shorten the queue.")
    elif miss.cause == "prefill":
        budget = limits.max_num_batched_tokens
        if limits.chunked and budget is not None and limits.mean_prompt_tokens > budget:
            yield Knob(
                "max_num_batched_tokens",
                "up",
                f"A `max_num_batched_tokens` above {count(budget)} takes a mean prompt in fewer iterations, which "
                "shortens TTFT at the price of ITL.",
            )
        yield Knob(
            "prefill", "other", "Prefix caching, shorter prompts or a faster device shorten the prefill."
        )
    elif miss.cause == "mixed":
        yield Knob(
            "max_num_batched_tokens",
            "down",
            "A smaller `max_num_batched_tokens` shortens TPOT: less of a prompt stands in the way of decoding; TTFT "
            "pays for it.",
        )
    elif miss.cause == "batch" and facts.batch >= ALONE:
        text = "A smaller `max_num_seqs`, or more replicas or devices, shortens TPOT."
        yield Knob("max_num_seqs", "down", text)
    elif facts.batch >= ALONE:
        text = "Shorter outputs, fewer requests at once, or more replicas or devices shorten E2E."
        yield Knob("service", "other", text)
    elif miss.cause in ("batch", "service"):
        name = BY_KEY[miss.key].name
        text = (
            f"A faster device, smaller weights or a faster engine shorten {name}: the batch is small already."
        )
        yield Knob("service", "other", text)


def _gate(facts: Facts, gate: str) -> Iterator[Knob]:
    """What to change about the limit that requests waited for."""
    if gate == "kv":
        yield from _kv(facts)
    elif gate == "slots":
        yield from _slots(facts)
    elif gate == "tokens":
        now = count(facts.limits.max_num_batched_tokens)
        yield Knob(
            "max_num_batched_tokens",
            "up",
            f"A `max_num_batched_tokens` above {now} shortens TTFT at the price of ITL; "
            "more throughput takes more devices, prefix caching or shorter prompts.",
        )
    elif gate == "policy":
        yield Knob("batching", "other", "Try another `deployment.engine.batching.policy`.")


def _kv(facts: Facts) -> Iterator[Knob]:
    if facts.limits.blocks_set_by_hand:
        yield Knob("kv", "up", "Raise `num_gpu_blocks`, or leave it out to use all the memory there is.")
        return
    fewer = "fewer `replicas_per_device`, " if facts.limits.replicas_per_device > 1 else ""
    yield Knob(
        "kv",
        "up",
        f"Give each replica more KV blocks: a higher `gpu_memory_utilization`, {fewer}"
        "a device with more memory, or a smaller data type.",
    )


def _slots(facts: Facts) -> Iterator[Knob]:
    fixed, peak = facts.fixed_share, facts.kv_peak
    if peak is not None and peak >= 0.9:
        text = f"KV blocks peaked at {share(peak)}: a larger `max_num_seqs` needs more of them first."
        yield Knob("max_num_seqs", "other", text)
        return
    if fixed is not None and fixed < 0.2:
        text = (
            f"A larger `max_num_seqs` buys little: only {share(fixed)} of the largest decode iterations does not "
            "grow with the batch. More replicas or devices do."
        )
        yield Knob("max_num_seqs", "other", text)
        return
    reasons = []
    if peak is not None:
        reasons.append(f"KV blocks peaked at {share(peak)}")
    if fixed is not None:
        reasons.append(f"{share(fixed)} of the largest decode iterations does not grow with the batch")
    because = f": {' and '.join(reasons)}" if reasons else ""
    yield Knob(
        "max_num_seqs", "up", f"Raise `max_num_seqs` above {count(facts.limits.max_num_seqs)}{because}."
    )


def _imbalance(facts: Facts) -> Iterator[Knob]:
    """Some replicas idled while others had a queue."""
    idle = facts.split.idle_s / facts.split.total_s
    if facts.replicas >= 2 and idle >= 0.2:
        text = (
            f"Replicas idled {share(idle)} of the time while others had a queue: try another `router.policy`."
        )
        yield Knob("router", "other", text)


def _more(facts: Facts, regime: Regime) -> Iterator[Knob]:
    """Where there is nothing to mend, how to find out how much more would be served."""
    if not regime.good:
        return
    if regime.kind == "arrivals":
        yield Knob("load", "up", "To find the capacity of this deployment, raise the arrival rate.")
    elif regime.kind == "concurrency":
        yield Knob("load", "up", "Raise `workload.arrivals.concurrency` until requests begin to wait.")


def _phase(facts: Facts, phase: str | None) -> Iterator[Knob]:
    """What shortens the leading phase."""
    if phase == "host":
        text = "Host time leads: replicas that share a device overlap it, a faster engine shortens it."
        yield Knob("host", "other", text)
    elif phase == "prefill":
        text = "Prefill leads: prefix caching, shorter prompts or more devices shorten it."
        yield Knob("prefill", "other", text)
    elif phase == "decode" and facts.weight_share is not None:
        if facts.weight_share < 0.5:
            traffic = f"Decode leads, and {share(1 - facts.weight_share)} of its memory traffic is KV"
            yield Knob("traffic", "other", f"{traffic}: shorter contexts or a smaller data type shrink it.")
        else:
            traffic = f"Decode leads, and {share(facts.weight_share)} of its memory traffic is weights"
            yield Knob(
                "traffic",
                "other",
                f"{traffic}: smaller weights shrink it, and requests of one batch share it.",
            )


def _rejected(facts: Facts) -> Iterator[Knob]:
    """What makes rejected requests fit."""
    if facts.rejected < MINOR or facts.limits.admission != "open":
        return
    whole = "" if facts.limits.chunked else ", or a `max_num_batched_tokens` that holds a whole prompt"
    longest = facts.limits.max_model_len
    longer = "a longer `max_model_len`" + ("" if longest is None else f" than {count(longest)}")
    cures = {1.0: longer, 0.0: f"more KV blocks{whole}"}
    needed = f"{longer} or more KV blocks{whole}" if facts.overlong is None else cures.get(facts.overlong)
    if needed is None:
        assert facts.overlong is not None
        needed = f"{longer} ({share(facts.overlong)} of them), others more KV blocks{whole}"
    yield Knob("fit", "up", f"Rejected requests, {share(facts.rejected)} of all, need {needed}.")

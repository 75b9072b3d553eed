"""What to change after a run: first the knob for the bound that was missed, and never two that turn a key both ways."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from simslm.metrics.definitions import BY_KEY
from simslm.report.facts import Facts
from simslm.report.limits import Limits
from simslm.report.regime import DECISIVE, GATES, MINOR, Regime
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
    if facts.rejected >= BOTH:  # other changes leave these misses
        yield from _rejected(facts)
    if regime.kind == "unanswered":
        yield from _patience(facts)
    if regime.kind == "storm":
        yield from _storm(facts)
    if regime.kind == "faults":
        yield Knob(
            "faults",
            "down",
            "Replicas that fail less often, or whose repair takes less time, or more replicas.",
        )
    if regime.kind == "turned-away":
        yield Knob(
            "load",
            "down",
            "Send fewer requests, serve them with more devices, or let more of them wait "
            f"(`admission: {facts.door.admission}`).",
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
    if facts.failed > facts.killed:
        yield Knob(
            "load",
            "down",
            "Send fewer requests or serve them with more devices; or, where clients can wait longer, raise "
            "`workload.timeout_s` (or `workload.cancellations.mean_after_s`).",
        )


def _storm(facts: Facts) -> Iterator[Knob]:
    limits = facts.preempts
    if limits.preemption_policy != "youngest":
        yield Knob(
            "preemption_policy",
            "other",
            f"Leave `{limits.key('preemption_policy')}: {limits.preemption_policy}` out: without it requests are "
            "preempted only where KV blocks run short.",
        )
    slots = limits.key("max_num_seqs")
    yield Knob(
        slots,
        "down",
        f"Let fewer sequences in at once, so that each has the KV blocks to finish: a smaller `{slots}`.",
    )
    yield from _kv(limits)


def _miss(facts: Facts, regime: Regime) -> Iterator[Knob]:
    """What shortens the latency whose bound was missed."""
    miss = regime.miss
    if miss is None:
        return
    prefills, decodes = facts.prefills, facts.decodes
    if miss.cause == "queueing" and regime.late is not None:
        waits = (facts.wait_of_tpot or 0.0) >= DECISIVE  # then a larger batch shortens TPOT
        if regime.late in ("kv", "slots") and facts.missed.get("tpot_s", 0.0) >= BOTH and not waits:
            yield Knob(
                "load",
                "down",
                "Fewer requests at once, or more replicas or devices: a larger batch would shorten the queue, but "
                "lengthen TPOT, whose bound is broken as well.",
            )
        yield from _gate(facts, regime.late)
        yield Knob("load", "down", "Fewer requests at once, or more replicas or devices, shorten the queue.")
    elif miss.cause == "prefill":
        budget, key = prefills.max_num_batched_tokens, prefills.key("max_num_batched_tokens")
        if prefills.chunked and budget is not None and prefills.mean_prompt_tokens > budget:
            yield Knob(
                key,
                "up",
                f"A `{key}` above {count(budget)} takes a mean prompt in fewer iterations, which "
                f"shortens TTFT{_price(prefills)}.",
            )
        yield Knob(
            "prefill", "other", "Prefix caching, shorter prompts or a faster device shorten the prefill."
        )
    elif miss.cause == "mixed":
        key = decodes.key("max_num_batched_tokens")
        yield Knob(
            key,
            "down",
            f"A smaller `{key}` shortens TPOT: less of a prompt stands in the way of decoding; TTFT "
            "pays for it.",
        )
    elif miss.cause == "batch" and facts.batch >= ALONE:
        key = decodes.key("max_num_seqs")
        yield Knob(key, "down", f"A smaller `{key}`, or more replicas or devices, shortens TPOT.")
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
    """Advice on the limit that requests waited for."""
    limits = facts.limits
    if gate == "kv":
        yield from _kv(limits)
    elif gate == "slots":
        yield from _slots(facts)
    elif gate == "tokens":
        now, key = count(limits.max_num_batched_tokens), limits.key("max_num_batched_tokens")
        yield Knob(
            key,
            "up",
            f"A `{key}` above {now} shortens TTFT{_price(limits)}; "
            "more throughput takes more devices, prefix caching or shorter prompts.",
        )
    elif gate == "policy":
        place = limits.place or "deployment"
        yield Knob("batching", "other", f"Try another `{place}.engine.batching.policy`.")


def _price(limits: Limits) -> str:
    """A warning that longer iterations raise ITL; empty where no sequence decodes beside the prompts."""
    return "" if limits.role == "prefill" else " at the price of ITL"


def _kv(limits: Limits) -> Iterator[Knob]:
    key = limits.spec_key("kv")
    pooled = f" (in every group of `kv_pool: {limits.kv_pool}`)" if limits.kv_pool else ""
    if limits.blocks_set_by_hand:
        blocks = limits.key("num_gpu_blocks")
        yield Knob(key, "up", f"Raise `{blocks}`{pooled}, or leave it out to use all the memory there is.")
        return
    fewer = f"fewer `{limits.spec_key('replicas_per_device')}`, " if limits.replicas_per_device > 1 else ""
    yield Knob(
        key,
        "up",
        f"Give each replica{limits.of_group} more KV blocks: a higher "
        f"`{limits.key('gpu_memory_utilization')}`{pooled}, {fewer}a device with more memory, or a smaller data type.",
    )


def _slots(facts: Facts) -> Iterator[Knob]:
    fixed, peak = facts.fixed_share, facts.kv_peak
    key = facts.limits.key("max_num_seqs")
    if peak is not None and peak >= 0.9:
        text = f"KV blocks peaked at {share(peak)}: a larger `{key}` needs more of them first."
        yield Knob(key, "other", text)
        return
    if fixed is not None and fixed < 0.2:
        text = (
            f"A larger `{key}` buys little: only {share(fixed)} of the largest decode iterations does not "
            "grow with the batch. More replicas or devices do."
        )
        yield Knob(key, "other", text)
        return
    reasons = []
    if peak is not None:
        reasons.append(f"KV blocks peaked at {share(peak)}")
    if fixed is not None:
        reasons.append(f"{share(fixed)} of the largest decode iterations does not grow with the batch")
    because = f": {' and '.join(reasons)}" if reasons else ""
    yield Knob(key, "up", f"Raise `{key}` above {count(facts.limits.max_num_seqs)}{because}.")


def _imbalance(facts: Facts) -> Iterator[Knob]:
    """Some replicas idled while others had a queue."""
    limits = facts.limits
    if facts.gate_replicas >= 2 and facts.idle >= 0.2:
        text = (
            f"Replicas{limits.of_group} idled {share(facts.idle)} of the time while others had a queue: try another "
            f"`{limits.spec_key('router.policy')}`."
        )
        yield Knob("router", "other", text)


def _more(facts: Facts, regime: Regime) -> Iterator[Knob]:
    """Where nothing has to be mended: how to find out how much more load would be served."""
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
    """Advice that lets rejected requests fit."""
    if facts.rejected < MINOR or facts.door.admission != "open":
        return
    door = facts.door
    budget, length = door.key("max_num_batched_tokens"), door.length_key()
    whole = "" if door.chunked else f", or a `{budget}` that holds a whole prompt"
    longest = door.max_model_len
    longer = f"a longer `{length}`" + ("" if longest is None else f" than {count(longest)}")
    cures = {1.0: longer, 0.0: f"more KV blocks{whole}"}
    needed = f"{longer} or more KV blocks{whole}" if facts.overlong is None else cures.get(facts.overlong)
    if needed is None:
        assert facts.overlong is not None
        needed = f"{longer} ({share(facts.overlong)} of them), others more KV blocks{whole}"
    yield Knob("fit", "up", f"Rejected requests, {share(facts.rejected)} of all, need {needed}.")

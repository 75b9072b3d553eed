"""The figures of a run, under the names and definitions every report prints."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, isnan
from typing import Any

from simslm.metrics.ledger import Account, Ledger, Priced
from simslm.metrics.tally import Tally

SCHEMA_VERSION = 1

NOUGHT = 1e-12
"""Idle energy below this part of the rest is what rounding left of devices that never idled."""

STORM_PREEMPTIONS = 1.0
"""Preemptions for each finished request beyond which a run is called a storm."""

STORM_SHARE = 0.2
"""Share of the computed tokens that were computed before, beyond which it is one too."""


def end(last_s: float, accounts: Sequence[Account]) -> float:
    """When the last iteration or the last answer ended, NaN when there was neither.

    Args:
        last_s: end of the last answer, -inf when there was none.
        accounts: of all replicas.
    """
    ends = [account.end_s for account in accounts if account.busy_s > 0]
    end_s = max(ends, default=last_s)
    return max(end_s, last_s) if isfinite(end_s) else float("nan")


def makespan(first_s: float, last_s: float, accounts: Sequence[Account]) -> float:
    """Seconds from the first arrival to the end of the last iteration, or of the last answer where that is later, as of
    answers that a gateway gives or that are judged; 0 when nothing ran.

    Args:
        first_s: the first arrival.
        last_s, accounts: see :func:`end`.
    """
    end_s = end(last_s, accounts)
    return 0.0 if isnan(end_s) else end_s - first_s


def throughput(tally: Tally, seconds: float) -> dict[str, float]:
    """Requests that finished and their tokens, per second of the time that counts."""
    return {
        "requests_per_s": rate(tally.done, seconds),
        "output_tokens_per_s": rate(tally.output_tokens, seconds),
        "total_tokens_per_s": rate(tally.output_tokens + tally.prompt_tokens, seconds),
    }


def slo_figures(tally: Tally, seconds: float) -> dict[str, Any]:
    """Attainment and goodput; nulls without an SLO.

    Args:
        tally: of the arrived requests, with their bounds.
        seconds: the time that counts.
    """
    if all(bound is None for bound in tally.bounds.values()) or not tally.counted:
        return {"attainment": None, "goodput_rps": None, "goodput_output_tokens_per_s": None}
    return {
        "attainment": tally.good / tally.counted,
        "goodput_rps": rate(tally.good, seconds),
        "goodput_output_tokens_per_s": rate(tally.good_tokens, seconds),
    }


def energy_figures(
    replicas: Sequence[Priced],
    accounts: Sequence[Account],
    tally: Tally,
    seconds: float,
    unused_devices: int,
    held_s: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Energy over the time that counts and per token finished in it, or nulls with the reason.

    Args:
        replicas: how each is priced.
        accounts: of each, over that time.
        tally: of the arrived requests.
        seconds: that time.
        unused_devices: devices that are there but serve no request; they idle.
        held_s: for how long of that time the device of each replica was held, see :mod:`~simslm.metrics.lifetimes`;
            None = all of it.
    """
    keys = (
        "total_j",
        "prefill_j",
        "decode_j",
        "idle_j",
        "mean_power_w",
        "j_per_output_token",
        "j_per_total_token",
    )
    prefill = busy = idle = 0.0
    for priced, account, held in zip(replicas, accounts, held_s or [seconds] * len(replicas), strict=True):
        if account.energy_j is None or priced.cost.idle_w is None:
            return dict.fromkeys(keys) | {"note": priced.cost.power_note or "no power was measured"}
        prefill += account.prefill_j
        busy += account.energy_j
        idle += priced.cost.idle_w / priced.sharers * (held - account.busy_s)
    idle += unused_devices * (replicas[0].cost.idle_w or 0.0) * seconds
    if abs(idle) < NOUGHT * busy:
        idle = 0.0
    total, tokens = busy + idle, tally.output_tokens + tally.prompt_tokens
    return {
        "total_j": total,
        "prefill_j": prefill,
        "decode_j": busy - prefill,
        "idle_j": idle,
        "mean_power_w": rate(total, seconds),
        "j_per_output_token": rate(total, tally.output_tokens) if tally.output_tokens else None,
        "j_per_total_token": rate(total, tokens) if tokens else None,
    }


def kv_figures(tally: Tally, ledger: Ledger, lost_work: int = 0) -> dict[str, Any]:
    """Blocks per replica (of the first group), the fullest moment of any replica, and :func:`reuse`; with a ``note``
    where preemptions undid each other, see :func:`storm`.

    Args:
        tally: of the requests.
        ledger: of the iterations.
        lost_work: how many of the preemptions are faults that took what had been computed.
    """
    fullest = (
        account.peak_blocks / priced.num_gpu_blocks
        for priced, account in zip(ledger.replicas, ledger.accounts, strict=True)
    )
    note = storm(tally, ledger, lost_work)
    return {
        "num_gpu_blocks": ledger.replicas[0].num_gpu_blocks,
        "peak_utilization": max(fullest),
        **reuse(tally),
    } | ({"note": note} if note else {})


def reuse(tally: Tally) -> dict[str, Any]:
    """Preemptions, what was computed again because of them, also as a share of all that was computed, and the share of
    prompt tokens that the prefix cache held."""
    return {
        "preemptions": tally.preemptions,
        "recomputed_tokens": tally.recomputed_tokens,
        "recomputed_share": rate(tally.recomputed_tokens, tally.computed_tokens + tally.recomputed_tokens),
        "cached_prompt_share": rate(tally.cached_tokens, tally.processed_tokens),
    }


def storm(tally: Tally, ledger: Ledger, lost_work: int = 0) -> str:
    """A sentence where preemptions cost more than they bring, with the policies that cause it; else empty.

    That is where there are more than :data:`STORM_PREEMPTIONS` for each finished request, or more than
    :data:`STORM_SHARE` of the computed tokens had been computed before; and not where more of it was lost to faults.
    """
    own = tally.preemptions - lost_work
    if lost_work > own:
        return ""
    each, share = rate(own, max(tally.finished, 1)), reuse(tally)["recomputed_share"]
    if each <= STORM_PREEMPTIONS and share <= STORM_SHARE:
        return ""
    policies = "; ".join(dict.fromkeys(priced.policies for priced in ledger.replicas if priced.policies))
    return (
        f"preemption storm: {each:.1f} preemptions for each finished request, and {100 * share:.0f} % of the computed "
        f"tokens had been computed before{f' ({policies})' if policies else ''}. Fewer sequences at once "
        "(max_num_seqs), more KV blocks, or policies that preempt less make it less"
    )


def utilization(
    accounts: Sequence[Account], seconds: float, up_s: Sequence[float] | None = None
) -> dict[str, float]:
    """Shares of the time in which replicas could serve: ``up_s`` of each, or all of the time that counts."""
    available = seconds * len(accounts) if up_s is None else sum(up_s)
    return {
        "busy": rate(sum(account.busy_s for account in accounts), available),
        "host_gap": rate(sum(account.host_s for account in accounts), available),
    }


def coverage(accounts: Sequence[Account]) -> dict[str, float]:
    inside = sum(account.inside_s for account in accounts)
    return {"in_domain_time": rate(inside, sum(account.busy_s for account in accounts))}


def rate(amount: float, per: float) -> float:
    """``amount / per``, 0 where nothing ran."""
    return amount / per if per else 0.0

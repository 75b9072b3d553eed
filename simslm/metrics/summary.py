"""The figures of a run, under the names and definitions every report prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from simslm.metrics.ledger import Account, Ledger
from simslm.metrics.quantiles import spread
from simslm.sim.log import FINISHED, STATUS

SCHEMA_VERSION = 1


def request_figures(requests: dict[str, np.ndarray]) -> dict[str, Any]:
    """Spreads of the request latencies; requests that never got that far do not count."""
    return {
        name: spread(requests[name][~np.isnan(requests[name])])
        for name in ("ttft_s", "tpot_s", "e2e_s", "queue_s")
    }


def counts(requests: dict[str, np.ndarray]) -> dict[str, int]:
    status = requests["status"]
    return {"arrived": len(status)} | {
        name: int(np.count_nonzero(status == code)) for code, name in enumerate(STATUS)
    }


def makespan(requests: dict[str, np.ndarray], accounts: list[Account]) -> float:
    """Seconds from the first arrival to the end of the last iteration; 0 when nothing ran."""
    ends = [account.end_s for account in accounts if account.busy_s > 0]
    return max(ends) - float(np.min(requests["arrival_s"])) if ends else 0.0


def throughput(requests: dict[str, np.ndarray], seconds: float) -> dict[str, float]:
    """Finished requests and their tokens per second of the makespan."""
    done = requests["status"] == FINISHED
    output = int(requests["output_tokens"][done].sum())
    total = output + int(requests["prompt_tokens"][done].sum())
    return {
        "requests_per_s": rate(int(np.count_nonzero(done)), seconds),
        "output_tokens_per_s": rate(output, seconds),
        "total_tokens_per_s": rate(total, seconds),
    }


def slo_figures(
    requests: dict[str, np.ndarray], bounds: Mapping[str, float | np.ndarray | None], seconds: float
) -> dict[str, Any]:
    """Attainment and goodput; nulls without an SLO. A request with one output token meets ``tpot_s``.

    Args:
        requests: columns of the arrived requests.
        bounds: on each metric, for all requests or for each one; None where there is none.
        seconds: the makespan.
    """
    if all(bound is None for bound in bounds.values()) or not len(requests["status"]):
        return {"attainment": None, "goodput_rps": None, "goodput_output_tokens_per_s": None}
    good = requests["status"] == FINISHED
    for name, bound in bounds.items():
        if bound is not None:
            good &= ~(requests[name] > bound)
    count = int(np.count_nonzero(good))
    return {
        "attainment": count / len(good),
        "goodput_rps": rate(count, seconds),
        "goodput_output_tokens_per_s": rate(int(requests["output_tokens"][good].sum()), seconds),
    }


def energy_figures(
    ledger: Ledger, tokens: tuple[int, int], seconds: float, unused_devices: int
) -> dict[str, Any]:
    """Energy over the makespan and per finished token, or nulls with the reason.

    Args:
        ledger: the books of the run.
        tokens: output tokens and all tokens of finished requests.
        seconds: the makespan.
        unused_devices: devices that are there but serve nobody; they idle.
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
    for priced, account in zip(ledger.replicas, ledger.accounts, strict=True):
        if account.energy_j is None or priced.cost.idle_w is None:
            return dict.fromkeys(keys) | {"note": priced.cost.power_note or "no power was measured"}
        prefill += account.prefill_j
        busy += account.energy_j
        idle += priced.cost.idle_w / priced.sharers * (seconds - account.busy_s)
    idle += unused_devices * (ledger.replicas[0].cost.idle_w or 0.0) * seconds
    total = busy + idle
    return {
        "total_j": total,
        "prefill_j": prefill,
        "decode_j": busy - prefill,
        "idle_j": idle,
        "mean_power_w": rate(total, seconds),
        "j_per_output_token": rate(total, tokens[0]) if tokens[0] else None,
        "j_per_total_token": rate(total, tokens[1]) if tokens[1] else None,
    }


def kv_figures(requests: dict[str, np.ndarray], ledger: Ledger) -> dict[str, Any]:
    """Blocks per replica (of the first group), the fullest moment of any replica, preemptions, and the share of
    prompt tokens that the prefix cache held."""
    fullest = (
        account.peak_blocks / priced.num_gpu_blocks
        for priced, account in zip(ledger.replicas, ledger.accounts, strict=True)
    )
    done = requests["status"] == FINISHED
    return {
        "num_gpu_blocks": ledger.replicas[0].num_gpu_blocks,
        "peak_utilization": max(fullest),
        "preemptions": int(requests["preemptions"].sum()),
        "cached_prompt_share": rate(
            int(requests["cached_prompt_tokens"][done].sum()), int(requests["prompt_tokens"][done].sum())
        ),
    }


def utilization(accounts: list[Account], seconds: float) -> dict[str, float]:
    available = seconds * len(accounts)
    return {
        "busy": rate(sum(account.busy_s for account in accounts), available),
        "host_gap": rate(sum(account.host_s for account in accounts), available),
    }


def coverage(accounts: list[Account]) -> dict[str, float]:
    inside = sum(account.inside_s for account in accounts)
    return {"in_domain_time": rate(inside, sum(account.busy_s for account in accounts))}


def rate(amount: float, per: float) -> float:
    """``amount / per``, 0 where nothing ran."""
    return amount / per if per else 0.0

"""The figures from which a page says what bounded a run, each with one definition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from simslm.metrics.steady import STEADY, truncation
from simslm.report.attribution import TimeSplit, decode_device_s, time_split
from simslm.report.fleet import up_replicas
from simslm.report.limits import (
    Limits,
    door,
    engine_limits,
    group_of,
    handover_s,
    leading,
    replicas_of,
    rows_of,
)
from simslm.report.objective import good, slo_state, stated_bounds, target, within
from simslm.report.tables import Columns, RunTables, dig, figure_of
from simslm.report.timeline import replica_count

STEADY_PROCESSES = ("deterministic", "poisson", "gamma", "weibull")
"""Arrivals at one rate all the time."""

CHANCE = 3.0
"""Standard errors by which the share that met the SLO must differ between the start and the rest."""

CAPPED = 0.9
"""Share of the cap on requests in flight from which it, and not the rate, is what held requests back."""

NOTICED = 0.1
"""Relative difference from which the rate offered is another than the one asked for."""


@dataclass(frozen=True, slots=True)
class Offered:
    """How fast requests came.

    Attributes:
        rps: arrived requests but one, over the time from the first arrival to the last.
        asked_rps: what the scenario states; None where it states no single rate.
        served_rps: requests that finished by the last arrival, over the same time; None where that is not known.
        arrived: how many came.
    """

    rps: float
    asked_rps: float | None
    served_rps: float | None
    arrived: int

    @property
    def differs(self) -> bool:
        """Whether it is noticeably another rate than the scenario states."""
        return self.asked_rps is not None and abs(self.rps / self.asked_rps - 1) >= NOTICED


@dataclass(frozen=True, slots=True)
class Start:
    """The start of a run where leaving it out changes the verdict.

    Attributes:
        requests: how many requests it is.
        kept, rest: share of them, and of those after them, that met the SLO, 0 to 1.
        at_once: requests that arrived at the same instant as the first.
        arrived: all of them.
    """

    requests: int
    kept: float
    rest: float
    at_once: int
    arrived: int


@dataclass(frozen=True, slots=True)
class Facts:
    """The figures that the rules of :mod:`bound` use.

    Those of time and of latencies are of the window that counts, where the run has one.

    Attributes:
        replicas: how many are deployed.
        up: how many of them could serve, on average; without a control plane all.
        split: where their time went.
        limits: those of the group in which requests waited longest, in request-seconds: the gate's.
        gate_replicas: how many replicas that group has.
        idle: share of the time in which they idled, 0 to 1.
        door: limits of the group that lets requests in, or turns them away.
        prefills, decodes: limits of the groups that spent most time on prompts, and on decoding.
        preempts: limits of the group in which most sequences were preempted.
        slo: ``met | missed | unstated``.
        arrivals: ``open``, ``closed-loop`` or ``all-at-once`` (all within 5 % of the makespan).
        clients: of a closed loop, or None.
        offered: how fast requests came; None unless arrivals are open.
        start: the beginning of the run, where the verdict is another without it; else None.
        waited: share of the gate group's busy time in which at least one request waited, 0 to 1.
        full: of that time, the share in which each limit was reached: ``kv``, ``slots``, ``tokens``.
        drain_s: last finish - last arrival, 0 where the last to arrive was rejected later than that.
        service_s: 99th percentile of E2E - queue - handover, what a request takes once it is scheduled.
        kv_peak: fullest moment of the KV blocks of a replica of the gate's group, 0 to 1, or None.
        kept_up: whether no backlog was left: the drain is at most the service time or 5 % of the makespan, and at
            most 5 % of the arrived requests, rejected ones aside, never got a first token.
        finished: how many requests did.
        preempted: preemptions for each request that finished.
        storm: whether the run is called a preemption storm.
        faults: how often a replica failed.
        lost_work: how many of the preemptions are such faults, which took what a request had computed.
        killed: share of the arrived requests that failed with their replica; the others of ``failed`` had clients that
            left.
        recomputed: share of the computed tokens that had been computed before.
        failed: share of arrived requests whose client left before the last token, 0 to 1.
        failed_early: share of those whose client left before the first token, 0 to 1.
        weight_share: share of the bytes decode iterations read that are weights, or None.
        fixed_share: share of the longest decode batches' duration that does not depend on the batch, or None.
        missed: for each stated bound, the share of arrived requests that finished and broke it.
        rejected: share of arrived requests that were, because they can never fit or were not let in.
        overlong: share of the rejected requests that are longer than the stated ``max_model_len``; None where none is
            stated, or none was rejected.
        handed_over: share of the waiting of the requests that missed their E2E (else TPOT) bound that was between
            prefill and decode, 0 to 1.
        queue_of_ttft: share of the TTFT of the requests that missed its bound that was queueing, or None.
        queue_of_e2e: the same of E2E, in which waiting between prefill and decode counts as queueing.
        wait_of_tpot: share of E2E - TTFT of the requests that missed the TPOT bound that was waiting between the
            phases, or None.
        batch: sequences that decode at once, on the mean over the time in which any does.
        mixed_token_time: share of decode token time spent in iterations that also prefill.
    """

    replicas: int
    up: float
    split: TimeSplit
    limits: Limits
    gate_replicas: int
    idle: float
    door: Limits
    prefills: Limits
    decodes: Limits
    preempts: Limits
    slo: str
    arrivals: str
    clients: float | None
    offered: Offered | None
    start: Start | None
    waited: float
    full: Mapping[str, float]
    drain_s: float
    service_s: float
    kept_up: bool
    finished: int
    failed: float
    failed_early: float
    kv_peak: float | None
    preemptions: int
    preempted: float
    storm: bool
    faults: int
    lost_work: int
    killed: float
    recomputed: float
    weight_share: float | None
    fixed_share: float | None
    missed: Mapping[str, float]
    rejected: float
    overlong: float | None
    queue_of_ttft: float | None
    queue_of_e2e: float | None
    wait_of_tpot: float | None
    handed_over: float
    batch: float
    mixed_token_time: float

    @property
    def lost(self) -> float:
        """Share of arrived requests that were rejected or whose clients left, 0 to 1."""
        return self.rejected + self.failed


def facts(run: RunTables) -> Facts:
    """The facts of a run."""
    replicas, groups, up = replica_count(run), engine_limits(run), up_replicas(run)
    iterations, span_s = iterations_that_count(run)
    at = group_of(run, iterations["replica"])
    gate = leading(at, iterations["waiting"] * iterations["duration_s"], groups)
    limits, gated = groups[gate], rows_of(iterations, at == gate)
    decode_s = decode_device_s(iterations, iterations["duration_s"])
    between, members = handover_s(run), dict(enumerate(replicas_of(run))).get(gate, replicas)
    makespan = figure_of(run.summary, "makespan_s") or 0.0
    arrivals_s = arriving_s(run)
    drain = max(makespan - arrivals_s, 0.0)
    service = service_time_s(run.requests, between)
    waited, full = waiting(gated, limits)
    missed, kind = missed_bounds(run), arrival_kind(run, run.span_s)
    finished = int(np.sum(run.requests["finished"]))
    preemptions = int(figure_of(run.summary, "kv.preemptions") or 0)
    failed, unanswered = run.requests["failed"], np.isnan(run.requests["first_token_s"])
    backlog = _share(unanswered & ~run.requests["rejected"])
    return Facts(
        replicas=replicas,
        up=up,
        split=time_split(iterations, up, span_s),
        limits=limits,
        gate_replicas=members,
        idle=idle_share(gated, members if run.lifetimes is None else up_replicas(run, gate), span_s),
        door=door(groups),
        prefills=groups[leading(at, iterations["duration_s"] - decode_s, groups)],
        decodes=groups[leading(at, decode_s, groups)],
        preempts=groups[leading(group_of(run, run.requests["replica"]), run.requests["preemptions"], groups)],
        slo=slo_state(run),
        arrivals=kind,
        clients=figure_of(run.scenario, "workload.arrivals.concurrency"),
        offered=offered_of(run),
        start=start(run),
        waited=waited,
        full=full,
        drain_s=drain,
        service_s=service,
        kept_up=drain <= max(service, 0.05 * makespan) and backlog <= 0.05,
        finished=finished,
        failed=_share(failed),
        failed_early=_share(unanswered[failed]),
        kv_peak=kv_peak(run, limits, gate),
        preemptions=preemptions,
        preempted=preemptions / max(figure_of(run.summary, "requests.finished") or 0, 1),
        storm=bool(dig(run.summary, "kv.note", "")),
        faults=int(figure_of(run.summary, "fleet.failures") or 0),
        lost_work=int(figure_of(run.summary, "fleet.lost_work") or 0),
        killed=(figure_of(run.summary, "fleet.killed") or 0) / max(len(failed), 1),
        recomputed=figure_of(run.summary, "kv.recomputed_share") or 0.0,
        weight_share=weight_share(run),
        fixed_share=fixed_share(gated),
        missed=missed,
        rejected=_share(run.requests["rejected"]),
        overlong=overlong(run, groups),
        queue_of_ttft=_part_of(run, "ttft_s", run.requests["queue_s"], run.requests["ttft_s"]),
        queue_of_e2e=_part_of(run, "e2e_s", run.requests["queue_s"] + between, run.requests["e2e_s"]),
        wait_of_tpot=_part_of(run, "tpot_s", between, run.requests["e2e_s"] - run.requests["ttft_s"]),
        handed_over=_part_of(run, "e2e_s", between, run.requests["queue_s"] + between)
        or _part_of(run, "tpot_s", between, run.requests["queue_s"] + between)
        or 0.0,
        batch=decoding_at_once(iterations),
        mixed_token_time=mixed_token_time(iterations),
    )


def _share(mask: np.ndarray) -> float:
    return float(np.mean(mask)) if len(mask) else 0.0


def arrival_kind(run: RunTables, makespan_s: float) -> str:
    """How requests came: from clients that wait for their answers, all at once, or on their own.

    A closed loop with a rate is open where its cap on requests in flight was hardly ever reached.
    """
    if dig(run.scenario, "workload.arrivals.process") == "closed-loop" and not _below_cap(run, makespan_s):
        return "closed-loop"
    arrival = run.requests["arrival_s"]
    at_once = not len(arrival) or float(np.ptp(arrival)) <= 0.05 * makespan_s
    return "all-at-once" if at_once else "open"


def _below_cap(run: RunTables, makespan_s: float) -> bool:
    """Whether a closed loop with a rate kept its clients busy for less than :data:`CAPPED` of the time.

    By Little's law: the requests in flight on the mean are the sum of E2E over the makespan.
    """
    clients = figure_of(run.scenario, "workload.arrivals.concurrency")
    if figure_of(run.scenario, "workload.arrivals.rate_rps") is None or not clients or not makespan_s:
        return False
    return float(np.nansum(run.requests["e2e_s"])) / makespan_s < CAPPED * clients


def waiting(iterations: Columns, limits: Limits) -> tuple[float, dict[str, float]]:
    """The share of busy time with a queue, and the shares of that time in which each limit was reached."""
    duration = iterations["duration_s"]
    queued = iterations["waiting"] > 0
    total, queued_s = float(np.sum(duration)), float(np.sum(duration[queued]))
    if not queued_s:
        return 0.0, dict.fromkeys(reached(iterations, limits), 0.0)
    shares = {
        name: float(np.sum(duration[queued & at])) / queued_s
        for name, at in reached(iterations, limits).items()
    }
    return queued_s / total, shares


def reached(iterations: Columns, limits: Limits) -> dict[str, np.ndarray]:
    """For each limit, the iterations in which one more (mean) prompt would not have fitted."""
    tokens = iterations["decode_seqs"] + iterations["prefill_tokens"]
    blocks = np.ceil((limits.mean_prompt_tokens + 1) / limits.block_tokens)
    # A policy that splits prompts can use any token that is left, others need room for a whole prompt.
    chunk = 1.0 if limits.chunked else max(limits.mean_prompt_tokens, 1.0)
    # Prompts that are admitted in an iteration run in it and are not in ``running`` yet.
    seqs = np.maximum(iterations["running"], iterations["decode_seqs"] + iterations["prefill_seqs"])
    return {
        "kv": iterations["kv_blocks_used"] + blocks
        > (limits.num_gpu_blocks or np.inf) * (1 - limits.watermark),
        "slots": seqs >= (limits.max_num_seqs or np.inf),
        "tokens": tokens + chunk > (limits.max_num_batched_tokens or np.inf),
    }


def idle_share(iterations: Columns, replicas: float, span_s: float) -> float:
    """The share of ``replicas`` x ``span_s`` in which no iteration ran, 0 to 1."""
    available = replicas * span_s
    return max(1 - float(np.sum(iterations["duration_s"])) / available, 0.0) if available else 0.0


def kv_peak(run: RunTables, limits: Limits, gate: int) -> float | None:
    """The fullest moment of a replica of the gate's group; where there is one group, the summary's."""
    if not limits.group:
        return figure_of(run.summary, "kv.peak_utilization")
    used = run.iterations["kv_blocks_used"][group_of(run, run.iterations["replica"]) == gate]
    return float(np.max(used)) / limits.num_gpu_blocks if len(used) and limits.num_gpu_blocks else None


def service_time_s(requests: Columns, between_s: np.ndarray) -> float:
    service = requests["e2e_s"] - requests["queue_s"] - between_s
    service = service[np.isfinite(service)]
    return float(np.quantile(service, 0.99)) if len(service) else 0.0


def weight_share(run: RunTables) -> float | None:
    """Weights over weights plus KV, in the bytes that the iterations with a decode in them read, each of its model."""
    decoding = run.iterations["decode_seqs"] > 0
    at, known = group_of(run, run.iterations["replica"]), dig(run.manifest, "groups", [])
    read = kept = 0.0
    for number in np.unique(at[decoding]):
        own = dict(enumerate(known)).get(int(number))
        model = own if figure_of(own, "weight_bytes") is not None else dig(run.manifest, "model")
        weights, per_token = figure_of(model, "weight_bytes"), figure_of(model, "kv_bytes_per_token")
        if weights is None or per_token is None:
            return None
        mine = decoding & (at == number)
        read += weights * int(np.sum(mine))
        kept += per_token * float(np.sum(run.iterations["decode_ctx_tokens"][mine]))
    return read / (read + kept) if read else None


def fixed_share(iterations: Columns) -> float | None:
    """The intercept of duration against batch over decode-only iterations, as a share of the line's end.

    None when the run holds too few batch sizes to draw a line: fewer than three, or less than a factor 2
    apart.
    """
    pure = (iterations["decode_seqs"] > 0) & (iterations["prefill_tokens"] == 0)
    seqs, duration = iterations["decode_seqs"][pure], iterations["duration_s"][pure]
    sizes = np.unique(seqs)
    if len(sizes) < 3 or sizes[-1] < 2 * sizes[0]:
        return None
    slope, fixed = np.polyfit(seqs, duration, 1)
    longest = fixed + slope * sizes[-1]
    return float(np.clip(fixed / longest, 0.0, 1.0)) if longest > 0 else None


def decoding_at_once(iterations: Columns) -> float:
    """Sequences that decode in an iteration, weighted by how long it takes; 0 where none ever does."""
    seqs, duration = iterations["decode_seqs"], iterations["duration_s"]
    time = float(np.sum(duration[seqs > 0]))
    return float(np.dot(seqs, duration)) / time if time else 0.0


def mixed_token_time(iterations: Columns) -> float:
    """Of the time decoding sequences spent per token, the share in iterations that also prefill."""
    time = iterations["decode_seqs"] * iterations["duration_s"]
    total = float(np.sum(time))
    return float(np.sum(time[iterations["prefill_tokens"] > 0])) / total if total else 0.0


def overlong(run: RunTables, groups: Sequence[Limits]) -> float | None:
    """Of the rejected requests, the share that ``max_model_len`` alone keeps out; None where groups differ in it."""
    longest, rejected = groups[0].max_model_len, run.requests["rejected"]
    if longest is None or not rejected.any() or len({each.max_model_len for each in groups}) > 1:
        return None
    tokens = run.requests["prompt_tokens"] + run.requests["output_tokens"]
    return float(np.mean(tokens[rejected] > longest))


def missed_bounds(run: RunTables) -> dict[str, float]:
    counted = run.requests["counted"]
    if not counted.any():
        return {}
    done = run.requests["finished"][counted]
    return {
        key: float(np.mean(done & ~within(run, key, bound)[counted]))
        for key, bound in stated_bounds(run).items()
    }


def _part_of(run: RunTables, key: str, part_s: np.ndarray, whole_s: np.ndarray) -> float | None:
    """Of the requests that broke a bound, the sum of a part of their time over that of the whole; None without any."""
    bound = stated_bounds(run).get(key)
    if bound is None:
        return None
    value = run.requests[key]
    late = run.requests["counted"] & np.isfinite(value) & (value > bound)
    whole = float(np.sum(whole_s[late]))
    return float(np.sum(part_s[late])) / whole if whole else None


def iterations_that_count(run: RunTables) -> tuple[Columns, float]:
    """The iterations that begin in the window that counts, and how long it is: without one, all and the whole span."""
    if run.window_s is None:
        return run.iterations, run.span_s
    begin_s, end_s = run.window_s
    start_s = run.iterations["start_s"]
    return rows_of(run.iterations, (start_s >= begin_s) & (start_s < end_s)), end_s - begin_s


def arriving_s(run: RunTables) -> float:
    """From the first arrival of a run to its last; the makespan where none arrived."""
    arrival = run.requests["arrival_s"]
    if run.excerpt is not None:
        return run.excerpt.arrivals_s
    return float(np.ptp(arrival)) if len(arrival) else figure_of(run.summary, "makespan_s") or 0.0


def offered_of(run: RunTables) -> Offered | None:
    """How fast requests came, against what was asked for and what was served; None unless arrivals are open."""
    arrived, arrivals_s = figure_of(run.summary, "requests.arrived") or 0, arriving_s(run)
    if arrived < 2 or arrival_kind(run, run.span_s) != "open":
        return None
    finish, last = run.requests["finish_s"], float(np.max(run.requests["arrival_s"]))
    served = None if run.excerpt else float(np.sum(finish <= last)) / arrivals_s
    return Offered((arrived - 1) / arrivals_s, asked_rps(run), served, int(arrived))


def asked_rps(run: RunTables) -> float | None:
    """The rate that the scenario states, where requests come at one that does not change."""
    workload = dig(run.scenario, "workload", {})
    if any(dig(workload, name) is not None for name in ("classes", "programs", "replay", "preset")):
        return None
    steady = dig(workload, "arrivals.process") in (*STEADY_PROCESSES, "closed-loop")
    return figure_of(workload, "arrivals.rate_rps") if steady else None


def start(run: RunTables) -> Start | None:
    """The start of the run as MSER-5 cuts it, where leaving it out changes the verdict.

    None where the run has a window already, states no SLO, is drawn in part, or does not settle.
    """
    met, asked = good(run), target(run)
    if met is None or asked is None or run.window_s is not None or run.excerpt is not None:
        return None
    if not len(run.requests["arrival_s"]):
        return None
    order = np.argsort(run.requests["arrival_s"], kind="stable")
    # Unfinished requests are NaN here, which compares false: they did not end before the last arrival.
    ended = run.requests["finish_s"][order] <= np.max(run.requests["arrival_s"])
    cut = truncation([run.requests[key][order] for key in STEADY], ended)
    if not cut or (np.mean(met) >= asked) == (np.mean(met[order[cut:]]) >= asked):
        return None
    arrival = run.requests["arrival_s"][order]
    first, rest = (float(np.mean(met[part])) for part in (order[:cut], order[cut:]))
    whole = float(np.mean(met))
    # The pooled standard error of a difference of two shares: a verdict that chance turns is no finding.
    if abs(first - rest) < CHANCE * np.sqrt(whole * (1 - whole) * (1 / cut + 1 / (len(order) - cut))):
        return None
    at_once = int(np.count_nonzero(arrival == arrival[0]))
    return Start(cut, first, rest, at_once, len(order))

"""The invariants every simulation keeps, numbered as in the design; checked inside every simulation test."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np

from simslm.metrics.ledger import Priced
from simslm.metrics.result import Result
from simslm.sim.deployment import Deployment
from simslm.sim.log import FAILED, FINISHED, REJECTED, SimulationLog
from support.observed import observe


def simulate(requests: Any, deployment: Deployment, *, jump: bool = True) -> Result:
    """Runs a workload to its end and holds the outcome to every invariant."""
    result = observe(requests, deployment, priced(deployment), slo={"ttft_s": 1.0}, jump=jump)
    check(result, deployment)
    if requests.programs is not None:
        dependence(result, requests.programs)
    return result


def priced(deployment: Deployment) -> list[Priced]:
    """What each replica's iterations cost."""
    tenants = Counter(device for group in deployment.groups for device in group.devices)
    return [
        Priced(group.cost, tenants[device], group.engine.num_gpu_blocks, levels=group.levels, device=device)
        for group in deployment.groups
        for device in group.devices
    ]


def check(result: Result, deployment: Deployment) -> None:
    """Every invariant that a finished run can be held to."""
    conservation(result, deployment)
    causality(result)
    kv_blocks(result, deployment)
    work_conservation(result, deployment)
    phases(result, deployment)
    groups(result, deployment)
    energy(result)


def conservation(result: Result, deployment: Deployment) -> None:
    """1. Requests and tokens: all that arrived are finished or rejected, with exactly their tokens, on every replica
    that served them; none of a request that the gateway answered.

    A request that was preempted in the middle of a prompt may find more of it cached than the first time, others having
    computed it meanwhile, and one whose replica failed may find its session's last turn on the next one's host: then
    at least the last token is computed.
    """
    requests = result.request_columns
    done = requests["status"] == FINISHED
    failed = requests["status"] == FAILED
    assert (done | failed | (requests["status"] == REJECTED)).all()
    decoded = sum(
        float((table.columns["decoding"] + table.columns["accepted_tokens"]).sum()) for table in result.tables
    )
    emitted = decoded + sum(window.emitted for _, window, _ in result.windows)
    escalations = requests.get("escalations", np.zeros(len(done), dtype=int))
    times = escalations + (requests["replica"] >= 0)
    output = requests["output_tokens"]
    least = (output * times)[done].sum() + (output * escalations)[failed].sum()
    assert least <= emitted <= least + output[failed].sum()
    chunks = [window.chunks for _, window, _ in result.windows]
    prefilled = np.zeros(len(result.log.arrival_s))
    for table in chunks:
        np.add.at(prefilled, table["request_id"].astype(int), table["tokens"])
    prefilled = prefilled[requests["request_id"]]
    never = done & (requests["preemptions"] == 0)
    computed = requests["prompt_tokens"] * times - requests["cached_prompt_tokens"]
    assert (prefilled[never] == computed[never]).all()
    engines = [group.engine for group in deployment.groups]
    caching = any(engine.prefix_caching or engine.swap_turns for engine in engines)
    whole = np.minimum(computed, times) if caching else computed
    assert (prefilled[done] >= whole[done]).all()
    for table, chunk in zip(result.tables, chunks, strict=True):
        per_iteration = np.bincount(chunk["iteration"].astype(int), chunk["tokens"], minlength=len(table))
        assert (per_iteration <= table.columns["prefill_tokens"]).all()
    _instants(result, deployment)


def slowly_judged(deployment: Deployment) -> set[int]:
    """The replicas whose answers wait for a verdict after they have left."""
    made = deployment.group_router
    if made is None or not made().verdict_s:
        return set()
    judged = made().begin([SimpleNamespace(number=each, share=1.0) for each in deployment.open_groups])
    of = [number for number, group in enumerate(deployment.groups) for _ in group.devices]
    return {index for index, number in enumerate(of) if number in deployment.with_decode_groups(judged)}


def visits(result: Result, deployment: Deployment) -> list[tuple[np.ndarray, np.ndarray] | None]:
    """For each replica, when requests came to it and when they left it, each in ascending order; None where a client
    gave up, or an answer waited for its verdict: when they left is not noted."""
    requests = result.request_columns
    came: list[list[float]] = [[] for _ in (*result.tables, "no replica")]
    left: list[list[float]] = [[] for _ in came]
    lost = slowly_judged(deployment)
    paths = {int(request): [] for request in requests["request_id"]}
    for move in result.log.moves:
        paths[move.request_id].append(move)
    columns = (
        requests[name].tolist() for name in ("request_id", "replica", "arrival_s", "finish_s", "status")
    )
    for request, replica, arrival_s, finish_s, status in zip(*columns, strict=True):
        if status == REJECTED or (status == FINISHED and replica < 0):
            continue
        here = int(paths[request][0].source if paths[request] else replica)
        came[here].append(arrival_s)
        for move in paths[request]:
            assert move.source == here
            left[here].append(move.at_s)
            here = move.target
            came[here].append(move.at_s)
        assert here == replica
        left[here].append(finish_s)
        if status == FAILED:
            lost.update([int(replica)])
    return [
        None if index in lost else (np.sort(inside), np.sort(outside))
        for index, (inside, outside) in enumerate(zip(came[:-1], left[:-1], strict=True))
    ]


def _instants(result: Result, deployment: Deployment) -> None:
    """Conservation at every iteration: in the system = waiting + running, replica by replica.

    A client of a closed loop that sends at the instant an iteration begins is in the queue of the next one.
    """
    for table, stays in zip(result.tables, visits(result, deployment), strict=True):
        if stays is None:
            continue
        starts, (arrivals, finishes) = table.columns["start_s"], stays
        gone = np.searchsorted(finishes, starts, side="right")
        held = table.columns["waiting"] + table.columns["running"] + gone
        assert (held >= np.searchsorted(arrivals, starts, side="left")).all()
        assert (held <= np.searchsorted(arrivals, starts, side="right")).all()


def causality(result: Result) -> None:
    """2. arrival <= first scheduled <= first token <= finish, and a replica's iterations never overlap."""
    requests = result.request_columns
    done = requests["status"] == FINISHED
    served = done & (requests["replica"] >= 0)
    times = [
        requests[name][served] for name in ("arrival_s", "first_scheduled_s", "first_token_s", "finish_s")
    ]
    for earlier, later in pairwise(times):
        assert (earlier <= later).all()
    at_gateway = done & ~served
    assert np.isnan(requests["first_scheduled_s"][at_gateway]).all()
    assert (requests["arrival_s"] <= requests["first_token_s"])[at_gateway].all()
    assert (requests["first_token_s"] <= requests["finish_s"])[at_gateway].all()
    for table in result.tables:
        assert (table.columns["start_s"][1:] >= table.end_s[:-1]).all()
        assert (table.columns["duration_s"] > 0).all()


def dependence(result: Result, programs: Any) -> None:
    """2. of programs: a request arrives at the latest finish of those it depends on plus its pause, to the bit; or
    never, and then one of them has not finished, or its program was never started."""
    requests, arrival_s = result.log.requests, result.log.arrival_s
    finish_s = np.array(requests.finish_s)
    by_clock = ~np.isnan(programs.start_s[programs.program_of])
    begin = 0
    for request, end in enumerate(programs.parent_ends.tolist()):
        parents = programs.parents[begin:end]
        assert (parents < request).all()
        assert (programs.program_of[parents] == programs.program_of[request]).all()
        if begin < end:
            ready_s = finish_s[parents].max() + programs.delay_s[request]
            assert np.array_equal(arrival_s[request], ready_s, equal_nan=True), request
        elif by_clock[request]:
            start_s = programs.start_s[programs.program_of[request]] + programs.delay_s[request]
            assert arrival_s[request] == start_s
        begin = end
    for clients in programs.clients:
        _clients(result, programs, clients)


def _clients(result: Result, programs: Any, clients: Any) -> None:
    """Clients start their programs in order, each when its last one is over and it has thought, until they stop.

    When a client has left is not in the log, so that is only looked at where all that arrived finished.
    """
    log = result.log
    free_s = [0.0] * clients.concurrency
    until_s = math.inf if clients.until_s is None else clients.until_s
    started = True
    for program in clients.programs.tolist():
        mine = np.flatnonzero(programs.program_of == program)
        arrived = mine[~np.isnan(log.arrival_s[mine])]
        if (np.array(log.requests.status)[arrived] != FINISHED).any():
            return
        start_s = heapq.heappop(free_s)
        started = started and start_s < until_s
        assert bool(len(arrived)) == started
        if started:
            roots = mine[np.diff(programs.parent_ends, prepend=0)[mine] == 0]
            assert (log.arrival_s[roots] == start_s + programs.delay_s[roots]).all()
            over_s = np.array(log.requests.finish_s)[mine].max()
            heapq.heappush(free_s, float(over_s) + clients.think_time_s)
        else:
            heapq.heappush(free_s, start_s)


def kv_blocks(result: Result, deployment: Deployment) -> None:
    """3. Blocks in use hold the tokens of the iteration, and are never more than there are."""
    engines = [group.engine for group in deployment.groups for _ in group.devices]
    for table, engine in zip(result.tables, engines, strict=True):
        used = table.columns["kv_blocks_used"]
        assert (used <= engine.num_gpu_blocks).all()
        assert (used >= 0).all()
        tokens = table.columns["decode_ctx_tokens"] + table.columns["prefill_ctx_tokens"]
        if not engine.prefix_caching:
            real = table.columns["decode_seqs"] == table.columns["decoding"]
            assert (used * engine.block_size >= tokens)[real].all()


def work_conservation(result: Result, deployment: Deployment) -> None:
    """4. A replica stands idle only while none of its requests is in the system, or all wait for blocks that replicas
    of the other phase hold: then, where blocks are common, one of those runs.

    Not where requests are on their way to it, between replicas or from the host, nor where blocks are held for requests
    that wait because no replica of the other phase serves."""
    groups = [group for group in deployment.groups for _ in group.devices]
    places = [device for group in deployment.groups for device in group.devices]
    for index, (table, stays) in enumerate(zip(result.tables, visits(result, deployment), strict=True)):
        group = groups[index]
        away = group.engine.swap_overlap or group.migration is not None
        phased = group.role != "both" and (group.kv_pool is None or deployment.controlled)
        if stays is None or away or phased:
            continue
        arrivals, finishes = stays
        pauses = table.end_s[:-1][table.columns["start_s"][1:] > table.end_s[:-1]]
        inside = np.searchsorted(arrivals, pauses, side="right") - np.searchsorted(
            finishes, pauses, side="right"
        )
        others = [
            other
            for other, each in enumerate(groups)
            if other != index
            and group.kv_pool
            and (each.kv_pool, places[other]) == (group.kv_pool, places[index])
        ]
        for other in others:
            starts, ends = result.tables[other].columns["start_s"], result.tables[other].end_s
            running = np.searchsorted(starts, pauses, side="right") > np.searchsorted(
                ends, pauses, side="right"
            )
            inside = inside * ~running
        assert not inside.any()


def phases(result: Result, deployment: Deployment) -> None:
    """A decode replica never prefills, a prefill replica never decodes, and each move leads to the other phase."""
    roles = [group.role for group in deployment.groups for _ in group.devices]
    for role, table in zip(roles, result.tables, strict=True):
        if role != "both":
            never = {"prefill": "decode_seqs", "decode": "prefill_tokens"}[role]
            lingering = table.columns["decode_seqs"] > table.columns["decoding"]
            assert not table.columns[never][~lingering].any()
    for move in result.log.moves:
        if move.kind in ("hand-over", "return") and -1 not in (move.source, move.target):
            between = {roles[move.source], roles[move.target]}
            assert between == {"prefill", "decode"} or (move.kind == "hand-over" and between == {"decode"})
            assert roles[move.source] == "decode" or move.kind == "hand-over"


def groups(result: Result, deployment: Deployment) -> None:
    """A request is let in by each group once at most, and each that a group let in was answered there, went on, or is
    over otherwise; the gateway's are those that finished on no replica."""
    requests, log = result.request_columns, result.log
    done = requests["status"] == FINISHED
    assert log.answered == np.count_nonzero(done & (requests["replica"] < 0))
    if deployment.group_router is None:
        assert not log.groups
        return
    of = np.array([number for number, group in enumerate(deployment.groups) for _ in group.devices])
    escalations = [move for move in log.moves if move.kind == "escalation"]
    served = [move for move in escalations if move.target >= 0]
    seen = Counter((move.request_id, of[move.target]) for move in served)
    assert all(count == 1 for count in seen.values())
    assert all(of[move.source] != of[move.target] for move in served)
    answered = sum(group.answered for group in log.groups)
    assert answered == np.count_nonzero(done & (requests["replica"] >= 0))
    failed = requests["status"] == FAILED
    lost = sum(group.requests for group in log.groups) - answered - len(escalations)
    assert sum(group.escalated for group in log.groups) == len(escalations)
    assert np.count_nonzero(failed & (requests["replica"] >= 0)) <= lost <= np.count_nonzero(~done)
    if "escalations" in requests:
        assert requests["escalations"].sum() == len(escalations)


def energy(result: Result) -> None:
    """5. Energy = iterations + idle = the integral of power, and requests are charged with all but idle."""
    figures = result.summary["energy"]
    if figures["total_j"] is None:
        return
    parts = figures["prefill_j"] + figures["decode_j"] + figures["idle_j"]
    assert np.isclose(figures["total_j"], parts, rtol=1e-9)
    integral = sum(float(np.dot(t.columns["power_w"], t.columns["duration_s"])) for t in result.tables)
    assert np.isclose(integral, figures["prefill_j"] + figures["decode_j"], rtol=1e-9, atol=1e-12)
    charged = np.nansum(result.request_columns["energy_j"])
    assert np.isclose(charged, integral, rtol=1e-9, atol=1e-12)


def same_logs(one: SimulationLog, other: SimulationLog) -> None:
    """Two logs agree in every bit."""
    left, right = one.requests.columns(), other.requests.columns()
    for name, column in left.items():
        assert column.tobytes() == right[name].tobytes(), name
    assert one.arrival_s.tobytes() == other.arrival_s.tobytes()
    for a, b in zip(one.windows, other.windows, strict=True):
        assert a.emitted == b.emitted
        assert a.gaps.tobytes() == b.gaps.tobytes()
        for kind in ("columns", "chunks", "stays", "lingered"):
            mine, theirs = getattr(a, kind), getattr(b, kind)
            for name, column in mine.items():
                assert column.tobytes() == theirs[name].tobytes(), name

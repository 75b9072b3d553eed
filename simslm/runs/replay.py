"""A measured run as a scenario, exactly as it was run, and a simulation's result under the run's column names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from simslm.catalog.models import load_model
from simslm.errors import UsageError
from simslm.metrics.columns import latencies
from simslm.metrics.quantiles import spread
from simslm.metrics.result import Result
from simslm.policies.registry import lookup
from simslm.runs.lengths import read_arrivals, read_lengths, rescale
from simslm.runs.power import device_samples
from simslm.runs.steady import counted_span, output_rate, steady_span
from simslm.runs.table import LATENCIES, STATISTICS, MeasuredRun
from simslm.scenario.load import load_scenario
from simslm.scenario.schema import Scenario

PREFILL_FIRST_TOKENS = 2048
"""Least token budget of prefill-first batching in vLLM 0.6.3: ``max(max_model_len, 2048)``
(``SchedulerConfig`` of vllm/config.py)."""

CHUNKED_TOKENS = 512
"""Token budget of chunked prefill in the same version; later ones have 2048 and more (vLLM pull request 10544)."""

WHOLE = ("preemptions", "kv_peak", "power_mean_w", "power_active_p50_w", "sm_busy_pct")
"""Figures that are of the whole run where only a window of it was measured."""

SINCE_ARRIVAL = ("ttft", "e2e", "queue")
"""Latencies that count from a request's arrival."""

KNOWN_ENGINES = re.compile(r"|vllm-v?0\.6(\.[0-4])?([^\d.].*|\.post.*)?", re.IGNORECASE)
"""Engines whose default budgets those are; no name at all stands for them too."""


def scenario_of(run: MeasuredRun, cost: Mapping[str, Any], *, dtype: str = "bf16", seed: int = 0) -> Scenario:
    """The scenario of a measured run: same requests, engine limits, KV blocks, replicas and sharing.

    Requests arrive when they did, where that was recorded; otherwise by the process that the run names. A run of which
    only a window was measured has the requests of the rest, too.

    Requests have the lengths of the run's file, in its order and again from the first when there are more, each
    length times one factor such that the means are the run's (see :func:`~simslm.runs.lengths.rescale`). Without
    a file all are alike. ``max_tokens`` is the (longest) output, which ``ignore_eos`` told the engine to produce.

    Args:
        run: what was run.
        cost: the scenario's ``cost``: ``{"trace": path}`` or ``{"roofline": {...}}``.
        dtype: of weights and KV cache; that of the trace where there is one.
        seed: draws the arrivals where they are random.

    Raises:
        UsageError: the run does not say enough, or its lengths cannot be used.
        ScenarioError: the simulator cannot run what was run.
    """
    prompts, outputs, arrival_s = _requests(run)
    longest = load_model(run.model).max_position_embeddings
    engine = {
        "batching": _batching(run),
        "max_num_seqs": run.max_num_seqs,
        "max_num_batched_tokens": run.max_num_batched_tokens or _default_tokens(run, longest),
        "num_gpu_blocks": run.num_gpu_blocks,
        "disable_async_output_proc": not late_output(run.engine),
        "spare_block": late_output(run.engine) and not lookup("batching", run.batching).cls.reserves_output,
    }
    return load_scenario(
        {
            "name": run.run[:200],
            "seed": seed,
            "model": run.model,
            "device": run.device if run.device_spec is None else dict(run.device_spec),
            "dtype": dtype,
            "cost": dict(cost),
            "workload": {
                "num_requests": run.num_requests,
                "arrivals": arrivals(run.arrivals)
                if arrival_s is None
                else {"process": "listed", "times_s": arrival_s.tolist()},
                "prompt_tokens": _distribution(prompts),
                "output_tokens": _distribution(outputs),
                # Benchmarking clients run with ``ignore_eos``: the engine knows the length it is told, which for
                # recorded lengths is the longest.
                "max_tokens": int(outputs.max()),
            },
            "deployment": {
                "replicas_per_device": run.replicas,
                "sharing": run.sharing,
                "engine": engine,
            },
        }
    )


def _batching(run: MeasuredRun) -> dict[str, Any]:
    """The run's policy; where the times of single tokens were measured, tokens of static batches were streamed."""
    streamed = any(name.startswith(("ttft", "tpot", "itl")) for name in run.measured)
    return {"policy": run.batching} | (
        {"returns": "request"} if run.batching == "static" and streamed else {}
    )


def late_output(engine: str) -> bool:
    """Whether an engine looks at the outputs of an iteration while the next one runs: vLLM 0.6 and 0.7 with the V0
    engine (``use_async_output_proc`` of vllm/config.py). It is also the one that asks for a ``spare_block``."""
    return re.match(r"vllm[ -]v?0\.[67]\.", engine) is not None


def arrivals(text: str) -> dict[str, Any]:
    """The scenario's arrivals of ``all-at-once | poisson:RPS | gamma:RPS:CV | closed-loop:N``."""
    process, *figures = text.split(":")
    if process == "closed-loop":
        return {"process": process, "concurrency": int(figures[0])}
    return {"process": process} | dict(zip(("rate_rps", "cv"), map(float, figures), strict=False))


def _default_tokens(run: MeasuredRun, max_model_len: int) -> int:
    """What the engine takes for ``max_num_batched_tokens`` when it is told nothing.

    Raises:
        UsageError: that is not known of this engine.
    """
    if not KNOWN_ENGINES.fullmatch(run.engine):
        raise UsageError(
            f"max_num_batched_tokens: is empty, and the default of {run.engine!r} is not known",
            where=run.where,
            remedy="state it; vLLM logs its value when it starts",
        )
    return CHUNKED_TOKENS if run.batching == "chunked-prefill" else max(max_model_len, PREFILL_FIRST_TOKENS)


def _requests(run: MeasuredRun) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Prompt and output tokens of each request, both of shape ``(num_requests,)``, and when they arrived.

    Where requests arrived at recorded times, they are in that order.
    """
    recorded, arrival_s = run.lengths, None if run.arrival_s is None else np.array(run.arrival_s)
    if recorded is None and run.lengths_file is not None:
        recorded = read_lengths(run.lengths_file, where=run.where)
        # In a burst or a closed loop the times of a file follow the engine that was measured, and are no arrivals.
        arrival_s = read_arrivals(run.lengths_file, where=run.where) if run.paced else None
    if recorded is None and run.workload != "fixed":
        raise UsageError(
            f"lengths_file: is empty, but the requests of a {run.workload!r} workload differ",
            where=run.where,
            remedy="name the file of their lengths, or call the workload fixed",
        )
    if run.arrivals == "recorded" and arrival_s is None:
        raise UsageError(
            "lengths_file: has no column arrival_s, but the arrivals are those recorded",
            where=run.where,
            remedy="add the column, or name the process of the arrivals",
        )
    if arrival_s is not None and len(arrival_s) < run.num_requests:
        raise UsageError(
            f"{run.num_requests} requests, but only {len(arrival_s)} arrival times were recorded",
            where=run.where,
            remedy="lower num_requests",
        )
    # ``np.resize`` goes round from the first again, as a client does that has fewer conversations than requests.
    prompts, outputs = (np.resize(column, run.num_requests) for column in recorded or ((1,), (1,)))
    prompts, outputs = rescale(prompts, run.prompt_tokens), rescale(outputs, run.output_tokens)
    if arrival_s is None:
        return prompts, outputs, None
    arrival_s = arrival_s[: run.num_requests]
    order = np.argsort(arrival_s, kind="stable")
    return prompts[order], outputs[order], arrival_s[order] - arrival_s.min()


def _distribution(lengths: np.ndarray) -> dict[str, Any]:
    if lengths.min() == lengths.max():
        return {"dist": "fixed", "value": int(lengths[0])}
    return {"dist": "listed", "values": lengths.tolist()}


def simulated(result: Result, run: MeasuredRun, startup_s: float = 0.0) -> dict[str, float]:
    """Every figure of a simulation that a measured run may have, by its column in ``RUNS.csv``.

    Definitions are those of the measurement: latencies over all requests, ITL over all gaps, ``kv_peak`` as the
    share of the KV blocks in use when most are, power and busy time of the device from samples of one second of
    which ``active`` are those with the SM busy for 20 % or more.

    Args:
        result: of the scenario of ``run``, simulated without a sink.
        run: how it was run.
        startup_s: what a burst of requests takes to get from the clients to the first iteration, as calibrated; a
            run in which all arrive at once lasts that much longer.
    """
    summary = result.summary
    startup_s = startup_s if run.arrivals == "all-at-once" else 0.0
    seconds = summary["makespan_s"] + startup_s
    found: dict[str, float | None] = {
        "duration_s": seconds,
        **{name: value * summary["makespan_s"] / seconds for name, value in summary["throughput"].items()},
        "preemptions": summary["kv"]["preemptions"],
        "kv_peak": summary["kv"]["peak_utilization"],
        "energy_j": summary["energy"]["total_j"],
        "power_mean_w": summary["energy"]["mean_power_w"],
    }
    for latency in LATENCIES:
        for statistic in STATISTICS:
            value = summary[f"{latency}_s"][statistic]
            if value is not None and latency in SINCE_ARRIVAL:
                value += startup_s
            found[f"{latency}_{statistic}_s"] = value
    found["steady_output_tokens_per_s"] = _steady(result, run)
    found |= device_samples(result.tables, summary)
    if run.window is not None:
        found = {name: found[name] for name in WHOLE} | _counted(result, run)
    return {name: float(value) for name, value in found.items() if value is not None}


def _steady(result: Result, run: MeasuredRun) -> float | None:
    columns = result.request_columns
    span = steady_span(run, columns["first_token_s"], columns["finish_s"])
    return None if span is None else output_rate(result, span)


def _counted(result: Result, run: MeasuredRun) -> dict[str, float | None]:
    """The figures over the window that a client measured, of the requests that overlap it."""
    assert run.window is not None
    columns = result.request_columns
    span = counted_span(run.window, columns["arrival_s"], columns["finish_s"])
    # Requests that overlap the window, as the client counts them, also those that began before it.
    inside = (columns["finish_s"] > span[0]) & (columns["arrival_s"] < span[1])
    counted = {name: column[inside] for name, column in latencies(columns).items()}
    tokens = columns["output_tokens"][inside]
    rate = output_rate(result, span)
    per_request = float(tokens.mean())
    prompts = float(columns["prompt_tokens"][inside].mean())
    found: dict[str, float | None] = {
        "duration_s": span[1] - span[0],
        "requests_per_s": rate / per_request,
        "output_tokens_per_s": rate,
        "total_tokens_per_s": rate * (1 + prompts / per_request),
    }
    for latency in ("ttft", "tpot", "e2e", "queue"):
        values = counted[f"{latency}_s"]
        figures = spread(values[~np.isnan(values)])
        found |= {f"{latency}_{name}_s": value for name, value in figures.items()}
    gaps = np.maximum(tokens - 1, 0)
    if gaps.sum():
        found["itl_mean_s"] = float(np.nansum(counted["tpot_s"] * gaps) / gaps.sum())
    return found

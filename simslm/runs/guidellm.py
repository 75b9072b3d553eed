"""``benchmarks.json`` of guidellm, whose layouts of versions 0.3 (``args``, ``worker``) and from 0.5 (``config``).

Its names differ from those used here: ``inter_token_latency_ms`` is one number a request, (E2E − TTFT) / (output tokens
− 1), which is TPOT here; in its mean each request counts as often as it has gaps, so that is the mean ITL. Its
``time_per_output_token_ms`` includes the first token and is no metric here. A benchmark that time cut off
(``--max-seconds``) leaves requests incomplete: its latencies are compared, its throughput is not. With a warm-up or a
cool-down (from 0.4), ``duration`` is what lies between, and the rates are those that the report states: it counts
requests that overlap the measured part, which reach over its ends.
"""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from simslm.errors import UsageError
from simslm.metrics.quantiles import spread
from simslm.plain import is_list, is_section, section_of
from simslm.runs.client_run import (
    RECORDED,
    ClientRun,
    describe,
    figures,
    lengths_of,
    model_cell,
    need,
    sent_times,
)
from simslm.runs.table import CountedWindow, Lengths, Skipped

KEYS = {"benchmarks"}
"""What every such file has."""

TOOL = "guidellm"
STEADY_CV = 1e-6
"""A constant rate as gamma distributed gaps."""

PERCENTILES = ("p50", "p90", "p95", "p99")


def runs_in(result: dict[str, Any], path: Path) -> list[ClientRun | Skipped]:
    """One run for each benchmark of a report, or why there is none.

    Raises:
        UsageError: it has no benchmark.
    """
    benchmarks = result["benchmarks"]
    if not is_list(benchmarks) or not benchmarks:
        raise UsageError("benchmarks: holds none", where=str(path), remedy="was the run completed?")
    found: list[ClientRun | Skipped] = []
    for number, benchmark in enumerate(benchmarks, start=1):
        name = f"{path.stem} {number}"
        try:
            found.append(_run(benchmark, f"{path}: benchmark {number}", name))
        except UsageError as error:
            found.append(Skipped(name, str(error)))
    return found


def _run(benchmark: Any, where: str, name: str) -> ClientRun:
    totals = _totals(benchmark, where)
    if totals["errored"] or not totals["successful"]:
        raise UsageError(
            f"{totals['errored']} requests failed and {totals['successful']} were completed",
            where=where,
            remedy="measure it again",
        )
    requests = _requests(benchmark, totals["successful"])
    lengths = _lengths(requests, where)
    window = _window(benchmark, where)
    strategy = _strategy(benchmark, where)
    sent = None
    if not totals["incomplete"] and window is None:
        sent = sent_times(_starts(requests), totals["successful"], where)
    arrivals, why = _arrivals(strategy, sent)
    model, unknown = model_cell(_model(benchmark))
    count = totals["successful"] + totals["incomplete"]
    measured = _latencies(benchmark, where) | _tpot(requests)
    if window is not None:
        count = _served(benchmark, window, count)
        measured |= _rates(benchmark, where)
    elif not totals["incomplete"]:
        measured |= _throughput(benchmark, totals["successful"], where)
    cells = {
        "run": name,
        "model": model,
        "workload": describe(lengths),
        "prompt_tokens": repr(_mean(benchmark, "prompt_token_count", where)),
        "output_tokens": repr(_mean(benchmark, "output_token_count", where)),
        "num_requests": repr(count),
        "arrivals": arrivals,
    }
    return ClientRun(
        TOOL,
        where,
        cells | figures(measured),
        lengths,
        {"arrivals": why, "model": unknown},
        sent if arrivals == RECORDED else None,
        window,
        _notes(strategy, window, totals["incomplete"], arrivals, measured),
    )


def _window(benchmark: Any, where: str) -> CountedWindow | None:
    """What was measured between warm-up and cool-down; None where that is all."""
    before, after = (float(benchmark.get(f"{name}_duration") or 0.0) for name in ("warmup", "cooldown"))
    if not before and not after:
        return None
    return CountedWindow(before, _seconds(benchmark, where))


def _served(benchmark: Any, window: CountedWindow, counted: int) -> int:
    """Requests that the client sent in all, as many as its rate comes to from the first to the end of the cool-down:
    the report counts those that overlap the measured part."""
    rate = _rate(benchmark, "requests_per_second")
    if rate is None:
        return counted
    whole_s = window.warmup_s + window.measured_s + float(benchmark.get("cooldown_duration") or 0.0)
    return max(counted, ceil(rate * whole_s))


def _rate(benchmark: Any, metric: str) -> float | None:
    found = section_of(section_of(benchmark, "metrics"), metric)
    value = section_of(found, "successful").get("mean")
    return float(value) if isinstance(value, int | float) and value > 0 else None


def _rates(benchmark: Any, where: str) -> dict[str, Any]:
    """The throughput of a measured window, as the report states it: requests that reach over its ends count in part."""
    rate = _rate(benchmark, "requests_per_second")
    if rate is None:
        return {}
    output = _mean(benchmark, "output_token_count", where)
    return {
        "duration_s": _seconds(benchmark, where),
        "requests_per_s": rate,
        "output_tokens_per_s": rate * output,
        "total_tokens_per_s": rate * (output + _mean(benchmark, "prompt_token_count", where)),
    }


def _notes(
    strategy: dict[str, Any],
    window: CountedWindow | None,
    incomplete: int,
    arrivals: str,
    measured: dict[str, Any],
) -> tuple[str, ...]:
    found: list[str] = []
    if window is not None:
        found.append(
            f"measured for {window.measured_s:g} s after {window.warmup_s:g} s of warm-up: the simulation counts the "
            "same part"
        )
    if ramp := strategy.get("rampup_duration"):
        found.append(
            f"clients started one after another over {ramp:g} s (rampup_duration); the simulation starts them together"
        )
    if incomplete and window is None:
        found.append(f"{incomplete} requests were cut off when the time was up: throughput is not compared")
    elif "output_tokens_per_s" not in measured:
        found.append(
            "the report has no requests_per_second, and its requests reach over the ends of what was measured: "
            "throughput is not compared"
        )
    if arrivals == RECORDED:
        found.append("requests arrive at the times that the file has (request_start_time)")
    return tuple(found)


def _totals(benchmark: Any, where: str) -> dict[str, int]:
    old = benchmark.get("run_stats") if is_section(benchmark) else None
    counts = (
        need(old, ("requests_made",), where) if old else need(benchmark, ("metrics", "request_totals"), where)
    )
    return {name: int(counts.get(name) or 0) for name in ("successful", "errored", "incomplete")}


def _strategy(benchmark: Any, where: str) -> dict[str, Any]:
    part = "config" if "config" in benchmark else "args"
    return need(benchmark, (part, "strategy"), where)


def _model(benchmark: Any) -> Any:
    backend = section_of(section_of(benchmark, "config"), "backend")
    return backend.get("model") or section_of(benchmark, "worker").get("backend_model")


def _arrivals(strategy: dict[str, Any], sent: tuple[float, ...] | None) -> tuple[str, str]:
    """The column's text, or none and why; times that were recorded say it best, unless they followed the answers."""
    kind, rate = strategy.get("type_"), strategy.get("rate")
    streams = strategy.get("streams") or strategy.get("max_concurrency")
    if kind == "synchronous":
        return "closed-loop:1", ""
    if kind == "concurrent":
        return f"closed-loop:{streams}", ""
    if kind == "throughput":
        return (f"closed-loop:{streams}" if streams else "all-at-once"), ""
    if sent is not None:
        return RECORDED, ""
    if streams:
        return "", "requests arrived at a rate, but no more than max_concurrency at once"
    if kind == "poisson":
        return f"poisson:{rate!r}", ""
    if kind == "constant":
        return f"gamma:{rate!r}:{STEADY_CV!r}", ""
    return "", f"its strategy {kind!r} is none that simslm knows"


def _summary(benchmark: Any, metric: str, where: str) -> dict[str, Any]:
    return need(benchmark, ("metrics", metric, "successful"), where)


def _mean(benchmark: Any, metric: str, where: str) -> float:
    return need(benchmark, ("metrics", metric, "successful", "mean"), where)


def _latencies(benchmark: Any, where: str) -> dict[str, Any]:
    found = {"itl_mean_s": _mean(benchmark, "inter_token_latency_ms", where) / 1e3}
    for ours, theirs, per_s in (("ttft", "time_to_first_token_ms", 1e3), ("e2e", "request_latency", 1.0)):
        summary = _summary(benchmark, theirs, where)
        values = {"mean": summary.get("mean"), "max": summary.get("max")}
        values |= {name: section_of(summary, "percentiles").get(name) for name in PERCENTILES}
        found |= {f"{ours}_{name}_s": value / per_s for name, value in values.items() if value is not None}
    return found


def _throughput(benchmark: Any, completed: int, where: str) -> dict[str, Any]:
    seconds = _seconds(benchmark, where)
    output = completed * _mean(benchmark, "output_token_count", where)
    total = output + completed * _mean(benchmark, "prompt_token_count", where)
    return {
        "duration_s": seconds,
        "requests_per_s": completed / seconds,
        "output_tokens_per_s": output / seconds,
        "total_tokens_per_s": total / seconds,
    }


def _seconds(benchmark: Any, where: str) -> float:
    return benchmark.get("duration") or need(benchmark, ("end_time",), where) - need(
        benchmark, ("start_time",), where
    )


def _starts(requests: list[dict[str, Any]]) -> list[Any]:
    starts = ("request_start_time", "start_time")
    return [
        next((request[key] for key in starts if request.get(key) is not None), None) for request in requests
    ]


def _requests(benchmark: Any, completed: int) -> list[dict[str, Any]]:
    """The completed requests in the order they were sent; none where the file has only some of them."""
    listed: list[dict[str, Any]] = section_of(benchmark, "requests").get("successful") or []
    if len(listed) != completed:
        return []
    starts = _starts(listed)
    if any(start is None for start in starts):
        return listed
    return [listed[i] for i in sorted(range(len(listed)), key=starts.__getitem__)]


def _lengths(requests: list[dict[str, Any]], where: str) -> Lengths | None:
    if not requests:
        return None
    prompts, outputs = (
        [request.get(name) for request in requests] for name in ("prompt_tokens", "output_tokens")
    )
    return lengths_of(prompts, outputs, where)


def _tpot(requests: list[dict[str, Any]]) -> dict[str, Any]:
    """The spread over requests, as the summary's weighs them by their tokens."""
    values = [request.get("inter_token_latency_ms") for request in requests]
    known = [value for value in values if value is not None]
    if not known:
        return {}
    return {f"tpot_{name}_s": value for name, value in spread(np.array(known) / 1e3).items()}

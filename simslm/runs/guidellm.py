"""``benchmarks.json`` of guidellm, whose layouts of versions 0.3 (``args``, ``worker``) and from 0.5 (``config``).

Its names are not everybody's: ``inter_token_latency_ms`` is one number a request, (E2E − TTFT) / (output tokens
− 1), which is TPOT here; in its mean each request counts as often as it has gaps, so that is the mean ITL. Its
``time_per_output_token_ms`` includes the first token and is no metric here. A benchmark that time cut off
(``--max-seconds``) leaves requests incomplete: its latencies are compared, its throughput is not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from simslm.errors import UsageError
from simslm.metrics.quantiles import spread
from simslm.runs.found import Found, Lengths, describe, figures, lengths_of, named_model, need

KEYS = {"benchmarks"}
"""What every such file has."""

TOOL = "guidellm"
STEADY_CV = 1e-6
"""A constant rate as gamma distributed gaps."""

PERCENTILES = ("p50", "p90", "p95", "p99")


def runs_in(result: dict[str, Any], path: Path) -> list[Found]:
    """One run for each benchmark of a report.

    Raises:
        UsageError: requests failed, or something is missing.
    """
    benchmarks = result["benchmarks"]
    if not isinstance(benchmarks, list) or not benchmarks:
        raise UsageError("benchmarks: holds none", where=str(path), remedy="was the run completed?")
    return [
        _run(benchmark, f"{path}: benchmark {number}", f"{path.stem} {number}")
        for number, benchmark in enumerate(benchmarks, start=1)
    ]


def _run(benchmark: Any, where: str, name: str) -> Found:
    totals = _totals(benchmark, where)
    if totals["errored"] or not totals["successful"]:
        raise UsageError(
            f"{totals['errored']} requests failed and {totals['successful']} were completed",
            where=where,
            remedy="measure it again",
        )
    requests = _requests(benchmark, totals["successful"])
    lengths = _lengths(requests, where)
    arrivals, why = _arrivals(_strategy(benchmark, where))
    model = _model(benchmark)
    cells = {
        "run": name,
        "model": named_model(model) or "",
        "workload": describe(lengths),
        "prompt_tokens": repr(_mean(benchmark, "prompt_token_count", where)),
        "output_tokens": repr(_mean(benchmark, "output_token_count", where)),
        "num_requests": repr(totals["successful"] + totals["incomplete"]),
        "arrivals": arrivals,
    }
    measured = _latencies(benchmark, where) | _tpot(requests)
    if not totals["incomplete"]:
        measured |= _throughput(benchmark, totals["successful"], where)
    unknown = {"arrivals": why, "model": f"{model} is not in the catalogue under that name"}
    return Found(TOOL, where, cells | figures(measured), lengths, unknown)


def _totals(benchmark: Any, where: str) -> dict[str, int]:
    old = benchmark.get("run_stats") if isinstance(benchmark, dict) else None
    counts = (
        need(old, ("requests_made",), where) if old else need(benchmark, ("metrics", "request_totals"), where)
    )
    return {name: int(counts.get(name) or 0) for name in ("successful", "errored", "incomplete")}


def _strategy(benchmark: Any, where: str) -> dict[str, Any]:
    part = "config" if "config" in benchmark else "args"
    return need(benchmark, (part, "strategy"), where)


def _model(benchmark: Any) -> Any:
    backend = (benchmark.get("config") or {}).get("backend") or {}
    return backend.get("model") or (benchmark.get("worker") or {}).get("backend_model")


def _arrivals(strategy: dict[str, Any]) -> tuple[str, str]:
    """The column's text, or none and why."""
    kind, rate = strategy.get("type_"), strategy.get("rate")
    streams = strategy.get("streams") or strategy.get("max_concurrency")
    if kind == "synchronous":
        return "closed-loop:1", ""
    if kind == "concurrent":
        return f"closed-loop:{streams}", ""
    if kind == "throughput":
        return (f"closed-loop:{streams}" if streams else "all-at-once"), ""
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
        values |= {name: (summary.get("percentiles") or {}).get(name) for name in PERCENTILES}
        found |= {f"{ours}_{name}_s": value / per_s for name, value in values.items() if value is not None}
    return found


def _throughput(benchmark: Any, completed: int, where: str) -> dict[str, Any]:
    seconds = benchmark.get("duration") or need(benchmark, ("end_time",), where) - need(
        benchmark, ("start_time",), where
    )
    output = completed * _mean(benchmark, "output_token_count", where)
    total = output + completed * _mean(benchmark, "prompt_token_count", where)
    return {
        "duration_s": seconds,
        "requests_per_s": completed / seconds,
        "output_tokens_per_s": output / seconds,
        "total_tokens_per_s": total / seconds,
    }


def _requests(benchmark: Any, completed: int) -> list[dict[str, Any]]:
    """The completed requests in the order they were sent; none where the file has only some of them."""
    listed = (benchmark.get("requests") or {}).get("successful") or []
    if len(listed) != completed:
        return []
    starts = ("request_start_time", "start_time")
    return sorted(listed, key=lambda request: next((request[key] for key in starts if key in request), 0.0))


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

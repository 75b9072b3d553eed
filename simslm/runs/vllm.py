"""Result files of ``vllm bench serve --save-result`` (vllm/benchmarks/serve.py of vLLM) and of SGLang's
``bench_serving --output-file`` (python/sglang/bench_serving.py), which began as a copy of it.

``--save-detailed`` (``--output-details``) adds the lengths of the single requests, and of vLLM's client the times at
which they were sent; without them all are taken to be alike. What was given as ``--metadata max_num_seqs=64
num_gpu_blocks=...`` stands in the file under those names and is taken as a column of ``RUNS.csv``.

``backend`` is the protocol that the client speaks: it does not say which engine answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from pathlib import Path
from typing import Any

from simslm.errors import UsageError
from simslm.plain import is_section
from simslm.runs.client_run import (
    RECORDED,
    ClientRun,
    at_once,
    describe,
    figures,
    lengths_of,
    model_cell,
    need,
    sent_times,
)
from simslm.runs.table import SETTINGS

KEYS = {"duration", "completed", "request_throughput", "output_throughput", "total_input_tokens"}
"""What every such file has."""

VLLM, SGLANG = "vllm bench serve", "sglang.bench_serving"
LATENCIES = {"ttft": "ttft", "tpot": "tpot", "itl": "itl", "e2el": "e2e", "e2e_latency": "e2e"}
STATISTICS = {
    "mean": "mean", "median": "p50", "p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99", "max": "max",
}  # fmt: skip
IN_SECONDS = 1e-3

SERVER = {
    "max_running_requests": "max_num_seqs",
    "chunked_prefill_size": "max_num_batched_tokens",
}
"""What SGLang's server says of itself (``server_info``), by column of ``RUNS.csv``."""


def runs_in(result: dict[str, Any], path: Path) -> list[ClientRun]:
    """The one run of a result.

    Raises:
        UsageError: requests failed, or a figure is missing.
    """
    # Only vLLM's client has the model under this key.
    where, tool = str(path), VLLM if "model_id" in result else SGLANG
    completed = _completed(result, where)
    lengths = None
    if "input_lens" in result and "output_lens" in result:
        lengths = lengths_of(result["input_lens"], result["output_lens"], where)
    sent = sent_times(result.get("start_times"), completed, where)
    arrivals, why = _arrivals(result, sent)
    told = result.get("server_info")
    server: dict[str, Any] = told if is_section(told) else {}
    model, unknown = model_cell(
        result.get("model_id") or result.get("model") or server.get("model_path") or ""
    )
    cells = {
        "run": f"{path.stem} {result['date']}" if "date" in result else path.stem,
        "model": model,
        "engine": f"sglang-{server['version']}" if server.get("version") else "",
        "workload": describe(lengths),
        "prompt_tokens": repr(need(result, ("total_input_tokens",), where) / completed),
        "output_tokens": repr(need(result, ("total_output_tokens",), where) / completed),
        "num_requests": repr(completed),
        "arrivals": arrivals,
    }
    known = {ours: server.get(theirs) for theirs, ours in SERVER.items()}
    cells |= {name: str(value) for name, value in known.items() if isinstance(value, int) and value > 0}
    given = {name: str(result[name]) for name in SETTINGS if result.get(name) is not None and name != "run"}
    return [
        ClientRun(
            tool,
            where,
            cells | given | _measured(result),
            lengths,
            {"arrivals": why, "model": unknown},
            sent if arrivals == RECORDED else None,
            notes=_notes(result, arrivals),
        )
    ]


def _completed(result: Mapping[str, Any], where: str) -> int:
    completed = need(result, ("completed",), where)
    sent = result.get("num_prompts") or completed + (result.get("failed") or 0)
    if completed != sent or not completed:
        raise UsageError(
            f"only {completed} of {sent} requests were completed", where=where, remedy="measure it again"
        )
    return completed


def _alike(result: Mapping[str, Any]) -> bool:
    return "input_lens" not in result and "output_lens" not in result


def _measured(result: Mapping[str, Any]) -> dict[str, str]:
    found = {
        "duration_s": result["duration"],
        "requests_per_s": result["request_throughput"],
        "output_tokens_per_s": result["output_throughput"],
        "total_tokens_per_s": result.get("total_token_throughput") or result.get("total_throughput"),
    }
    for theirs, ours in LATENCIES.items():
        for statistic, name in STATISTICS.items():
            value = result.get(f"{statistic}_{theirs}_ms")
            if value is not None:
                found[f"{ours}_{name}_s"] = value * IN_SECONDS
    return figures(found)


def _arrivals(result: Mapping[str, Any], sent: tuple[float, ...] | None) -> tuple[str, str]:
    """The column's text, or none and why.

    Times that were recorded say it best, unless they followed the answers, as in a closed loop. Below
    ``--request-rate inf`` the gaps are gamma distributed of shape ``burstiness``, so their coefficient of variation is
    ``burstiness ** -0.5``; 1 is Poisson.
    """
    rate, streams = result.get("request_rate"), result.get("max_concurrency")
    if rate in ("inf", None, inf):
        if streams:
            return f"closed-loop:{streams}", ""
        # ``inf`` with recorded times that are spread: the client itself was the bottleneck, and its times are the
        # arrivals.
        burst = sent is None or at_once(sent, result["duration"])
        return ("all-at-once" if burst else RECORDED), ""
    if sent is not None:
        return RECORDED, ""
    if result.get("ramp_up_strategy"):
        return "", "requests arrived at a rate that was ramped up"
    if streams:
        return "", "requests arrived at a rate, but no more than max_concurrency at once"
    burstiness = result.get("burstiness") or 1.0
    return (f"poisson:{rate!r}" if burstiness == 1 else f"gamma:{rate!r}:{burstiness**-0.5!r}"), ""


def _notes(result: Mapping[str, Any], arrivals: str) -> tuple[str, ...]:
    found: list[str] = []
    if arrivals == RECORDED:
        found.append("requests arrive at the times that the file has (start_times)")
        if result.get("max_concurrency"):
            found.append(
                "the client held requests back beyond max_concurrency: its times follow the engine that was measured"
            )
    if _alike(result):
        found.append("the lengths of single requests were not saved: all are taken to be alike")
    return tuple(found)

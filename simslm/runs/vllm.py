"""Result files of ``vllm bench serve --save-result`` (vllm/benchmarks/serve.py of vLLM).

``--save-detailed`` adds the lengths of the single requests; without them all are taken to be alike. What was
given as ``--metadata max_num_seqs=64 num_gpu_blocks=...`` stands in the file under those names and is taken as a
column of ``RUNS.csv``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from simslm.errors import UsageError
from simslm.runs.found import Found, Lengths, describe, figures, lengths_of, named_model, need
from simslm.runs.table import SETTINGS

KEYS = {"duration", "completed", "request_throughput", "output_throughput", "model_id"}
"""What every such file has."""

TOOL = "vllm bench serve"
LATENCIES = {"ttft": "ttft", "tpot": "tpot", "itl": "itl", "e2el": "e2e"}
STATISTICS = {"mean": "mean", "median": "p50", "p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99"}
IN_SECONDS = 1e-3


def runs_in(result: dict[str, Any], path: Path) -> list[Found]:
    """The one run of a result.

    Raises:
        UsageError: requests failed, or a figure is missing.
    """
    where, completed = str(path), need(result, ("completed",), str(path))
    sent = result.get("num_prompts", completed)
    if completed != sent:
        raise UsageError(
            f"only {completed} of {sent} requests were completed", where=where, remedy="measure it again"
        )
    lengths = _lengths(result, where)
    arrivals, why = _arrivals(result)
    cells = {
        "run": f"{path.stem} {result['date']}" if "date" in result else path.stem,
        "model": named_model(result["model_id"]) or "",
        "engine": str(result.get("backend") or "vllm"),
        "workload": describe(lengths),
        "prompt_tokens": repr(need(result, ("total_input_tokens",), where) / completed),
        "output_tokens": repr(need(result, ("total_output_tokens",), where) / completed),
        "num_requests": repr(completed),
        "arrivals": arrivals,
    }
    given = {name: str(result[name]) for name in SETTINGS if result.get(name) is not None and name != "run"}
    unknown = {"arrivals": why, "model": f"{result['model_id']} is not in the catalogue under that name"}
    return [Found(TOOL, where, cells | given | _measured(result), lengths, unknown)]


def _measured(result: dict[str, Any]) -> dict[str, str]:
    found = {
        "duration_s": result["duration"],
        "requests_per_s": result["request_throughput"],
        "output_tokens_per_s": result["output_throughput"],
        "total_tokens_per_s": result.get("total_token_throughput"),
    }
    for theirs, ours in LATENCIES.items():
        for statistic, name in STATISTICS.items():
            value = result.get(f"{statistic}_{theirs}_ms")
            if value is not None:
                found[f"{ours}_{name}_s"] = value * IN_SECONDS
    return figures(found)


def _lengths(result: dict[str, Any], where: str) -> Lengths | None:
    if "input_lens" not in result or "output_lens" not in result:
        return None
    return lengths_of(result["input_lens"], result["output_lens"], where)


def _arrivals(result: dict[str, Any]) -> tuple[str, str]:
    """The column's text, or none and why.

    Below ``--request-rate inf`` the gaps are gamma distributed of shape ``burstiness``, so their coefficient of
    variation is ``burstiness ** -0.5``; 1 is Poisson.
    """
    rate, streams = result.get("request_rate"), result.get("max_concurrency")
    if result.get("ramp_up_strategy"):
        return "", "requests arrived at a rate that was ramped up"
    if rate in ("inf", None):
        return (f"closed-loop:{streams}" if streams else "all-at-once"), ""
    if streams:
        return "", "requests arrived at a rate, but no more than max_concurrency at once"
    burstiness = result.get("burstiness") or 1.0
    return (f"poisson:{rate!r}" if burstiness == 1 else f"gamma:{rate!r}:{burstiness**-0.5!r}"), ""

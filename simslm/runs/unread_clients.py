"""Clients whose result files are not read, known by the keys of the file: so that a refusal can name the client."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from simslm.plain import is_section

KNOWN: tuple[tuple[Set[str], str], ...] = (
    (
        {"request_throughput", "time_to_first_token", "inter_token_latency"},
        "aiperf (profile_export_aiperf.json)",
    ),
    ({"request_throughput", "time_to_first_token", "request_count"}, "aiperf (profile_export_aiperf.json)"),
    ({"input_config", "time_to_first_token"}, "aiperf or genai-perf"),
    ({"load_summary", "successes", "failures"}, "inference-perf (a lifecycle metrics report)"),
    ({"results", "metadata", "version"}, "llmperf"),
    ({"elapsed_time", "num_requests", "requests_per_second", "tokens_per_second"}, "vllm bench throughput"),
    ({"avg_latency", "latencies", "percentiles"}, "vllm bench latency"),
)
"""Keys that give a client away, and its name."""


def client_of(result: Any) -> str:
    """The client that wrote a result which is not read; empty where that is not known."""
    if not is_section(result):
        return ""
    return next((name for keys, name in KNOWN if set(result) >= keys), "")

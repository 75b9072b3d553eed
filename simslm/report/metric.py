"""The latencies of this field: key, short name and definition, in the order in which pages show them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """One latency: its key in files, its name on screens, what it means."""

    key: str
    name: str
    definition: str


LATENCIES = (
    Metric("ttft_s", "TTFT", "time to first token: first output token’s time − arrival"),
    Metric(
        "tpot_s", "TPOT", "time per output token: (E2E − TTFT) / (output tokens − 1), from 2 output tokens on"
    ),
    Metric("itl_s", "ITL", "inter-token latency: every gap between two output tokens of a request, pooled"),
    Metric("e2e_s", "E2E", "end to end: last output token’s time − arrival"),
    Metric("queue_s", "Queue", "first time scheduled − arrival"),
)
BY_KEY = {metric.key: metric for metric in LATENCIES}
STATISTICS = ("mean", "p50", "p90", "p95", "p99", "max")

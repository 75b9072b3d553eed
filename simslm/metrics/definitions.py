"""The figures of this field as everything here defines them: printed beside the numbers on every screen and page."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure.

    Attributes:
        key: in ``summary.json``.
        name: on screens.
        definition: how it is computed.
        words: the name written out; empty where it is already.
    """

    key: str
    name: str
    definition: str
    words: str = ""

    @property
    def meaning(self) -> str:
        """What a reader who does not know the name needs."""
        return f"{self.words}: {self.definition}" if self.words else self.definition


LATENCIES = (
    Metric("ttft_s", "TTFT", "first output token’s time − arrival", "time to first token"),
    Metric(
        "tpot_s",
        "TPOT",
        "(E2E − TTFT) / (output tokens − 1), from 2 output tokens on",
        "time per output token",
    ),
    Metric("itl_s", "ITL", "every gap between two output tokens of a request, pooled", "inter-token latency"),
    Metric("e2e_s", "E2E", "last output token’s time − arrival", "end to end"),
    Metric("queue_s", "Queue", "first time scheduled − arrival"),
)
"""In the order in which they are shown."""

BY_KEY = {metric.key: metric for metric in LATENCIES}
STATISTICS = ("mean", "p50", "p90", "p95", "p99", "max")

ATTAINMENT = Metric(
    "slo.attainment", "SLO attainment", "share of arrived requests that met every stated bound"
)
GOODPUT = Metric("slo.goodput_rps", "Goodput", "requests that met every stated bound, per second")
ENERGY = Metric("energy.total_j", "Energy", "integral of device power over the makespan, idle included")
COST = Metric(
    "economics.usd_per_million_output_tokens",
    "Cost",
    "devices by the hour over the makespan, idle included, and electricity where it is paid beside them, for a "
    "million output tokens",
)
CARBON = Metric(
    "economics.g_co2_per_million_output_tokens",
    "Carbon",
    "energy × what its electricity emits, for a million output tokens",
)

"""What is run against the clock: each work is a scenario, or several, on the roofline of an H200.

All counts of work (events, iterations) follow from the scenario and its seed alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log, sqrt
from typing import Any

Overrides = Mapping[str, Any]

SHORT: dict[str, Any] = {
    "name": "bench",
    "model": "opt-1.3b",
    "device": "h200",
    "cost": {"roofline": {}},
    "workload": {
        "num_requests": 10_000,
        "arrivals": {"process": "all-at-once"},
        "prompt_tokens": {"dist": "fixed", "value": 512},
        "output_tokens": {"dist": "fixed", "value": 128},
    },
    "deployment": {"engine": {"max_num_seqs": 128}},
}
"""512 prompt and 128 output tokens, one replica, batch cap 128."""


def _lognormal(mean: float, deviation: float, most: int) -> dict[str, Any]:
    """The lognormal of a mean and a standard deviation, cut at the longest seen."""
    variance = log(1 + (deviation / mean) ** 2)
    return {"dist": "lognormal", "mu": log(mean) - variance / 2, "sigma": sqrt(variance), "max": most}


CONVERSATION: dict[str, Any] = {
    "name": "bench",
    "model": "llama-3.2-1b",
    "device": "h200",
    "cost": {"roofline": {}},
    "workload": {
        "num_requests": 20_000,
        "arrivals": {"process": "all-at-once"},
        "prompt_tokens": _lognormal(1154.7, 1108.8, 14_050),
        "output_tokens": _lognormal(211.1, 162.9, 1_000),
    },
    "deployment": {"num_devices": 8},
}
"""Lengths like the conversations of the Azure LLM inference trace 2023 (AzureLLMInferenceTrace_conv.csv, 19,366
requests: mean, standard deviation and maximum of prompt and output), on eight replicas."""


@dataclass(frozen=True)
class Work:
    """One line of the benchmark.

    Attributes:
        name: for the file of expected counts.
        what: for the report.
        base: a scenario in which everything arrives at once.
        variants: overrides of it, each a run of its own.
        load: arrival rate as a share of the capacity that the all-at-once run of the variant shows; None keeps
            the all-at-once run itself.
        num_requests: of the run at that load; the capacity is taken from the base's own number.
        repeats: how often it is run; the median counts.
        full: only with ``--full``, and without keeping the logs in memory.
    """

    name: str
    what: str
    base: dict[str, Any]
    variants: tuple[Overrides, ...] = ({},)
    load: float | None = None
    num_requests: int | None = None
    repeats: int = 5
    full: bool = False


def _capped(seqs: int) -> Work:
    cap = ({"deployment.engine.max_num_seqs": seqs},)
    return Work(f"cap-{seqs}", f"batch cap {seqs}, 85 % load", SHORT, cap, 0.85, 10_000)


SWEEP = tuple(
    {
        "workload.num_requests": 2_000,
        "workload.prompt_tokens.value": 242,
        "workload.output_tokens.value": 520,
        "deployment.engine.max_num_seqs": 1 << power,
    }
    for power in range(10)
)

BUSY = Work("busy", "10,000 requests, 512 in / 128 out, 85 % load, batch cap 128", SHORT, ({},), 0.85, 10_000)
LIGHT = Work("light", "the same at 20 % load", SHORT, ({},), 0.20, 10_000)
BATCHES = Work(
    "batches", "all at once, 2,000 requests, 242 in / 520 out, batch cap 1, 2, 4 ... 512", SHORT, SWEEP
)
MILLION = Work(
    "million",
    "1,000,000 requests, conversation lengths, 8 replicas, 85 % load",
    CONVERSATION,
    load=0.85,
    num_requests=1_000_000,
    repeats=1,
    full=True,
)
NUMBERS = (
    BUSY,
    Work("requests-100000", "100,000 of the same", SHORT, load=0.85, num_requests=100_000, repeats=3),
    Work(
        "requests-1000000",
        "1,000,000 of the same",
        SHORT,
        load=0.85,
        num_requests=1_000_000,
        repeats=1,
        full=True,
    ),
)
CAPS = tuple(BUSY if seqs == 128 else _capped(seqs) for seqs in (32, 64, 128, 256, 512, 1024))
WORKS = (BUSY, LIGHT, BATCHES, MILLION, *NUMBERS[1:], *(work for work in CAPS if work is not BUSY))

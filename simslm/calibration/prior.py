"""What is known of each term before anything was measured.

A prior is a median and a relative spread (the standard deviation of the logarithm): wide where engines differ,
narrow where physics leaves little. It decides only what the runs do not tell, and a calibration says which terms
that were.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Prior:
    """A log-normal guess with bounds.

    Attributes:
        median: the guess.
        spread: standard deviation of its logarithm.
        low, high: bounds of the fit.
        why: where it comes from.
    """

    median: float
    spread: float
    low: float
    high: float
    why: str


PRIORS: Mapping[str, Prior] = {
    "host": Prior(
        5e-4, 0.15, 5e-5, 5e-3, "vLLM 0.6.3: 0.45 to 0.6 ms between two iterations (Recasens et al. 2025)"
    ),
    "host_per_seq": Prior(3e-5, 0.2, 1e-6, 3e-4, "ibid.: 24 to 35 µs for each sequence"),
    "layer": Prior(5e-5, 0.7, 1e-6, 1e-3, "a dozen kernels of 2 to 10 µs latency in a CUDA graph"),
    "launch": Prior(
        4e-4, 0.7, 2e-5, 4e-3, "a dozen to thirty operators of 10 to 30 µs each, called from Python"
    ),
    "weight_bandwidth": Prior(0.9, 0.07, 0.5, 1.0, "streaming kernels reach 85 to 95 % of the peak"),
    "kv_bandwidth": Prior(0.85, 0.1, 0.4, 1.0, "as weights, but gathered from blocks"),
    "compute": Prior(
        0.5, 0.4, 0.05, 0.95, "matrix products of some hundred rows reach 30 to 70 % of the peak"
    ),
    "prefill_attention": Prior(0.2, 0.7, 0.01, 0.8, "FlashAttention-2 on short prompts, from blocks"),
    "key": Prior(2e-8, 1.0, 1e-9, 2e-7, "a key's dot product and the memory latency of a block of keys"),
    "startup": Prior(0.5, 1.0, 1e-3, 30.0, "a client opens its connections, a server reads its prompts"),
}
"""Every term that latencies depend on."""

SPEED_SPREAD = 0.02
"""Relative standard deviation of the speed of a run: the same run twice differs by 0.6 to 4.3 % (Recasens et al.
2025). It is common to all metrics of the run."""

CLOCK_SPREAD = 5e-4
CLOCK_S = 0.3
"""How far a run's metrics may disagree among themselves: a share, and a time at its two ends."""

TTFT_SPREAD = 5e-3
"""What the mean time to first token has on top: the order in which a burst arrives."""

LOOP_SPREAD = 0.01
"""How far a run's metrics may disagree when requests do not come in one burst: its schedule is another each time."""

FIRST_SPREAD, FRONT_S = 0.02, 0.002
"""The same of its time to first token: a share, and the time of the front end, which is no part of the model."""

FIRST_ASSUMED_SPREAD = 0.5
"""The share where the lengths of single requests are not known: taken to be alike, clients of a closed loop send their
prompts together, and wait for one another as they never did."""

OFFLINE_SPREAD = {"decode": 0.05, "prefill": 0.1}
"""Relative standard deviation of iterations measured outside a server."""

STARTS: tuple[Mapping[str, float], ...] = (
    {},
    {"launch": 1.2e-3, "compute": 0.7},
    {"launch": 1.5e-4, "compute": 0.25},
)
"""Points from which the fit starts, beside the medians of the priors: of two times the longer hides the shorter from a
gradient."""


def medians() -> dict[str, float]:
    return {name: prior.median for name, prior in PRIORS.items()}


def logs(names: tuple[str, ...], what: str) -> np.ndarray:
    """Logarithms of the medians or bounds of some terms."""
    return np.log([getattr(PRIORS[name], what) for name in names])

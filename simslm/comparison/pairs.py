"""The requests of two runs, one beside the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from simslm.comparison.sampled import OF_REQUESTS

LEVELS = np.linspace(0.0, 1.0, 101)


class Run(Protocol):
    """What a run left behind, as :func:`simslm.report.tables.read_run` reads it.

    Attributes:
        requests: columns over arrived requests, NaN where nothing happened; ``finished``,
            ``rejected`` and ``failed`` are masks, of which the last two may be missing.
        summary: ``summary.json``.
        manifest: ``manifest.json``.
    """

    @property
    def requests(self) -> Mapping[str, np.ndarray]: ...
    @property
    def summary(self) -> Mapping[str, Any]: ...
    @property
    def manifest(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class PairedLatency:
    """What became of one latency, request by request.

    Attributes:
        metric: its key, e.g. ``ttft_s``.
        pairs: requests that have it in both runs.
        faster, slower: shares of them that it is less, and more, for than in the baseline; the rest are ties.
        levels: 0 to 1, shape ``(101,)``.
        differences_s: quantiles of value − baseline over the pairs, at those levels.
    """

    metric: str
    pairs: int
    faster: float
    slower: float
    levels: np.ndarray
    differences_s: np.ndarray


def same_requests(baseline: Run, other: Run) -> bool:
    """Whether the same requests arrived in both: as many, of the same lengths, in the same order."""
    return _same(baseline, other, ("request_id", "prompt_tokens", "output_tokens"))


def same_workload(baseline: Run, other: Run) -> bool:
    """Whether, moreover, they arrived at the same times."""
    return _same(baseline, other, ("request_id", "prompt_tokens", "output_tokens", "arrival_s"))


def _same(baseline: Run, other: Run, names: Sequence[str]) -> bool:
    return bool(len(baseline.requests["request_id"])) and all(
        np.array_equal(baseline.requests[name], other.requests[name]) for name in names
    )


def paired_latencies(baseline: Run, other: Run) -> tuple[PairedLatency, ...]:
    """Request by request, for each latency that any request has in both runs; they are :func:`same_requests`."""
    found: list[PairedLatency] = []
    for key in OF_REQUESTS:
        difference = other.requests[key] - baseline.requests[key]
        difference = difference[np.isfinite(difference)]
        if len(difference):
            faster, slower = float(np.mean(difference < 0)), float(np.mean(difference > 0))
            quantiles = np.quantile(difference, LEVELS)
            found.append(PairedLatency(key, len(difference), faster, slower, LEVELS, quantiles))
    return tuple(found)

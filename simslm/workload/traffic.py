"""What traffic is like: how often, how evenly and how long its requests are.

All of it is exact: 24 bytes are held for each request.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

WINDOWS_S = (1.0, 60.0)
"""Windows in which requests are counted, seconds."""

TIES = 0.1
"""Share of gaps of 0 from which a clock is taken to tick."""


@dataclass(frozen=True)
class Traffic:
    """Requests in order of arrival.

    Attributes:
        arrival_s: float64, never decreasing, the first at 0.
        prompt_tokens, output_tokens: int64.
        timed: False where arrival times are not known.
    """

    arrival_s: np.ndarray
    prompt_tokens: np.ndarray
    output_tokens: np.ndarray
    timed: bool = True

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def span_s(self) -> float:
        """From the first arrival to the last."""
        return float(self.arrival_s[-1]) if len(self) else 0.0

    @property
    def rate_rps(self) -> float | None:
        """Requests per second between the first and the last arrival; None where that is no rate."""
        return (len(self) - 1) / self.span_s if self.timed and self.span_s > 0 else None

    @cached_property
    def gaps_s(self) -> np.ndarray:
        return np.diff(self.arrival_s)

    @property
    def gap_cv(self) -> float | None:
        """Coefficient of variation of the gaps: 1 for a Poisson process, above for burstier ones."""
        mean = float(self.gaps_s.mean()) if self.timed and len(self) > 2 else 0.0
        return float(self.gaps_s.std()) / mean if mean > 0 else None

    @property
    def rank_correlation(self) -> float | None:
        """Spearman's, between prompt and output lengths; None where either is always the same."""
        from scipy.stats import rankdata

        if len(self) < 3 or not np.ptp(self.prompt_tokens) or not np.ptp(self.output_tokens):
            return None
        ranks = rankdata(self.prompt_tokens), rankdata(self.output_tokens)
        return float(np.corrcoef(*ranks)[0, 1])

    @property
    def tick_s(self) -> float | None:
        """The tick of the clock, seconds: the usual step between two times, where many requests share one; else
        None."""
        if not self.timed or len(self) < 20 or np.mean(self.gaps_s == 0) < TIES or not self.gaps_s.any():
            return None
        return float(f"{np.median(self.gaps_s[self.gaps_s > 0]):.6g}")

    def counts(self, window_s: float) -> np.ndarray:
        """Requests in each whole window from the first arrival on, int64; empty where not one window is whole."""
        windows = int(self.span_s / window_s)
        if windows > 100_000_000:
            return np.zeros(0, dtype=np.int64)
        number = (self.arrival_s[self.arrival_s < windows * window_s] / window_s).astype(np.int64)
        return (
            np.bincount(np.minimum(number, windows - 1), minlength=windows) if windows else np.zeros(0, int)
        )

    def peak_to_mean(self, window_s: float) -> float | None:
        """Most requests in a window by the mean; None with less than two windows."""
        counts = self.counts(window_s)
        return float(counts.max() / counts.mean()) if self.timed and len(counts) > 1 else None

    def dispersion(self, window_s: float) -> float | None:
        """Index of dispersion: variance of the counts of windows by their mean; 1 for a Poisson process."""
        counts = self.counts(window_s)
        return float(counts.var() / counts.mean()) if self.timed and len(counts) > 1 else None

    def part(self, rows: Any) -> Traffic:
        """Some of the requests, the first at 0."""
        arrival_s = self.arrival_s[rows]
        first = arrival_s[0] if len(arrival_s) else 0.0
        return Traffic(arrival_s - first, self.prompt_tokens[rows], self.output_tokens[rows], self.timed)


def recorded_traffic(pieces: Iterable[Any]) -> Traffic:
    """The traffic of a file, from the pieces that a reader gives."""
    found = list(pieces)
    ticks = np.concatenate([piece.ticks for piece in found])
    prompts, outputs = _tokens(found)
    if np.any(ticks[1:] < ticks[:-1]):
        order = np.argsort(ticks, kind="stable")
        ticks, prompts, outputs = ticks[order], prompts[order], outputs[order]
    arrival_s = (ticks - (ticks[0] if len(ticks) else 0)) / found[0].ticks_per_s
    return Traffic(arrival_s, prompts, outputs, found[0].timed)


def generated_traffic(pieces: Iterable[Any]) -> Traffic:
    """The traffic of requests in pieces, in order of arrival; those of clients that wait for answers have no times,
    but where they are due at some."""
    found = list(pieces)
    arrival_s = np.concatenate([piece.arrival_s for piece in found])
    timed = all(
        (piece.closed_loop is None or piece.closed_loop.paced) and piece.programs is None for piece in found
    )
    return Traffic(arrival_s - arrival_s[0], *_tokens(found), timed)


def _tokens(pieces: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    return (
        np.concatenate([piece.prompt_tokens for piece in pieces]),
        np.concatenate([piece.output_tokens for piece in pieces]),
    )


QUANTILES = (0.5, 0.9, 0.95, 0.99)


def length_figures(values: np.ndarray) -> dict[str, float]:
    """Smallest, mean, median, 90th, 95th and 99th percentile, and largest of some lengths."""
    named = zip(QUANTILES, np.quantile(values, QUANTILES, method="inverted_cdf").tolist(), strict=True)
    return {
        "min": int(values.min()),
        "mean": float(values.mean()),
        **{f"p{100 * at:g}": int(value) for at, value in named},
        "max": int(values.max()),
    }


def figures(traffic: Traffic) -> dict[str, Any]:
    """All figures of a traffic as plain numbers; None where a figure does not exist."""
    return {
        "requests": len(traffic),
        "span_s": traffic.span_s if traffic.timed else None,
        "rate_rps": traffic.rate_rps,
        "gap_cv": traffic.gap_cv,
        **{f"peak_to_mean_{window:g}s": traffic.peak_to_mean(window) for window in WINDOWS_S},
        **{f"dispersion_{window:g}s": traffic.dispersion(window) for window in WINDOWS_S},
        "tick_s": traffic.tick_s,
        "prompt_tokens": length_figures(traffic.prompt_tokens),
        "output_tokens": length_figures(traffic.output_tokens),
        "rank_correlation": traffic.rank_correlation,
    }

"""What every reader returns: the requests of one file, in the file's order and on the file's clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Recording:
    """The requests of a trace as recorded.

    Attributes:
        ticks: arrival on the file's clock, shape ``(n,)``: int64 where the clock is whole, else float64.
        ticks_per_s: ticks in a second.
        prompt_tokens: int64, at least 1.
        output_tokens: int64, at least 1.
        dropped: rows that are no requests, counted by reason.
        notes: what the file says and the reader leaves out.
    """

    ticks: np.ndarray
    ticks_per_s: int
    prompt_tokens: np.ndarray
    output_tokens: np.ndarray
    dropped: Mapping[str, int]
    notes: tuple[str, ...] = ()

    def arrival_s(self) -> np.ndarray:
        """Seconds since the earliest request, float64, rounded once (below ``2**53`` ticks)."""
        first = self.ticks.min() if len(self.ticks) else 0
        return (self.ticks - first) / self.ticks_per_s


def keep_requests(
    ticks: np.ndarray,
    ticks_per_s: int,
    prompt_tokens: np.ndarray,
    output_tokens: np.ndarray,
    no_output: str = "no output tokens",
    notes: tuple[str, ...] = (),
) -> Recording:
    """The rows with at least one prompt token and one output token; the rest are counted.

    Args:
        no_output: what a row without output tokens is in this format.
    """
    empty = output_tokens < 1
    promptless = (prompt_tokens < 1) & ~empty
    keep = ~(empty | promptless)
    counts = {no_output: int(empty.sum()), "no prompt tokens": int(promptless.sum())}
    return Recording(
        ticks[keep],
        ticks_per_s,
        prompt_tokens[keep],
        output_tokens[keep],
        {reason: count for reason, count in counts.items() if count},
        notes,
    )

"""What every reader returns: the requests of one file, in the file's order and on the file's clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

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
        priority: int64; None where the file has none.
        session_id: int64, -1 for none; None where the file has none.
        patience_s: float64, inf for ever; None where the file has none.
        units: the prompts' prefixes as chains, see :mod:`simslm.workload.prefixes`; None where the file has none.
        unit_tokens: tokens of a unit, 0 without units.
    """

    ticks: np.ndarray
    ticks_per_s: int
    prompt_tokens: np.ndarray
    output_tokens: np.ndarray
    dropped: Mapping[str, int]
    priority: np.ndarray | None = None
    session_id: np.ndarray | None = None
    patience_s: np.ndarray | None = None
    units: Sequence[tuple[int, ...]] | None = None
    unit_tokens: int = 0

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
    *,
    priority: np.ndarray | None = None,
    session_id: np.ndarray | None = None,
    patience_s: np.ndarray | None = None,
    units: Sequence[tuple[int, ...]] | None = None,
    unit_tokens: int = 0,
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
        None if priority is None else priority[keep],
        None if session_id is None else session_id[keep],
        None if patience_s is None else patience_s[keep],
        None if units is None else list(compress(units, keep)),
        unit_tokens,
    )


def sessions(labels: Any) -> np.ndarray:
    """Numbers the conversations of a pyarrow array of labels in order of appearance; -1 where there is none."""
    numbers: dict[str, int] = {}
    none = (None, "", "-1")
    found = [-1 if label in none else numbers.setdefault(label, len(numbers)) for label in labels.to_pylist()]
    return np.array(found, dtype=np.int64)

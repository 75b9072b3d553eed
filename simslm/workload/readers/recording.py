"""What every reader returns: requests of one file, in the file's order and on the file's clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np

OPTIONAL: dict[str, Any] = {
    "priority": 0,
    "session_id": -1,
    "patience_s": np.inf,
    "images": 0,
    "elapsed_s": np.nan,
    "pause_s": np.nan,
}
"""Columns that a file may have, and what stands for a value that is not there."""


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
        images: int64, of each prompt; None where the file does not count them.
        elapsed_s: float64, from arrival to the end of each answer, NaN where that is not known; None where the file
            does not say.
        timed: False where the file says nothing of time; ``ticks`` are 0 then.
        pause_s: float64, from the answer before it in its session to each request, NaN where that is not stated; None
            where the file does not say.
        chained: rows that state a pause in place of a time; their ticks are as if answers took no time.
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
    images: np.ndarray | None = None
    elapsed_s: np.ndarray | None = None
    pause_s: np.ndarray | None = None
    timed: bool = True
    chained: int = 0

    def __len__(self) -> int:
        return len(self.ticks)

    def arrival_s(self, first: float | None = None) -> np.ndarray:
        """Seconds since the earliest request, or since a tick, float64, rounded once (below ``2**53`` ticks)."""
        if first is None:
            first = self.ticks.min() if len(self.ticks) else 0
        # The difference first, in whole ticks: dates in nanoseconds have more digits than a double.
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
    images: np.ndarray | None = None,
    elapsed_s: np.ndarray | None = None,
    pause_s: np.ndarray | None = None,
    timed: bool = True,
    chained: np.ndarray | None = None,
) -> Recording:
    """The rows with at least one prompt token and one output token; the rest are counted.

    Args:
        no_output: what a row without output tokens is in this format.
        chained: a mask of rows that state a pause in place of a time.
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
        None if images is None else images[keep],
        None if elapsed_s is None else elapsed_s[keep],
        None if pause_s is None else pause_s[keep],
        timed,
        0 if chained is None else int(np.count_nonzero(chained[keep])),
    )


def gathered(pieces: Iterable[Recording]) -> Recording:
    """The pieces of a file as one; at least one piece."""
    found = list(pieces)
    first = found[0]
    units = None
    if any(piece.units is not None for piece in found):
        units = [unit for piece in found for unit in (piece.units or [()] * len(piece))]
    return Recording(
        np.concatenate([piece.ticks for piece in found]),
        first.ticks_per_s,
        np.concatenate([piece.prompt_tokens for piece in found]),
        np.concatenate([piece.output_tokens for piece in found]),
        dict(sum((Counter(piece.dropped) for piece in found), Counter())),
        units=units,
        unit_tokens=max(piece.unit_tokens for piece in found),
        timed=first.timed,
        chained=sum(piece.chained for piece in found),
        **{name: _joined(name, found) for name in OPTIONAL},
    )


def _joined(name: str, pieces: Sequence[Recording]) -> np.ndarray | None:
    """An optional column of all pieces; None where no piece has it."""
    columns = [getattr(piece, name) for piece in pieces]
    known = next((column for column in columns if column is not None), None)
    if known is None:
        return None
    blank = OPTIONAL[name]
    return np.concatenate(
        [
            np.full(len(piece), blank, dtype=known.dtype) if column is None else column
            for piece, column in zip(pieces, columns, strict=True)
        ]
    )


class Numbering(dict[str, int]):
    """Numbers the conversations of a file in order of appearance."""

    def __call__(self, labels: Any) -> np.ndarray:
        """The numbers of a pyarrow array of labels, int64; -1 where there is none."""
        none = (None, "", "-1")
        found = [-1 if label in none else self.setdefault(label, len(self)) for label in labels.to_pylist()]
        return np.array(found, dtype=np.int64)

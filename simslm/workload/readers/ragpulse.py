"""RAGPulse (2025), https://github.com/flashserve/RAGPulse: requests of a retrieval-augmented assistant, JSON lines.

``timestamp`` is a text of seconds since the week began, and a file may hold several weeks: where the clock goes back
by more than half a week, the next week begins. ``session_id`` is the conversation. ``hash_ids`` is an object of lists
that name passages of unknown length, not blocks of the prompt; they are not used.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from simslm.workload.readers.fields import LABEL, QUOTED_SECONDS, TOKENS
from simslm.workload.readers.recording import Numbering, Recording, keep_requests
from simslm.workload.readers.table import blame, json_pieces

WEEK_S = 7 * 86400.0

FIELDS = {
    "timestamp": QUOTED_SECONDS,
    "input_length": TOKENS,
    "output_length": TOKENS,
    "session_id": LABEL,
}
REMEDY = (
    "ragpulse has one JSON object per line with timestamp (a text of seconds), input_length, output_length and "
    "session_id"
)


def fits(row: dict[str, Any]) -> bool:
    """Whether a row is not one of Mooncake, whose keys are the same."""
    return isinstance(row["timestamp"], str) or isinstance(row.get("hash_ids"), dict)


def read(path: Path) -> Iterator[Recording]:
    """The requests of one file."""
    sessions, last_s, weeks = Numbering(), 0.0, 0.0
    for columns in json_pieces(path, FIELDS, REMEDY):
        times_s = _numbers(columns["timestamp"], path)
        turned = np.cumsum(np.diff(times_s, prepend=last_s) < -WEEK_S / 2) + weeks
        if len(times_s):
            last_s, weeks = float(times_s[-1]), float(turned[-1])
        yield keep_requests(
            times_s + turned * WEEK_S,
            1,
            columns["input_length"],
            columns["output_length"],
            session_id=sessions(columns["session_id"]),
        )


def _numbers(texts: Any, path: Path) -> np.ndarray:
    import pyarrow as pa

    try:
        times_s = texts.cast(pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowException:
        blame(path, FIELDS, REMEDY, f"timestamp: expected {QUOTED_SECONDS.expected} in every row")
    if not QUOTED_SECONDS.within(times_s):
        blame(path, FIELDS, REMEDY, f"timestamp: expected {QUOTED_SECONDS.expected} in every row")
    return times_s

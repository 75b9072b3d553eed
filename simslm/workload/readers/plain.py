"""The project's own files: ``arrival_s,prompt_tokens,output_tokens``, and where wanted ``priority`` (blank for 0),
``session_id`` (any text, blank or -1 for none) and ``patience_s`` (blank for ever), as CSV, as JSON lines, or as
Parquet. Without ``arrival_s`` they are lengths, to be used with arrivals beside them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from simslm.workload.readers.fields import LABEL, LENGTH, PATIENCE, PRIORITY, SECONDS, SECONDS_OR_NONE
from simslm.workload.readers.recording import Numbering, Recording, keep_requests
from simslm.workload.readers.table import Timing, csv_pieces, json_pieces

FIELDS = {"prompt_tokens": LENGTH, "output_tokens": LENGTH}
TIME = {"arrival_s": SECONDS}
OPTIONAL = {"priority": PRIORITY, "session_id": LABEL, "patience_s": PATIENCE}
REMEDY = "csv, jsonl and parquet have arrival_s,prompt_tokens,output_tokens and may have priority,session_id,patience_s"


def read_csv(path: Path) -> Iterator[Recording]:
    """The requests of a CSV file; here every row has to be one."""
    return requests(csv_pieces(path, FIELDS, REMEDY, TIME | OPTIONAL))


def read_json(path: Path) -> Iterator[Recording]:
    """The same of a file with one JSON object per line."""
    timing = Timing(path, "arrival_s", REMEDY)

    def checked() -> Iterator[dict[str, Any]]:
        for columns in json_pieces(path, FIELDS, REMEDY, {"arrival_s": SECONDS_OR_NONE} | OPTIONAL):
            times = columns.get("arrival_s", np.full(len(columns["prompt_tokens"]), np.nan))
            timing.check(np.isnan(times))
            yield columns

    return requests(checked())


def requests(pieces: Iterator[dict[str, Any]]) -> Iterator[Recording]:
    """Requests from columns by their names; without ``arrival_s`` they say nothing of time."""
    sessions = Numbering()
    for columns in pieces:
        prompts = columns["prompt_tokens"]
        yield keep_requests(
            columns.get("arrival_s", np.zeros(len(prompts))),
            1,
            prompts,
            columns["output_tokens"],
            priority=columns.get("priority"),
            session_id=sessions(columns["session_id"]) if "session_id" in columns else None,
            patience_s=columns.get("patience_s"),
            timed="arrival_s" in columns,
        )
